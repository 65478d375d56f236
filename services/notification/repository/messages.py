"""Messages: claimed by set, recorded by set. How they are made is in drafts.py.

The text is on record before it leaves: a claim writes it, commits, and only then is anything sent. What came of it
is recorded only for the claim it belongs to, so a process that was overtaken cannot overwrite its successor.
"""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.reasons import Carrier
from services.chassis.db import Row, UnitOfWork
from services.notification.domain.life import State, sources_of
from services.notification.domain.urgency import Urgency
from services.notification.repository import recipients
from services.notification.repository.saying import RETURNING, SAID, say_all
from services.notification.repository.truth import overtaken
from services.notification.tables import WAITING, one_of

_WAITING: Final = one_of("m.state", WAITING)

# A plan made while the table is empty, and kept by a connection, would read a million messages to find two hundred. So
# these are planned for the arrays they are given, and the planner is left only the indexes.
PIN = """
select set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)
"""
_POSTPONE = f"""
update messages p set due_at = $2, not_before = greatest(p.not_before, $2)
where p.message_id = any(array(
    select m.message_id from messages m where m.channel = 'sms' and {_WAITING} and m.due_at <= $1
    and not coalesce(m.deadline_at > $1 and m.deadline_at <= $2, false) order by m.due_at limit $3 for update
))
"""
_DUE = f"""
select m.* from messages m where m.channel = $1 and {_WAITING} and m.due_at <= $2 and m.message_id <> all($4::uuid[])
"""
_OLDEST: Final = f"{_DUE} order by m.due_at limit $3 for update skip locked"
# Class by class, so that of a class that waits for the morning only the first entry of its index is looked at.
_MOST_URGENT: Final = f"""
select d.* from unnest(array[{", ".join(str(int(urgency)) for urgency in Urgency)}]) as u(priority)
cross join lateral ({_DUE} and m.priority = u.priority order by m.due_at limit $3 for update skip locked) d
limit $3
"""


def _pick(due: str) -> str:
    # In an order of its own: where rows lie on the disk must not say who of equals goes first.
    # `overtaken`: the ids of events begin with the moment at which they were said.
    return f"""
with m as materialized ({due})
select m.message_id, m.occasion, m.variant, m.facts::text as facts, m.state, m.claims, m.tries, m.ask_since,
       m.created_at, m.deadline_at, m.provider, m.priority, m.state_at,
       r.registration_id, r.tail, r.standing, r.language, r.pay_by,
       r.contact_known = r.contact_wanted as contact_sure, r.erased_at,
       case $1 when 'sms' then r.phone else r.email end as address,
       exists (select from messages l where l.registration_id = m.registration_id
               and l.channel = m.channel and l.caused_by > m.caused_by
               and ({overtaken("m.occasion", "l.occasion")})) as overtaken
from m join recipients r on r.registration_id = m.registration_id
order by m.priority, m.due_at, m.registration_id, m.created_at, m.occasion
"""


_PICK_MOST_URGENT: Final = _pick(_MOST_URGENT)
_PICK_OLDEST: Final = _pick(_OLDEST)
_CLAIM = f"""
update messages m set state = 'sending', state_at = $2, due_at = $3, claims = m.claims + 1,
    ambiguous = m.ambiguous + case when m.state = 'sending' or (m.ask_since is not null and m.channel = 'email')
                                   then 1 else 0 end,
    -- A mail server cannot be asked: that this may be a second copy is counted, once.
    -- Whoever had claimed an SMS and never said what came of it may have sent it.
    ask_since = case when m.channel = 'email' then null
                     when m.state = 'sending' then least(coalesce(m.ask_since, m.state_at), m.state_at)
                     else m.ask_since end,
    template_version = t.version, subject = t.subject, body = t.body, parts = t.parts, provider = t.provider,
    language = t.language
from unnest($1::uuid[], $4::int[], $5::text[], $6::text[], $7::int[], $8::text[], $9::text[])
     as t(message_id, version, subject, body, parts, provider, language)
where m.message_id = t.message_id and {one_of("m.state", sources_of(State.SENDING))}
"""
_SUPERSEDE = f"""
update messages m set state = 'superseded', state_at = $2, due_at = null, call_at = null
where m.message_id = any($1::uuid[]) and {one_of("m.state", sources_of(State.SUPERSEDED))}
"""
_NEXT_DUE = f"""
select m.due_at from messages m where m.channel = $1 and {_WAITING} and m.due_at is not null
order by m.due_at limit 1
"""
_RECORD = f"""
with recorded as (
    update messages m set state = t.state, state_at = $9, due_at = t.due_at, tries = m.tries + t.tried,
        ambiguous = greatest(m.ambiguous + t.ambiguous, 0), ask_since = t.ask_since,
        provider = coalesce(t.provider, m.provider), provider_ref = coalesce(t.provider_ref, m.provider_ref),
        carrier_code = coalesce(t.carrier_code, m.carrier_code), reason_code = t.reason_code,
        call_at = case when t.state <> 'delivered' then m.call_at end
    from unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
                $8::int[], $10::int[], $11::timestamptz[],
                $12::text[])
         as t(message_id, claim, state, due_at, provider_ref, carrier_code, reason_code, ambiguous, tried,
              ask_since, provider)
    where m.message_id = t.message_id and m.claims = t.claim and m.state = 'sending'
    {RETURNING}
){SAID}
"""
_REFERRED = (
    "select message_id, registration_id from messages where message_id = any($1::uuid[]) and channel = 'sms'"
)
_RECEIVE = f"""
with recorded as (
    update messages m set state = t.state, state_at = $6, due_at = null,
        provider_ref = coalesce(m.provider_ref, t.provider_ref), carrier_code = t.carrier_code,
        reason_code = t.reason_code, call_at = case when t.state <> 'delivered' then m.call_at end
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
         as t(message_id, state, provider_ref, carrier_code, reason_code)
    where m.message_id = t.message_id and (m.claims > 0 or m.ask_since is not null)
      and {one_of("m.state", sources_of(State.DELIVERED) & sources_of(State.UNDELIVERED))}
    {RETURNING}
){SAID}
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A message about to be sent, with its text."""

    message_id: UUID
    version: int
    subject: str
    body: str
    parts: int
    provider: str  # who gets it
    language: str = "zh"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one claim."""

    message_id: UUID
    claim: int
    registration_id: UUID
    state: State
    due_at: datetime | None = None
    provider_ref: str | None = None
    carrier_code: str | None = None
    reason_code: str | None = None
    ambiguous: int = 0  # one more whose outcome is unknown, or one less
    tried: bool = True
    ask_since: datetime | None = None  # since then the carrier may have it without our knowing
    provider: str | None = None  # where it was found, if it was


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a carrier reported of a message it had accepted."""

    message_id: UUID
    state: State
    provider_ref: str | None
    carrier_code: str
    reason_code: str | None


async def postpone(uow: UnitOfWork, until: datetime, limit: int) -> int:
    """SMS that are due now wait until then, save those that would come too late. Returns how many, of at most `limit`."""
    await uow.sql(PIN)
    return await uow.changed(_POSTPONE, uow.at, until, limit)


async def pick(
    uow: UnitOfWork, channel: Carrier, limit: int, *, by_age: bool = False, besides: Collection[UUID] = ()
) -> Sequence[Row]:
    """Lock messages that are due, whichever process asks first; with what is needed to judge, render and address them.

    The most urgent ones; `by_age`: those that have waited longest. Never those `besides`.
    """
    await uow.sql(PIN)
    picking = _PICK_OLDEST if by_age else _PICK_MOST_URGENT
    return await uow.sql(picking, str(channel), uow.at, limit, list(besides))


async def claim(uow: UnitOfWork, claims: Sequence[Claim], lease_until: datetime) -> None:
    """These are on their way from here on; their texts are kept."""
    if claims:
        await uow.sql(
            _CLAIM,
            [c.message_id for c in claims],
            uow.at,
            lease_until,
            [c.version for c in claims],
            [c.subject for c in claims],
            [c.body for c in claims],
            [c.parts for c in claims],
            [c.provider for c in claims],
            [c.language for c in claims],
        )


async def supersede(uow: UnitOfWork, ids: Sequence[UUID]) -> None:
    """These are no longer true and will not be sent."""
    if ids:
        await uow.sql(_SUPERSEDE, ids, uow.at)


async def next_due(uow: UnitOfWork, channel: Carrier) -> datetime | None:
    """When the next message or lease of this channel comes due."""
    rows = await uow.sql(_NEXT_DUE, str(channel))
    return rows[0].due_at if rows else None


async def record(uow: UnitOfWork, results: Sequence[Result]) -> None:
    """What came of a batch, and the events of those that ended."""
    await uow.sql(PIN)
    ended = {r.registration_id for r in results if r.state in (State.DELIVERED, State.UNDELIVERED)}
    if ended:
        await recipients.lock(uow, sorted(ended))
    rows = await uow.sql(
        _RECORD,
        [r.message_id for r in results],
        [r.claim for r in results],
        [str(r.state) for r in results],
        [r.due_at for r in results],
        [r.provider_ref for r in results],
        [r.carrier_code for r in results],
        [r.reason_code for r in results],
        [r.ambiguous for r in results],
        uow.at,
        [int(r.tried) for r in results],
        [r.ask_since for r in results],
        [r.provider for r in results],
    )
    await say_all(uow, rows)


async def referred(uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Which of these are SMS of ours, and whose."""
    await uow.sql(PIN)
    return {row.message_id: row.registration_id for row in await uow.sql(_REFERRED, ids)}


async def receive(uow: UnitOfWork, outcomes: Sequence[Outcome], people: set[UUID]) -> int:
    """What the carrier reported, and the events of it. Those that had ended stay. Returns how many moved."""
    await recipients.lock(uow, sorted(people))
    rows = await uow.sql(
        _RECEIVE,
        [o.message_id for o in outcomes],
        [str(o.state) for o in outcomes],
        [o.provider_ref for o in outcomes],
        [o.carrier_code for o in outcomes],
        [o.reason_code for o in outcomes],
        uow.at,
    )
    await say_all(uow, rows)
    return len(rows)

"""Messages: created by set, claimed by set, recorded by set.

The text is on record before it leaves: a claim writes it, commits, and only then is anything sent. What came of it
is recorded only for the claim it belongs to, so a process that was overtaken cannot overwrite its successor.
"""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts import notification
from contracts.reasons import Carrier
from services.chassis import outbox
from services.chassis.db import Row, UnitOfWork
from services.notification.domain.life import State, sources_of
from services.notification.domain.occasions import Occasion
from services.notification.repository import recipients
from services.notification.tables import WAITING, one_of

_WAITING: Final = one_of("m.state", WAITING)

# A plan made while the table is empty is kept for the life of a connection: it would read a million messages to
# find two hundred. These leave the planner only the indexes.
_PIN = """
select set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
"""
_CREATE = """
with created as (
insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts,
    deadline_at, created_at, state_at, not_before, due_at, template_version, correlation_id, caused_by)
select c.reference, t.registration_id, $1, t.variant, t.instance, c.channel, 'created', t.facts::jsonb,
    t.deadline_at, $2, $2, c.first, case when r.contact_known = r.contact_wanted then c.first end,
    c.version, t.correlation_id, t.caused_by
from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[], $9::uuid[],
            $10::timestamptz[], $11::timestamptz[], $12::int[], $13::int[], $14::uuid[], $15::uuid[])
     as t(registration_id, variant, instance, facts, deadline_at, correlation_id, caused_by,
          sms_first, email_first, sms_version, email_version, sms_reference, email_reference)
join recipients r on r.registration_id = t.registration_id
cross join lateral (values ('sms', t.sms_first, t.sms_version, t.sms_reference),
                           ('email', t.email_first, t.email_version, t.email_reference))
     as c(channel, first, version, reference)
on conflict (registration_id, occasion, instance, channel) do nothing
returning due_at
)
select coalesce(bool_or(due_at is not null), false) as sendable from created
"""
_POSTPONE = f"""
update messages m set due_at = $2, not_before = greatest(m.not_before, $2)
where m.channel = 'sms' and {_WAITING} and m.due_at <= $1
  and not coalesce(m.deadline_at > $1 and m.deadline_at <= $2, false)
"""
_PICK = f"""
select m.message_id, m.occasion, m.variant, m.facts::text as facts, m.state, m.claims, m.tries, m.ask_since, m.created_at,
       r.registration_id, r.tail, r.standing, case $1 when 'sms' then r.phone else r.email end as address
from messages m join recipients r on r.registration_id = m.registration_id
where m.channel = $1 and {_WAITING} and m.due_at <= $2
order by m.due_at limit $3
for update of m skip locked
"""
_CLAIM = f"""
update messages m set state = 'sending', state_at = $2, due_at = $3, claims = m.claims + 1,
    ambiguous = m.ambiguous + case when m.state = 'sending' or (m.ask_since is not null and m.channel = 'email')
                                   then 1 else 0 end,
    -- A mail server cannot be asked: that this may be a second copy is counted, once.
    ask_since = case when m.channel = 'email' then null else m.ask_since end,
    template_version = t.version, subject = t.subject, body = t.body, parts = t.parts
from unnest($1::uuid[], $4::int[], $5::text[], $6::text[], $7::int[])
     as t(message_id, version, subject, body, parts)
where m.message_id = t.message_id and {one_of("m.state", sources_of(State.SENDING))}
"""
_SUPERSEDE = f"""
update messages m set state = 'superseded', state_at = $2, due_at = null
where m.message_id = any($1::uuid[]) and {one_of("m.state", sources_of(State.SUPERSEDED))}
"""
_NEXT_DUE = f"""
select m.due_at from messages m where m.channel = $1 and {_WAITING} and m.due_at is not null
order by m.due_at limit 1
"""
_SAID = """
, totals as (
    select registration_id, count(*) as total from recorded
    where state in ('delivered', 'undelivered') group by registration_id
), counted as (
    update recipients r set version = r.version + t.total from totals t
    where r.registration_id = t.registration_id
    returning r.registration_id, r.version, r.cycle_id, t.total
)
select c.registration_id, c.cycle_id, c.version - c.total as version, m.occasion, m.channel,
       m.template_version, m.state, m.reason_code, m.correlation_id, m.caused_by
from recorded m join counted c on c.registration_id = m.registration_id
where m.state in ('delivered', 'undelivered')
order by c.registration_id, m.state, m.message_id
"""
_RETURNING = """
    returning m.message_id, m.registration_id, m.occasion, m.channel, m.template_version, m.state,
              m.reason_code, m.correlation_id, m.caused_by
"""
_RECORD = f"""
with recorded as (
    update messages m set state = t.state, state_at = $9, due_at = t.due_at, tries = m.tries + t.tried,
        ambiguous = m.ambiguous + t.ambiguous, provider_ref = coalesce(t.provider_ref, m.provider_ref),
        carrier_code = coalesce(t.carrier_code, m.carrier_code), reason_code = t.reason_code
    from unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
                $8::int[], $10::int[])
         as t(message_id, claim, state, due_at, provider_ref, carrier_code, reason_code, ambiguous, tried)
    where m.message_id = t.message_id and m.claims = t.claim and m.state = 'sending'
    {_RETURNING}
){_SAID}
"""
_ASK_FIRST = f"""
update messages m set ask_since = least(coalesce(m.ask_since, $1), $1)
where {_WAITING} or (m.state = 'accepted' and m.channel = 'sms')
"""
_ACCEPTED_TO_ASK = """
select m.message_id, m.registration_id, greatest(m.ask_since, m.created_at) as since, r.phone as address
from messages m join recipients r on r.registration_id = m.registration_id
where m.channel = $1 and m.state = 'accepted' and m.ask_since is not null and r.phone is not null
order by m.state_at limit $2
"""
_REFERRED = (
    "select message_id, registration_id from messages where message_id = any($1::uuid[]) and channel = 'sms'"
)
_RECEIVE = f"""
with recorded as (
    update messages m set state = t.state, state_at = $6, due_at = null,
        provider_ref = coalesce(m.provider_ref, t.provider_ref), carrier_code = t.carrier_code,
        reason_code = t.reason_code
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
         as t(message_id, state, provider_ref, carrier_code, reason_code)
    where m.message_id = t.message_id and (m.claims > 0 or m.ask_since is not null)
      and {one_of("m.state", sources_of(State.DELIVERED) & sources_of(State.UNDELIVERED))}
    {_RETURNING}
){_SAID}
"""
_SAID_ROWS = """
unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[], $9::uuid[])
     as f(registration_id, cycle_id, sequence, occasion, channel, template_version, reason_code,
          correlation_id, caused_by)
"""


def _say(event: type[notification.Delivered | notification.Undeliverable]) -> str:
    fields = ("registration_id", "cycle_id", "occasion", "channel", "template_version", "reason_code")
    return outbox.insert_select(
        event,
        {name: f"f.{name}" for name in fields},
        source=_SAID_ROWS,
        key="f.registration_id::text",
        sequence="f.sequence",
        occurred_at="$10::timestamptz",
        correlation_id="f.correlation_id",
        causation_id="f.caused_by::text",
    )


_SAY_DELIVERED: Final = _say(notification.Delivered)
_SAY_UNDELIVERABLE: Final = _say(notification.Undeliverable)


@dataclass(frozen=True, slots=True)
class Draft:
    """A message for both channels, before it is kept."""

    registration_id: UUID
    variant: str
    instance: str
    facts: str
    deadline: datetime | None
    correlation_id: str
    caused_by: UUID
    first: Mapping[Carrier, datetime]
    version: Mapping[Carrier, int]
    reference: Mapping[Carrier, UUID]


@dataclass(frozen=True, slots=True)
class Claim:
    """A message about to be sent, with its text."""

    message_id: UUID
    version: int
    subject: str
    body: str
    parts: int


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
    ambiguous: bool = False
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a carrier reported of a message it had accepted."""

    message_id: UUID
    state: State
    provider_ref: str | None
    carrier_code: str
    reason_code: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A message that a carrier has, and to which number it went."""

    message_id: UUID
    registration_id: UUID
    since: datetime
    address: bytes


async def create(uow: UnitOfWork, occasion: Occasion, drafts: Sequence[Draft]) -> bool:
    """Keep these, for both channels each; those that are there already stay as they are.

    Returns whether any waits for nothing but its moment.
    """
    sms, email = Carrier.SMS, Carrier.EMAIL
    rows = await uow.sql(
        _CREATE,
        str(occasion),
        uow.at,
        [d.registration_id for d in drafts],
        [d.variant for d in drafts],
        [d.instance for d in drafts],
        [d.facts for d in drafts],
        [d.deadline for d in drafts],
        [d.correlation_id for d in drafts],
        [d.caused_by for d in drafts],
        [d.first[sms] for d in drafts],
        [d.first[email] for d in drafts],
        [d.version[sms] for d in drafts],
        [d.version[email] for d in drafts],
        [d.reference[sms] for d in drafts],
        [d.reference[email] for d in drafts],
    )
    return bool(rows[0].sendable)


async def postpone(uow: UnitOfWork, until: datetime) -> int:
    """Every SMS that is due now waits until then, save those that would come too late. Returns how many."""
    await uow.sql(_PIN)
    return await uow.changed(_POSTPONE, uow.at, until)


async def pick(uow: UnitOfWork, channel: Carrier, limit: int) -> Sequence[Row]:
    """Lock messages that are due, whichever process asks first; with what is needed to render and address them."""
    await uow.sql(_PIN)
    return await uow.sql(_PICK, str(channel), uow.at, limit)


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
    await uow.sql(_PIN)
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
        [int(r.ambiguous) for r in results],
        uow.at,
        [int(r.tried) for r in results],
    )
    await _say_all(uow, rows)


async def ask_first(uow: UnitOfWork, since: datetime) -> int:
    """Restored from a backup of then: what has not ended may have left since. Returns how many."""
    return await uow.changed(_ASK_FIRST, since)


async def accepted_to_ask(uow: UnitOfWork, channel: Carrier, limit: int) -> list[Asked]:
    """Messages that had left before a restore, and of which the carrier may have said more since."""
    rows = await uow.sql(_ACCEPTED_TO_ASK, str(channel), limit)
    return [Asked(row.message_id, row.registration_id, row.since, row.address) for row in rows]


async def asked(uow: UnitOfWork, ids: Sequence[UUID]) -> None:
    """What the carrier knew of these is known; their receipts, if any are still to come, come by themselves."""
    if ids:
        await uow.changed(
            "update messages set ask_since = null where message_id = any($1::uuid[]) and state = 'accepted'",
            ids,
        )


async def referred(uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Which of these are SMS of ours, and whose."""
    await uow.sql(_PIN)
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
    await _say_all(uow, rows)
    return len(rows)


async def _say_all(uow: UnitOfWork, rows: Sequence[Row]) -> None:
    """One event per message that ended; a registration's are numbered in the order in which they are added here."""
    # Delivered ones come first, in the numbers as in the log, because each type is one statement.
    numbered: Counter[UUID] = Counter()
    said: dict[str, list[tuple[object, ...]]] = {State.DELIVERED: [], State.UNDELIVERED: []}
    for row in rows:
        numbered[row.registration_id] += 1
        said[row.state].append(
            (
                row.registration_id,
                row.cycle_id,
                row.version + numbered[row.registration_id],
                row.occasion,
                row.channel,
                row.template_version,
                row.reason_code,
                row.correlation_id,
                row.caused_by,
            )
        )
    for state, statement in ((State.DELIVERED, _SAY_DELIVERED), (State.UNDELIVERED, _SAY_UNDELIVERABLE)):
        if said[state]:
            columns = [list(column) for column in zip(*said[state], strict=True)]
            await uow.sql(statement, *columns, uow.at)
            uow.events_added += len(said[state])

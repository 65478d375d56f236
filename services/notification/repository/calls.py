"""The desks' list of people to call: who gets on it, who leaves it, and what each call came to."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.notification.domain.calling import UNCONFIRMED, CallOutcome
from services.notification.domain.life import ASKS, State
from services.notification.domain.occasions import Occasion
from services.notification.repository import recipients
from services.notification.repository.truth import overtaken, untrue
from services.notification.tables import FAILED, one_of

# A reminder is about its close, whichever of several it was; anything else is about the one fact that it tells.
_MATTER: Final = f"""
case when m.occasion = '{Occasion.CLOSING_SOON}'
     then m.occasion || ' ' || extract(epoch from m.deadline_at)::bigint else m.occasion || ' ' || m.instance end
"""

# By another matter that came later, whatever channel tells it. Of one matter the next message has a look of its own.
_UNDONE: Final = f"""
exists (select from messages l where l.registration_id = m.registration_id and l.caused_by > m.caused_by
        and l.occasion <> m.occasion and ({overtaken("m.occasion", "l.occasion")}))
"""
_LATE = """
select m.message_id, m.registration_id from messages m where m.call_at <= $1 order by m.call_at limit $2
"""
# Its recipient is locked, so nothing ends meanwhile: either it is seen here, or whoever ends it sees the call.
_ENTER = f"""
with late as (
    update messages m set call_at = null where m.message_id = any($1::uuid[]) and m.call_at <= $2
    returning m.*
)
insert into calls (call_id, registration_id, site_id, occasion, matter, message_id, reason_code, created_at, call_by)
select distinct on (m.registration_id, m.occasion)
    m.message_id, m.registration_id, r.site_id, m.occasion, {_MATTER}, m.message_id,
    coalesce(m.reason_code, '{UNCONFIRMED}'), $2,
    case when {one_of("m.occasion", ASKS)} then m.deadline_at end
from late m join recipients r on r.registration_id = m.registration_id
where m.state not in ('{State.DELIVERED}', '{State.SUPERSEDED}') and r.erased_at is null
  and not coalesce({one_of("m.occasion", ASKS)} and m.deadline_at <= $2, false)
  and not ({untrue("m.occasion", "r.standing")}) and not {_UNDONE}
  and not exists (select from messages e where e.registration_id = m.registration_id and e.occasion = m.occasion
                  and e.instance = m.instance and e.channel = 'email' and e.state = '{State.DELIVERED}')
  and not exists (select from calls c where c.registration_id = m.registration_id and c.occasion = m.occasion
                  and c.closed_at is null)
order by m.registration_id, m.occasion, m.message_id desc
on conflict (registration_id, matter) do nothing
"""
_NEXT = """
select least((select call_at from messages where call_at is not null order by call_at limit 1),
             (select min(call_by) from calls where closed_at is null)) as moment
"""
_HASTEN = f"""
update messages m set call_at = $2
from unnest($1::uuid[], $3::text[]) as t(registration_id, occasion)
where m.registration_id = t.registration_id and m.occasion = t.occasion and m.channel = 'sms' and m.call_at > $2
  and {one_of("m.state", FAILED)}
  and exists (select from messages e where e.registration_id = m.registration_id and e.occasion = m.occasion
              and e.instance = m.instance and e.channel = 'email' and {one_of("e.state", FAILED)})
"""
_CLOSED = "closed_by = 'notification', closed_at = $2, outcome"
_TOLD = f"""
update calls c set {_CLOSED} = '{CallOutcome.TOLD}'
from unnest($1::uuid[], $3::text[]) as t(registration_id, occasion)
where c.registration_id = t.registration_id and c.occasion = t.occasion and c.closed_at is null
"""
_SETTLE = f"""
update calls c set {_CLOSED} = '{CallOutcome.SETTLED}'
from recipients r
where c.registration_id = any($1::uuid[]) and c.closed_at is null and r.registration_id = c.registration_id
  and ({untrue("c.occasion", "r.standing")}
       or exists (select from messages m where m.message_id = c.message_id and {_UNDONE})
       or coalesce(c.occasion = '{Occasion.CLOSING_SOON}' and c.call_by < r.pay_by, false))
"""
_OVER = f"update calls c set {_CLOSED} = '{CallOutcome.OVER}' where c.closed_at is null and c.call_by <= $1"
_END_ALL = (
    f"update calls c set {_CLOSED} = $3 where c.registration_id = any($1::uuid[]) and c.closed_at is null"
)
_PAGE = """
select c.call_id, c.registration_id, c.site_id, c.occasion, c.reason_code, c.created_at, c.call_by, c.attempts,
       c.opened_at, c.outcome, c.closed_at, r.tail, r.phone, m.body
from calls c join recipients r on r.registration_id = c.registration_id
left join messages m on m.message_id = c.message_id
where (c.closed_at is null) = $1 and ($2::text is null or c.site_id = $2)
  and (c.attempts, c.call_id) > ($3, $4)
order by c.attempts, c.call_id limit $5
"""
_LOCK = "select * from calls where call_id = $1 for update"
_OPEN = """
update calls c set opened_at = $2, opened_by = $3 from recipients r
where c.call_id = $1 and r.registration_id = c.registration_id
returning c.registration_id, r.tail, r.phone
"""
_TRIED = "update calls set attempts = attempts + 1, outcome = $2 where call_id = $1"
_CLOSE = "update calls set attempts = attempts + 1, outcome = $2, closed_at = $3, closed_by = $4 where call_id = $1"
_COUNTS = """
select site_id, reason_code, outcome, closed_at is null as open, count(*) as calls,
       count(*) filter (where closed_at is null and call_by is not null) as dated,
       min(call_by) filter (where closed_at is null) as first_by
from calls group by site_id, reason_code, outcome, closed_at is null order by site_id, reason_code, outcome
"""


async def enter(uow: UnitOfWork, limit: int) -> tuple[int, int]:
    """Look at messages that were to be confirmed by now. Returns how many were looked at, and how many calls they made."""
    late = await uow.sql(_LATE, uow.at, limit)
    if not late:
        return 0, 0
    await recipients.lock(uow, sorted({row.registration_id for row in late}))
    return len(late), await uow.changed(_ENTER, [row.message_id for row in late], uow.at)


async def next_moment(uow: UnitOfWork) -> datetime | None:
    """When the next message is to be confirmed by, or the moment of the next call passes."""
    moment: datetime | None = (await uow.sql(_NEXT))[0].moment
    return moment


async def hasten(uow: UnitOfWork, failed: Sequence[tuple[UUID, str]]) -> int:
    """Something told these people nothing: where no channel is left, nobody need wait for the set time."""
    if not failed:
        return 0
    return await uow.changed(_HASTEN, [who for who, _ in failed], uow.at, [what for _, what in failed])


async def told(uow: UnitOfWork, what: Sequence[tuple[UUID, str]]) -> int:
    """These people have just heard of these occasions: nobody need call them about it."""
    if not what:
        return 0
    return await uow.changed(_TOLD, [who for who, _ in what], uow.at, [occasion for _, occasion in what])


async def settle(uow: UnitOfWork, people: Sequence[UUID]) -> int:
    """Something has become true of these people: calls about what is not true any more are taken off the list."""
    return await uow.changed(_SETTLE, people, uow.at)


async def drop_over(uow: UnitOfWork) -> int:
    """What the calls ask for is over."""
    return await uow.changed(_OVER, uow.at, uow.at)


async def end_all(uow: UnitOfWork, people: Sequence[UUID], outcome: CallOutcome) -> int:
    """Nobody calls these any more."""
    return await uow.changed(_END_ALL, people, uow.at, str(outcome))


async def page(
    uow: UnitOfWork, site_id: str | None, after: tuple[int, UUID], limit: int, *, is_open: bool = True
) -> Sequence[Row]:
    """The list of a desk, or of all: those not tried yet first."""
    return await uow.sql(_PAGE, is_open, site_id, *after, limit)


async def lock(uow: UnitOfWork, call_id: UUID) -> Row | None:
    """One call, held until the end of the transaction."""
    rows = await uow.sql(_LOCK, call_id)
    return rows[0] if rows else None


async def opened(uow: UnitOfWork, call_id: UUID, by: str) -> Row:
    """Somebody looks at the number. Returns it, encrypted, and whose it is."""
    return (await uow.sql(_OPEN, call_id, uow.at, by))[0]


async def note(uow: UnitOfWork, call_id: UUID, outcome: CallOutcome, by: str) -> None:
    """What came of a call. Not reached: it stays on the list."""
    if outcome is CallOutcome.NOT_REACHED:
        await uow.changed(_TRIED, call_id, str(outcome))
    else:
        await uow.changed(_CLOSE, call_id, str(outcome), uow.at, by)


async def counts(uow: UnitOfWork) -> Sequence[Row]:
    """How many calls of each desk, by reason and by what came of them."""
    return await uow.sql(_COUNTS)

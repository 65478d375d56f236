"""What people and the office read of messages."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.notification.domain.life import State
from services.notification.repository.messages import PIN
from services.notification.tables import FAILED, one_of

_OF_ONE = """
select message_id, occasion, channel, state, state_at, created_at, subject, body, reason_code, provider
from messages where registration_id = $1 order by message_id
"""
_PAGE = """
select message_id, registration_id, occasion, channel, state, state_at, reason_code, tries, ambiguous, parts
from messages where message_id > $1 order by message_id limit $2
"""
_COUNTED = """
select m.occasion, m.channel, m.provider, m.state, count(*) as messages,
       -- A mail has no parts: what an SMS costs by is counted.
       coalesce(sum(m.parts) filter (where m.channel = 'sms'), 0) as parts, coalesce(sum(m.ambiguous), 0) as ambiguous
"""
_GROUPED = """
group by m.occasion, m.channel, m.provider, m.state
order by m.occasion, m.channel, m.provider nulls first, m.state
"""
_FUNNEL: Final = f"{_COUNTED} from messages m where $1::text is null or m.occasion = $1 {_GROUPED}"
_FUNNEL_OF_DESK: Final = f"""
{_COUNTED} from recipients r join messages m on m.registration_id = r.registration_id
where r.site_id = $2 and ($1::text is null or m.occasion = $1) {_GROUPED}
"""
# `told`: the same was told by the other channel, so nobody was missed.
_UNDELIVERED: Final = f"""
select m.message_id, m.registration_id, m.occasion, m.channel, m.provider, m.state, m.state_at, m.reason_code,
       m.carrier_code, m.tries, m.deadline_at, r.site_id, r.tail,
       case m.channel when 'sms' then r.phone else r.email end as address,
       exists (select from messages o where o.registration_id = m.registration_id and o.occasion = m.occasion
               and o.instance = m.instance and o.state = '{State.DELIVERED}') as told,
       exists (select from calls c where c.registration_id = m.registration_id and c.closed_at is null) as on_call_list
from messages m join recipients r on r.registration_id = m.registration_id
where {one_of("m.state", FAILED)} and m.message_id > $1
  and ($2::text is null or m.occasion = $2) and ($3::text is null or r.site_id = $3)
order by m.message_id limit $4
"""


async def of_one(uow: UnitOfWork, registration_id: UUID) -> Sequence[Row]:
    """Every message to one registration, oldest first."""
    return await uow.sql(_OF_ONE, registration_id)


async def page(uow: UnitOfWork, after: UUID, limit: int) -> Sequence[Row]:
    """Messages in the order in which they were created."""
    return await uow.sql(_PAGE, after, limit)


async def funnel(
    uow: UnitOfWork, *, occasion: str | None = None, site_id: str | None = None
) -> Sequence[Row]:
    """How many messages of each occasion, channel and provider are in which state; of all, or of one desk's people."""
    if site_id is None:
        return await uow.sql(_FUNNEL, occasion)
    await uow.sql(PIN)
    return await uow.sql(_FUNNEL_OF_DESK, occasion, site_id)


async def undelivered(
    uow: UnitOfWork, after: UUID, limit: int, *, occasion: str | None = None, site_id: str | None = None
) -> Sequence[Row]:
    """Messages that told nobody, in the order in which they were created, with whose and why."""
    await uow.sql(PIN)
    return await uow.sql(_UNDELIVERED, after, occasion, site_id, limit)

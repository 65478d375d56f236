"""What people and the office read of messages."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.chassis.db import Row, UnitOfWork

_OF_ONE = """
select message_id, occasion, channel, state, state_at, created_at, subject, body, reason_code
from messages where registration_id = $1 order by message_id
"""
_PAGE = """
select message_id, registration_id, occasion, channel, state, state_at, reason_code, tries, ambiguous, parts
from messages where message_id > $1 order by message_id limit $2
"""
_FUNNEL = """
select occasion, channel, state, count(*) as messages, coalesce(sum(parts), 0) as parts,
       coalesce(sum(ambiguous), 0) as ambiguous
from messages group by occasion, channel, state order by occasion, channel, state
"""


async def of_one(uow: UnitOfWork, registration_id: UUID) -> Sequence[Row]:
    """Every message to one registration, oldest first."""
    return await uow.sql(_OF_ONE, registration_id)


async def page(uow: UnitOfWork, after: UUID, limit: int) -> Sequence[Row]:
    """Messages in the order in which they were created."""
    return await uow.sql(_PAGE, after, limit)


async def funnel(uow: UnitOfWork) -> Sequence[Row]:
    """How many messages of each occasion and channel are in which state."""
    return await uow.sql(_FUNNEL)

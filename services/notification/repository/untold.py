"""What somebody was to be told and was told by no channel: it matters still, and may go out once more."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.notification.domain.calling import WORTH_ANOTHER_TRY
from services.notification.domain.life import ASKS
from services.notification.repository.truth import overtaken, untrue
from services.notification.tables import FAILED, one_of

# Of each occasion the last; neither it nor a later one reached them or is on its way, and nothing said since undoes it.
_UNTOLD: Final = f"""
select distinct on (m.registration_id, m.occasion)
    m.registration_id, m.occasion, m.variant, m.facts::text as facts, m.deadline_at
from messages m join recipients r on r.registration_id = m.registration_id
where m.registration_id = any($1::uuid[]) and {one_of("m.state", FAILED)}
  and {one_of("m.occasion", WORTH_ANOTHER_TRY)} and not ({untrue("m.occasion", "r.standing")})
  and not coalesce({one_of("m.occasion", ASKS)} and m.deadline_at <= $2, false)
  and not exists (select from messages o where o.registration_id = m.registration_id and o.occasion = m.occasion
                  and o.caused_by >= m.caused_by and not ({one_of("o.state", FAILED)}))
  and not exists (select from messages l where l.registration_id = m.registration_id and l.caused_by > m.caused_by
                  and l.occasion <> m.occasion and ({overtaken("m.occasion", "l.occasion")}))
order by m.registration_id, m.occasion, m.caused_by desc
"""


async def untold(uow: UnitOfWork, people: Sequence[UUID]) -> Sequence[Row]:
    """What still matters to these and nothing told them."""
    return await uow.sql(_UNTOLD, people, uow.at)

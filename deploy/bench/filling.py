"""An outbox full of real events: registrations and their amendments, as their service says them."""

from __future__ import annotations

from typing import Final

from contracts import registration
from deploy.local.databases import DatabaseLogin
from services.chassis import outbox
from services.chassis.clock import SystemClock
from services.chassis.db import Database

TOPIC: Final = registration.PreRegistered.topic
SERVICE: Final = "registration"
_CHUNK: Final = 5000  # rows a transaction, as at a close
_SHARED = {
    "cycle_id": "'2024-health-leshan'",
    "registration_id": "id",
    "site_id": "'shizhong'",
    "specialty_code": "'367'",
    "level": "'intermediate'",
    "subjects": "array[1,2,3,4]",
    "form_version": "v",
}
_FIRST = {**_SHARED, "returning": "false"}
_LATER = {**_SHARED, "changed": "array['specialty']"}
# One registration's id is made of its number: every version finds it again without a table of them.
_PEOPLE = """
(select ('{salt:08x}-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as id, {v} as v
 from generate_series({first}, {last}) n) p
"""


async def fill(login: DatabaseLogin, rows: int, versions: int = 4, *, salt: int = 0) -> int:
    """Say `rows` events of rows / versions registrations, each in versions 1 … versions. Returns how many."""
    people = max(1, rows // versions)
    database = Database(login.url, clock=SystemClock(), pool_size=2)
    try:
        for version in range(1, versions + 1):
            for first in range(0, people, _CHUNK):
                last = min(first + _CHUNK, people) - 1
                source = _PEOPLE.format(salt=salt, v=version, first=first, last=last)
                event = registration.PreRegistered if version == 1 else registration.Amended
                statement = outbox.insert_select(
                    event,
                    _FIRST if version == 1 else _LATER,
                    source=source,
                    key="id::text",
                    sequence="v",
                    occurred_at="statement_timestamp()",
                    causation_id="uuidv7()::text",
                )
                async with database.unit_of_work() as uow:
                    uow.events_added += await uow.changed(statement)
    finally:
        await database.dispose()
    return people * versions

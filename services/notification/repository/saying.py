"""The ends of messages, said on our own topic in the transaction in which they came."""

# ruff: noqa: S608 -- what is put into statements here are constants of this service
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from contracts import notification
from services.chassis import outbox
from services.chassis.db import Row, UnitOfWork
from services.notification.domain.life import State
from services.notification.repository import calls
from services.notification.tables import one_of

ENDED: Final = (State.DELIVERED, State.UNDELIVERED, State.EXPIRED)

# For statements that begin `with recorded as (update messages m … RETURNING) SAID`: one row for each that ended, with
# the number its registration's next event has.
RETURNING: Final = """
    returning m.message_id, m.registration_id, m.occasion, m.channel, m.template_version, m.state,
              m.reason_code, m.correlation_id, m.caused_by
"""
SAID: Final = f"""
, totals as (
    select registration_id, count(*) as total from recorded
    where {one_of("state", ENDED)} group by registration_id
), counted as (
    update recipients r set version = r.version + t.total from totals t
    where r.registration_id = t.registration_id
    returning r.registration_id, r.version, r.cycle_id, t.total
)
select c.registration_id, c.cycle_id, c.version - c.total as version, m.occasion, m.channel,
       m.template_version, m.state, m.reason_code, m.correlation_id, m.caused_by
from recorded m join counted c on c.registration_id = m.registration_id
where {one_of("m.state", ENDED)}
order by c.registration_id, m.state, m.message_id
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


async def say_all(uow: UnitOfWork, rows: Sequence[Row]) -> None:
    """One event per message that ended; a registration's are numbered in the order in which they are added here."""
    # Delivered ones come first, in the numbers as in the log, because each type is one statement.
    numbered: Counter[UUID] = Counter()
    delivered: list[tuple[object, ...]] = []
    undeliverable: list[tuple[object, ...]] = []
    for row in rows:
        numbered[row.registration_id] += 1
        (delivered if row.state == State.DELIVERED else undeliverable).append(
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
    for said, statement in ((delivered, _SAY_DELIVERED), (undeliverable, _SAY_UNDELIVERABLE)):
        if said:
            columns = [list(column) for column in zip(*said, strict=True)]
            await uow.sql(statement, *columns, uow.at)
            uow.events_added += len(said)
    told = [(row.registration_id, row.occasion) for row in rows if row.state == State.DELIVERED]
    await calls.told(uow, told)
    await calls.hasten(
        uow, [(row.registration_id, row.occasion) for row in rows if row.state != State.DELIVERED]
    )

"""The one step that every contender of the pipeline does, and its tables: claim the event, change its case, say what follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from contracts import confirmation, registration
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from services.chassis import outbox
from services.chassis.db import UnitOfWork

SERVICE: Final = "confirmation"
SOURCE: Final = registration.PreRegistered.topic
TOPIC: Final = confirmation.Confirmed.topic
# The peers' inbox and outbox: the columns and indexes that ours had before they were cut by time, which costs them nothing.
TABLES: Final = (
    "create table bench_cases (id uuid primary key, version bigint not null)",
    "create table bench_inbox (handler text, event_id uuid, received_at timestamptz not null, primary key (handler, event_id))",
    """
    create table bench_outbox (
        id bigint generated always as identity primary key, xid xid8 not null default pg_current_xact_id(),
        event_id uuid not null, topic text not null, key text not null, type text not null, sequence bigint not null,
        occurred_at timestamptz not null, payload text not null, correlation_id text not null, causation_id text,
        traceparent text, unique (key, sequence)
    )
    """,
    "create index on bench_outbox (xid, id)",
)
_CHANGE = """
insert into bench_cases (id, version) select id, count(*) from unnest($1::uuid[]) id group by id order by id
on conflict (id) do update set version = bench_cases.version + excluded.version returning id, version
"""


async def database(stage: Stage) -> DatabaseLogin:
    """A migrated database with the cases' table."""
    login = await stage.migrated(SERVICE)
    async with stage.postgres.connection(login.database) as connection:
        for statement in TABLES:
            await connection.execute(statement)
        await connection.execute(f"grant all on bench_cases, bench_inbox, bench_outbox to {SERVICE}")
    return login


async def confirm_all(uow: UnitOfWork, events: Sequence[registration.PreRegistered]) -> None:
    """Our handler: the same three statements for a whole poll. Versions of a key go on without a gap."""
    wanted = Counter(event.registration_id for event in events)
    rows = await uow.sql(_CHANGE, [event.registration_id for event in events])
    version = {row.id: row.version - wanted[row.id] for row in rows}
    said: list[tuple[confirmation.Confirmed, int, object]] = []
    for event in events:
        version[event.registration_id] += 1
        said.append((confirmed(event), version[event.registration_id], event.envelope))
    await outbox.add_all(uow, said)  # type: ignore[arg-type]  # a tuple's last part is what came


def confirmed(event: registration.PreRegistered) -> confirmation.Confirmed:
    """What follows."""
    return confirmation.Confirmed(
        cycle_id=event.cycle_id,
        registration_id=event.registration_id,
        site_id=event.site_id,
        form_version=event.form_version,
        desk=event.site_id,
    )


def pre_registered(registration_id: object) -> registration.PreRegistered:
    """What it begins with."""
    return registration.PreRegistered.model_validate(
        {
            "cycle_id": "2024-health-leshan",
            "registration_id": registration_id,
            "site_id": "shizhong",
            "specialty_code": "367",
            "level": "intermediate",
            "subjects": (1, 2, 3, 4),
            "form_version": 1,
            "returning": False,
        }
    )

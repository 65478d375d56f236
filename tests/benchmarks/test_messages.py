"""The benchmark of the messages on itself, tiny: its rows are the service's own, and what it checks is seen when it is wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from contracts.catalogue import parse
from contracts.cycle import Cycle
from contracts.envelope import Envelope
from deploy.bench import creating, sent, telling
from deploy.bench.contender import Violated
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from services.chassis.clock import SystemClock
from services.chassis.db import Database
from services.chassis.vault import Vault
from services.notification.consumers import tell_expired
from services.notification.handlers.contacts import row_of
from services.notification.handlers.telling import Teller
from services.notification.templates.wording import Wording
from tests.support.postgres import TestDatabases

PEOPLE = 12
_NUMBERS = itertools.count(30_000)  # beside those of the session's databases
_ALIKE = """
select occasion, variant, instance, channel, state, facts::text, claims, tries, template_version, priority, deadline_at,
       due_at is not null as waits,
       call_at - created_at as called_after
from messages where occasion = 'expired' order by registration_id, channel
"""


@pytest.fixture
async def stage(databases: TestDatabases, tmp_path: Path) -> AsyncIterator[Stage]:
    """On the session's server; no broker is asked for anything here."""
    template = await databases.migrated("notification")
    made = Stage(
        tmp_path,
        None,  # type: ignore[arg-type]  # see above
        databases.server,
        _numbers=_NUMBERS,
        _templates={"notification": template.database},
    )
    yield made
    await made.drop(template)


@pytest.fixture
async def stormed(stage: Stage) -> AsyncIterator[DatabaseLogin]:
    """Everybody waits to be told, and has had one message before."""
    login = await telling.known(stage, PEOPLE)
    async with stage.postgres.connection(login.database) as connection:
        await telling.storm(connection, PEOPLE)
        await telling.had(connection, PEOPLE)
    yield login
    await stage.drop(login)


async def _rows(stage: Stage, login: DatabaseLogin) -> list[dict[str, Any]]:
    async with stage.postgres.connection(login.database) as connection:
        return [dict(row) for row in await connection.fetch(_ALIKE)]


async def test_the_storm_that_waits_is_what_the_handler_would_have_written(
    stage: Stage, stormed: DatabaseLogin
) -> None:
    login = await telling.known(stage, PEOPLE)
    database = Database(login.url, clock=SystemClock(), pool_size=2)
    cycle = Cycle.read(telling.cycle_by_day(stage))
    teller = Teller(cycle, Wording.load(), lambda: None, lambda: None)
    events: list[Any] = []
    for number in range(PEOPLE):
        event = telling.forfeited(number)
        envelope = Envelope(
            event_id=uuid7(), type=event.type, source=event.source, subject=event.key, time=datetime.now(UTC),
            dataschema=event.dataschema(), sequence=2, correlation_id="storm",
        )  # fmt: skip
        events.append(parse(envelope, event.model_dump_json().encode()))
    async with database.unit_of_work() as uow:
        await tell_expired(uow, events, teller=teller)
    await database.dispose()
    assert len(await _rows(stage, stormed)) == 2 * PEOPLE
    assert await _rows(stage, stormed) == await _rows(stage, login)
    await stage.drop(login)


async def test_contacts_open_with_the_keys_that_the_service_is_given(
    stage: Stage, stormed: DatabaseLogin
) -> None:
    vault = Vault.open(telling.keys(stage).vault_file(telling.SERVICE), "local")
    async with stage.postgres.connection(stormed.database) as connection:
        stored = await connection.fetchval(
            "select phone from recipients where registration_id = $1", telling.person(7)
        )
    assert vault.decrypt_text(stored, row=row_of(telling.person(7), "phone")) == telling.phone(7)


async def test_a_message_that_was_not_made_is_missed(stage: Stage, stormed: DatabaseLogin) -> None:
    async with stage.postgres.connection(stormed.database) as connection:
        await connection.execute(
            "delete from messages where message_id = $1 or occasion = 'due'", telling.waiting_sms(3)
        )
    with pytest.raises(Violated, match="'messages': 23"):
        await creating.examine(stage, stormed, PEOPLE)


def _journal(directory: Path, *references: str) -> Path:
    path = directory / "sms.jsonl"
    lines = [{"did": "send", "out_id": one} for one in references] + [{"did": "receipt", "biz_id": "0"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


_SENT = """
update messages set state = 'accepted', claims = 1, tries = 1, due_at = null, body = 'as sent', parts = 1
where occasion = 'expired' and channel = 'sms'
"""


@pytest.mark.parametrize(
    ("copies", "harm", "seen"),
    [
        (1, "", ""),
        (2, "update messages set ambiguous = 1", ""),
        (2, "", "went 2 times, 0 of its tries were ambiguous"),
        (0, "", "is accepted, and the carrier never had it"),
        (
            1,
            "update messages set state = 'created', claims = 0 where channel = 'sms' and occasion = 'expired'",
            "that we do not know to have claimed",
        ),
        (
            1,
            "update messages set state = 'created' where channel = 'sms' and occasion = 'expired'",
            "which nobody counted",
        ),
        (
            1,
            "update messages set state = 'sending', due_at = now() where channel = 'sms' and occasion = 'expired'",
            "'under_way': 12",
        ),
        (1, "delete from messages where channel = 'email'", "of 12 people"),
    ],
    ids=["once", "twice", "doubled", "never", "unclaimed", "uncounted", "left", "half"],
)
async def test_what_the_carrier_has_is_what_we_know_or_it_is_named(
    stage: Stage, stormed: DatabaseLogin, copies: int, harm: str, seen: str
) -> None:
    ours = [telling.waiting_sms(number) for number in range(PEOPLE)]
    journal = _journal(stage.directory, *ours * copies, f"{sent.BARE}7")
    async with stage.postgres.connection(stormed.database) as connection:
        await connection.execute(_SENT)
        if harm:
            await connection.execute(harm)
        if seen:
            with pytest.raises(Violated, match=seen):
                await sent.examine(connection, journal, PEOPLE)
        else:
            said = await sent.examine(connection, journal, PEOPLE)
            assert f"{PEOPLE * (copies - 1)} copies there" in said

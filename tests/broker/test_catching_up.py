"""A database caught up with what lies on the topics, on a real broker: cases that a restore under load does not meet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from rich.console import Console
from uuid_utils.compat import uuid7

from contracts import confirmation, payment
from contracts.cycle import Cycle
from contracts.envelope import Envelope
from contracts.event import Event
from contracts.reasons import ReasonCode, WindowReason
from contracts.topics import TOPICS
from deploy.backup import catching_up
from deploy.backup.archive import CannotRestore
from deploy.backup.catching_up import CaughtUp, catch_up, refuse_while_used
from deploy.backup.commands import show
from deploy.local.databases import DatabaseLogin
from deploy.rehearsal.invariants import reading
from services.chassis.db import driver_url
from services.chassis.relay import Relay
from services.payment.repository.left_behind import LeftBehind, Unrecorded
from tests.conftest import ServiceDatabase
from tests.support.eventually import eventually
from tests.support.kafka import TestKafka
from tests.support.streams import relaying

pytestmark = pytest.mark.broker

CYCLE = Cycle.read(Path(__file__).parents[2] / "deploy" / "cycles" / "2024-health-leshan.toml")
AT = datetime(2024, 1, 30, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
FEE = 20_000


def approved(key: UUID, specialty: str = "203", site_id: str | None = None) -> confirmation.Approved:
    return confirmation.Approved(
        cycle_id=CYCLE.id,
        site_id=site_id,
        registration_id=key,
        level="junior",
        subjects=(1, 2, 3, 4),
        specialty_code=specialty,
    )


def rejected(key: UUID) -> confirmation.Rejected:
    return confirmation.Rejected(
        cycle_id=CYCLE.id, registration_id=key, level="site", reason_codes=(ReasonCode.EDUCATION,)
    )


def due(key: UUID, amount_fen: int = FEE) -> payment.Due:
    window = CYCLE.windows.payment
    return payment.Due(
        cycle_id=CYCLE.id,
        registration_id=key,
        amount_fen=amount_fen,
        currency="CNY",
        opens_at=window.opens,
        closes_at=window.told_closes,
    )


class Stage:
    """Payment's database, as old as its backup, and topics that have gone on."""

    def __init__(self, login: DatabaseLogin, kafka: TestKafka) -> None:
        self.login, self.kafka = login, kafka
        self.moment = AT

    async def says(self, event: Event, sequence: int = 1, *, because: UUID | str | None = None) -> UUID:
        """On its topic, a second after the one before it."""
        self.moment += timedelta(seconds=1)
        event_id = uuid7()
        envelope = Envelope(
            event_id=event_id,
            type=event.type,
            source=event.source,
            subject=event.key,
            time=self.moment,
            dataschema=event.dataschema(),
            sequence=sequence,
            correlation_id="chain",
            causation_id=None if because is None else str(because),
        )
        record = (event.key.encode(), event.model_dump_json().encode(), list(envelope.headers()))
        await self.kafka.produce(event.topic, [record])
        return event_id

    async def owes(self, key: UUID) -> UUID:
        """Approved, and told that the fee is due. Returns the id of `due`."""
        return await self.says(due(key), because=await self.says(approved(key)))

    async def catch_up(self) -> CaughtUp:
        done = await catch_up(
            {"payment": self.login.url}, CYCLE, self.kafka.bootstrap, backup_at=AT - HOUR, at=AT + HOUR
        )
        return done["payment"]

    async def rows(self, statement: str, *args: object) -> Sequence[Mapping[str, Any]]:
        connection = await asyncpg.connect(driver_url(self.login.url))
        try:
            return list(await connection.fetch(statement, *args))
        finally:
            await connection.close()

    async def unpublished(self) -> int:
        """As operators, invariants and the job that drops old events count it."""
        return int((await self.rows(reading._UNPUBLISHED))[0][0])  # type: ignore[index]  # a record has places too

    async def counts(self, unpublished: int) -> bool:
        return await self.unpublished() == unpublished

    async def states(self) -> dict[UUID, str]:
        found = await self.rows("select registration_id, status from obligations")
        return {row["registration_id"]: row["status"] for row in found}


@pytest.fixture
async def stage(service_database: ServiceDatabase, kafka: TestKafka) -> Stage:
    await kafka.fresh({name: topic.partitions for name, topic in TOPICS.items() if topic.consumers})
    return Stage(await service_database("payment"), kafka)


async def test_what_was_said_is_said_again_with_the_same_ids_and_moments(stage: Stage) -> None:
    key = uuid4()
    said = await stage.owes(key)
    done = await stage.catch_up()
    assert (done.folded, done.heard, done.parked, done.to_go_out, done.to_ask) == (1, 1, 0, 0, 1)
    (row,) = await stage.rows("select event_id, sequence, occurred_at from outbox")
    assert (row["event_id"], row["sequence"], row["occurred_at"]) == (said, 1, stage.moment)
    assert await stage.states() == {key: "awaiting"}
    assert len(await stage.rows("select 1 from recoveries where finished_at is null")) == 1
    (kept,) = await stage.rows("select action, detail ->> 'folded' as folded from audit")
    assert (kept["action"], kept["folded"]) == ("catch-up", "1")


async def test_a_second_time_there_is_nothing_left_to_do(stage: Stage) -> None:
    await stage.owes(uuid4())
    await stage.catch_up()
    before = await stage.rows("select * from outbox")
    done = await stage.catch_up()
    assert (done.folded, done.heard, done.to_go_out) == (0, 0, 0)
    assert await stage.rows("select * from outbox") == before
    assert len(await stage.rows("select 1 from recoveries")) == 1


async def test_a_close_that_had_not_reached_everybody_is_listed_as_to_be_decided_again(stage: Stage) -> None:
    """Two people had put a desk's close off; one of its two people had been moved when the database was lost."""
    moved, left = sorted((uuid4(), uuid4()))
    for key in (moved, left):
        await stage.says(due(key), because=await stage.says(approved(key, site_id="ebian")))
    later = CYCLE.windows.payment.closes + 48 * HOUR
    told = CYCLE.windows.payment.told_closes + 48 * HOUR
    decision = uuid7()
    await stage.says(
        payment.SiteWindowSet(
            cycle_id=CYCLE.id,
            site_id="ebian",
            closes_at=later,
            told_closes_at=told,
            reason_code=WindowReason.OUTAGE,
        )
    )
    await stage.says(
        payment.WindowMoved(
            cycle_id=CYCLE.id,
            registration_id=moved,
            closes_at=told,
            reason_code=WindowReason.OUTAGE,
            counts=payment.MovedCounts(awaiting=2, reinstated=0),
        ),
        2,
        because=f"decision:{decision}",
    )
    done = await stage.catch_up()
    assert done.left_behind == [LeftBehind("ebian", later, told, 1)]
    assert done.unrecorded == [Unrecorded(decision, asked=False, moved=1, reinstated=0)]
    (kept,) = await stage.rows(
        "select detail ->> 'left_behind' as left_behind, detail ->> 'unrecorded' as lost from audit"
    )
    assert (kept["left_behind"], kept["lost"]) == ("1", "1")
    said = io.StringIO()
    show({"payment": done}, Console(file=said, width=400, highlight=False))
    assert "to be decided again: the close of ebian is 2024-02-1" in said.getvalue()
    assert (
        f"decision {decision} stands (1 moved, 0 taken back), and who made it is lost: keep the paper"
        in said.getvalue()
    )
    again = await stage.catch_up()
    assert (again.left_behind, again.unrecorded) == (done.left_behind, done.unrecorded)


async def test_without_a_decision_nothing_is_listed_and_what_cannot_be_known_is_said(stage: Stage) -> None:
    await stage.owes(uuid4())
    done = await stage.catch_up()
    assert (done.left_behind, done.unrecorded) == ([], [])
    said = io.StringIO()
    show({"payment": done}, Console(file=said, width=400, highlight=False))
    assert "decided again" not in said.getvalue()
    assert (
        "what the office asked for since the backup and nobody had approved is in no event" in said.getvalue()
    )


async def test_what_cannot_be_taken_in_is_parked_as_it_was_and_holds_nobody_else_up(stage: Stage) -> None:
    poisoned, other = uuid4(), uuid4()
    await stage.says(approved(poisoned, specialty="999"))
    await stage.says(rejected(poisoned), 2)
    await stage.owes(other)
    done = await stage.catch_up()
    assert (done.parked, done.heard, done.folded) == (2, 1, 1)
    parked = await stage.rows('select key, reason, payload, topic, "offset" from parked order by id')
    assert [(row["key"], row["reason"]) for row in parked] == [
        (str(poisoned), "failed: KeyError"),
        (str(poisoned), "behind-parked"),
    ]
    assert parked[0]["payload"] == approved(poisoned, specialty="999").model_dump_json().encode()
    assert await stage.states() == {other: "awaiting"}
    again = await stage.catch_up()
    assert (again.parked, again.heard) == (0, 0), "what waits is not parked a second time"


async def test_later_events_of_a_key_that_waits_in_the_backup_wait_behind_it(stage: Stage) -> None:
    key = uuid4()
    await stage.says(approved(key, specialty="999"))
    await stage.catch_up()
    await stage.says(rejected(key), 2)
    done = await stage.catch_up()
    assert done.parked == 1


async def test_what_was_never_published_goes_out_and_nothing_else_does(stage: Stage) -> None:
    """Also on another server, whose transactions are counted anew: rows and cursor come from its future."""
    told, untold, unheard = uuid4(), uuid4(), uuid4()
    await stage.owes(told)
    await stage.catch_up()
    # A second life: one more was approved and said due, and that had not gone out when the backup was made.
    await stage.rows(
        "insert into obligations select $1, cycle_id, status, version, amount_fen, currency, opens_at, closes_at, "
        "told_closes_at, due_at, changed_at from obligations",
        untold,
    )
    await stage.rows(
        "insert into outbox (event_id, topic, key, type, sequence, occurred_at, payload, correlation_id) "
        "values (uuidv7(), 'exam.payment', $1, 'kaowu.payment.due.v1', 1, $2, $3, 'chain')",
        str(untold),
        AT,
        due(untold).model_dump_json(),
    )
    await stage.rows("update outbox set xid = '4000000000'")
    await stage.rows("update relay_cursor set lower = '3999999999', upper = null, last_id = 0")
    # And one whose approval was taken in again says due for the first time that anybody knows of.
    await stage.says(approved(unheard))
    done = await stage.catch_up()
    assert (done.heard, done.to_go_out) == (1, 2)
    async with relaying(stage.login, stage.kafka.bootstrap) as relay:
        await published(relay, 2)
        await eventually(partial(stage.counts, 0), within=60)
    keys = [record.key for record in await stage.kafka.read("exam.payment")]
    assert sorted(keys, key=str) == sorted((str(one).encode() for one in (told, untold, unheard)), key=str)


FUTURE = 4_000_000_000  # far beyond any transaction of a server that was made for tests


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "not marked"])
async def test_what_went_out_from_a_server_that_had_counted_further_waits_for_nothing_here(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    """Not marked, it would count as unpublished until this server has counted as far, and then go out once more."""
    if not marked:
        monkeypatch.setattr(catching_up, "_NOT_FROM_HERE", "select $1::uuid[]")
    await stage.owes(uuid4())
    await stage.catch_up()
    await stage.rows(f"update outbox set xid = '{FUTURE}'")
    await stage.rows(f"update relay_cursor set lower = '{FUTURE + 1}', upper = null, last_id = 0")
    assert await stage.unpublished() == 0, "where it was written it had gone out"
    await stage.says(approved(uuid4()))
    done = await stage.catch_up()
    assert (done.heard, done.to_go_out) == (1, 1)
    async with relaying(stage.login, stage.kafka.bootstrap) as relay:
        await published(relay, 1)
        await eventually(partial(stage.counts, 0 if marked else 1), within=60)
        assert relay.published == 1
    from_here = "select count(*) as n from outbox where xid < pg_current_xact_id()"
    assert (await stage.rows(from_here))[0]["n"] == (2 if marked else 1)


async def published(relay: Relay, count: int) -> None:
    async def all_out() -> bool:
        return relay.published >= count

    await eventually(all_out, within=60)


async def test_two_histories_are_refused_by_name(stage: Stage) -> None:
    key = uuid4()
    await stage.owes(key)
    await stage.catch_up()
    other = uuid7()
    await stage.rows("update outbox set event_id = $1", other)
    with pytest.raises(CannotRestore, match=rf"two histories: version 1 of {key} is {other} in the log"):
        await stage.catch_up()


async def test_a_topic_that_no_longer_reaches_back_is_refused_by_name(stage: Stage) -> None:
    key = uuid4()
    await stage.says(due(key), 3)
    with pytest.raises(CannotRestore, match=rf"after version 0 of {key} comes 3. Take a younger backup"):
        await stage.catch_up()
    assert await stage.states() == {}


async def test_code_that_decides_otherwise_now_is_refused_by_name(stage: Stage) -> None:
    key = uuid4()
    await stage.says(due(key, amount_fen=1), because=await stage.says(approved(key)))
    with pytest.raises(CannotRestore, match=rf"(?s)due.v1 as version 1 of {key}.*amount_fen"):
        await stage.catch_up()


async def test_what_was_said_without_a_cause_that_is_known_is_refused_by_name(stage: Stage) -> None:
    await stage.says(due(uuid4()))
    with pytest.raises(CannotRestore, match="cannot be lived through again"):
        await stage.catch_up()


async def test_while_a_process_of_the_service_is_connected_nothing_is_caught_up(stage: Stage) -> None:
    await refuse_while_used("payment", stage.login.url)
    connection = await asyncpg.connect(
        driver_url(stage.login.url), server_settings={"application_name": "payment"}
    )
    try:
        with pytest.raises(CannotRestore, match=r"in use by payment \(1\)"):
            await refuse_while_used("payment", stage.login.url)
    finally:
        await connection.close()

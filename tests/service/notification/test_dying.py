"""Killed while sending: nothing is lost, and a second copy is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from services.chassis import crash
from services.chassis.jobs import Job
from services.notification.domain.life import LEASE, State
from services.notification.handlers import delivery
from services.notification.repository import messages
from services.notification.repository.messages import Claim, Result
from tests.service.notification.killing import Killed, kill_at
from tests.service.notification.system import System, due

ENDED = {"sms": "accepted", "email": "delivered"}  # once a carrier has said yes


async def owing(system: System, many: int) -> None:
    """So many who are to be told that they must pay. No receipt mends anything: that is another test's."""
    people = await system.registered(many)
    system.world.sms.receipts_url = None
    system.at("2024-02-01 10:00")
    await system.deliver(*(due(one) for one in people))


def job_of(system: System, channel: str) -> Job:
    return system.sms_job if channel == "sms" else system.mail_job


async def rows_of(system: System, channel: str) -> list[dict[str, Any]]:
    return await system.rows("select * from messages where occasion = 'due' and channel = $1", channel)


@pytest.mark.parametrize("channel", ["sms", "email"])
async def test_killed_between_accepted_and_recorded_repeats_only_what_was_under_way(
    system: System, arm: None, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BATCH", 10)
    await owing(system, 30)
    monkeypatch.setattr(delivery, "TOGETHER", 10)
    kill_at(f"{channel}-before-record", 2)  # of three sets the second is not recorded any more
    with pytest.raises(Killed):
        await job_of(system, channel).run()
    crash._name = ""
    ended = ENDED[channel]
    states = [row["state"] for row in await rows_of(system, channel)]
    held = states.count("sending")
    assert states.count(ended) >= 10 <= held
    assert states.count(ended) + held + states.count("created") == 30

    system.start()  # another process of the service, or the same one anew
    job = job_of(system, channel)
    lease = await job.run()
    assert lease == system.clock.now() + LEASE
    system.clock.jump(lease)
    assert await job.run() is None
    rows = await rows_of(system, channel)
    copies = [system.copies(row["registration_id"], channel) - 1 for row in rows]
    if channel == "sms":
        assert system.world.sms.asked >= held, "before it is sent again the carrier is asked"
        assert {row["state"] for row in rows} <= {"accepted", "delivered"}
        assert copies == [1] * 30
        return
    assert {row["state"] for row in rows} == {ended}
    assert sorted(row["ambiguous"] for row in rows) == [0] * (30 - held) + [1] * held
    assert sum(copies) >= 40, "those of the second set went twice: a mail server cannot be asked"
    for row, sent in zip(rows, copies, strict=True):
        assert 1 <= sent <= 1 + row["ambiguous"], "a copy that was not counted"


async def test_killed_in_the_middle_of_a_batch_loses_nothing(system: System, arm: None) -> None:
    await owing(system, 30)
    kill_at("sms-accepted", 7)
    with pytest.raises(BaseException):  # noqa: B017, PT011  # a group around the kill
        await system.sms_job.run()
    crash._name = ""
    system.start()
    system.clock.jump(system.clock.now() + LEASE)
    await system.sms_job.run()
    rows = await rows_of(system, "sms")
    assert {row["state"] for row in rows} <= {"accepted", "delivered"}
    assert system.world.sms.asked > 0
    for row in rows:
        assert len(system.sms_to(row["registration_id"])) == 2
        assert row["ambiguous"] == 0


async def test_killed_before_the_claim_is_durable_sends_nothing(system: System, arm: None) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    await system.deliver(due(one))
    kill_at("before-commit")
    with pytest.raises(Killed):
        await system.sms_job.run()
    crash._name = ""
    assert len(system.sms_to(one)) == 1
    await system.sms_job.run()
    assert len(system.sms_to(one)) == 2
    assert (await system.messages(one, "due"))["sms"]["ambiguous"] == 0


async def test_who_was_overtaken_cannot_overwrite(system: System) -> None:
    """A process frozen beyond its lease comes back with the result of its old claim."""
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    await system.deliver(due(one))
    row = (await system.messages(one, "due"))["sms"]
    async with system.database.unit_of_work() as uow:
        await messages.pick(uow, "sms", 10)  # type: ignore[arg-type]  # its value
        await messages.claim(uow, [Claim(row["message_id"], 1, "", "first", 1, "aliyun")], uow.at + LEASE)
    system.clock.jump(system.clock.now() + LEASE)
    async with system.database.unit_of_work() as uow:
        await messages.claim(uow, [Claim(row["message_id"], 1, "", "second", 1, "aliyun")], uow.at + LEASE)
    late = Result(row["message_id"], 1, one, State.UNDELIVERED, reason_code="bad-number")
    async with system.database.unit_of_work() as uow:
        await messages.record(uow, [late])
    assert (await system.messages(one, "due"))["sms"]["state"] == "sending"
    async with system.database.unit_of_work() as uow:
        await messages.record(uow, [Result(row["message_id"], 2, one, State.ACCEPTED, provider_ref="7")])
        await messages.record(uow, [late])
    after = (await system.messages(one, "due"))["sms"]
    assert (after["state"], after["provider_ref"], after["ambiguous"]) == ("accepted", "7", 1)


@pytest.mark.parametrize("channel", ["sms", "email"])
async def test_what_comes_back_while_others_are_recorded_is_recorded_too(
    system: System, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is under way comes back while the first of it is being recorded: then nothing is under way, and more to note."""
    await owing(system, 40)
    record = messages.record

    async def slow(*told: Any) -> None:
        await asyncio.sleep(0.5)
        await record(*told)

    monkeypatch.setattr(delivery, "TOGETHER", 4)
    monkeypatch.setattr(messages, "record", slow)
    await job_of(system, channel).run()
    rows = await rows_of(system, channel)
    assert [(row["state"], row["tries"]) for row in rows] == [(ENDED[channel], 1)] * 40


@pytest.mark.parametrize("channel", ["sms", "email"])
async def test_what_carriers_answered_is_kept_while_the_database_is_away(
    system: System, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owing(system, 10)
    record, broken = messages.record, [ConnectionRefusedError(), asyncpg.CannotConnectNowError("starting up")]

    async def away(*told: Any) -> None:
        if broken:
            raise broken.pop()
        await record(*told)

    monkeypatch.setattr(delivery, "AGAIN", 0.01)
    monkeypatch.setattr(messages, "record", away)
    await job_of(system, channel).run()
    rows = await rows_of(system, channel)
    assert [(row["state"], row["claims"]) for row in rows] == [(ENDED[channel], 1)] * 10
    assert not broken
    assert {system.copies(row["registration_id"], channel) for row in rows} == {2}, "registered, and due"


async def test_whatever_else_goes_wrong_with_recording_is_said_at_once(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    await system.deliver(due(one))
    tries = []

    async def wrong(*_: Any) -> None:
        tries.append(1)
        raise ValueError("a programming error")

    monkeypatch.setattr(messages, "record", wrong)
    with pytest.raises(ValueError, match="programming"):
        await system.sms_job.run()
    assert len(tries) == 1


@pytest.mark.parametrize("channel", ["sms", "email"])
async def test_a_claim_that_finds_no_database_leaves_what_is_under_way_to_come_back_and_be_recorded(
    system: System, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owing(system, 60)
    pick, claims = messages.pick, []

    async def once(*asked: Any, **how: Any) -> Any:
        claims.append(1)
        if len(claims) == 2:
            raise ConnectionRefusedError
        return await pick(*asked, **how)

    monkeypatch.setattr(delivery, "BATCH", 20)
    monkeypatch.setattr(delivery.Run, "goes_on", True)
    monkeypatch.setattr(messages, "pick", once)
    await job_of(system, channel).run()
    assert len(claims) > 2
    rows = await rows_of(system, channel)
    assert [(row["state"], row["claims"]) for row in rows] == [(ENDED[channel], 1)] * 60
    assert {system.copies(row["registration_id"], channel) for row in rows} == {2}, "registered, and due"

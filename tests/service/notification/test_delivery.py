"""Sending: retries by what went wrong, no copy without a count, two processes, receipts."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest
from asyncpg import IntegrityConstraintViolationError
from structlog.testing import capture_logs

from contracts.notification import Delivered, Undeliverable
from deploy.simulators.aliyun import DEAD_PREFIX, REFUSED_PREFIX, SILENT_PREFIX
from deploy.simulators.outage import Outage
from services.notification.adapters import aliyun, smtp
from services.notification.domain.life import (
    CHANNEL_PAUSE,
    LEASE,
    NEXT,
    NO_RECEIPT,
    TOO_LATE,
    State,
    sources_of,
)
from services.notification.handlers import delivery
from services.notification.repository import messages, silence
from services.notification.repository.messages import Claim, Outcome, Result
from tests.service.notification.system import System, due, expired, moment, receipts


async def test_a_number_that_cannot_be_is_given_up_at_once(system: System) -> None:
    (one,) = await system.registered(phone=f"{REFUSED_PREFIX}0001")
    told = await system.messages(one, "pre-registered")
    assert (told["sms"]["state"], told["sms"]["reason_code"], told["sms"]["tries"]) == (
        "undelivered",
        "bad-number",
        1,
    )
    assert told["sms"]["carrier_code"] == "isv.MOBILE_NUMBER_ILLEGAL"
    assert told["email"]["state"] == "delivered"
    assert {(type(e), e.channel, e.reason_code) for e in await system.told()} == {
        (Undeliverable, "sms", "bad-number"),
        (Delivered, "email", None),
    }


async def test_a_number_not_in_use_is_learned_from_its_receipt(system: System) -> None:
    (one,) = await system.registered(phone=f"{DEAD_PREFIX}0001")
    told = await system.messages(one, "pre-registered")
    assert (told["sms"]["state"], told["sms"]["reason_code"]) == ("undelivered", "number-not-in-use")


async def test_without_a_receipt_an_sms_stays_accepted(system: System) -> None:
    (one,) = await system.registered(phone=f"{SILENT_PREFIX}0001")
    assert await system.states(one, "pre-registered") == {"sms": "accepted", "email": "delivered"}
    assert [e.channel for e in await system.told()] == ["email"]


async def test_an_unknown_mailbox_is_given_up_at_once(system: System) -> None:
    (one,) = await system.registered(email="nobody@example.cn")
    told = await system.messages(one, "pre-registered")
    assert (told["email"]["state"], told["email"]["reason_code"]) == ("undelivered", "mailbox-unknown")
    assert told["sms"]["state"] == "delivered"


async def test_a_person_without_an_address_is_undelivered_not_forgotten(system: System) -> None:
    (one,) = await system.registered(email=None)
    told = await system.messages(one, "pre-registered")
    assert (told["email"]["state"], told["email"]["reason_code"]) == ("undelivered", "no-address")


async def test_a_full_mailbox_is_tried_again_later_and_later(system: System) -> None:
    (one,) = await system.registered(email="full@example.cn")
    for tries in range(1, 4):
        row = (await system.messages(one, "pre-registered"))["email"]
        assert (row["state"], row["tries"], row["ambiguous"]) == ("created", tries, 0)
        assert row["due_at"] > system.clock.now()
        system.clock.jump(row["due_at"])
        await system.mail_job.run()
    system.registry.people[str(one)]["email"] = "p0@example.cn"


async def test_a_full_mailbox_is_given_up_in_the_end_and_said(system: System) -> None:
    (one,) = await system.registered(email="full@example.cn")
    for _ in range(20):
        due_at = await system.mail_job.run()
        if due_at is None:
            break
        system.clock.jump(max(due_at, system.clock.now()))
    row = (await system.messages(one, "pre-registered"))["email"]
    assert (row["state"], row["reason_code"], row["carrier_code"]) == ("undelivered", "given-up", "452")
    assert row["due_at"] is None


async def test_a_carrier_that_is_down_delays_and_loses_nothing_while_email_goes_on(system: System) -> None:
    people = await system.registered(40)
    system.at("2024-02-01 10:00")
    system.world.sms.weather.bring(3600, Outage.REFUSE)
    await system.deliver(*(due(one) for one in people))
    again, _ = await system.send()
    rows = await system.rows("select channel, state from messages where occasion = 'due'")
    assert {(row["channel"], row["state"]) for row in rows} == {("sms", "created"), ("email", "delivered")}
    while system.world.sms.weather.until is not None:
        assert again is not None
        system.clock.jump(again)
        again = await system.sms_job.run()
    assert system.world.sms.weather.reached <= 40 * 8, "a carrier that is down is not stormed"
    while again is not None:
        system.clock.jump(max(again, system.clock.now()))
        again = await system.sms_job.run()
    await system.hear_receipts()
    rows = await system.rows("select state from messages where occasion = 'due' and channel = 'sms'")
    assert [row["state"] for row in rows] == ["delivered"] * 40
    assert all(len(system.sms_to(one)) == 2 for one in people)


async def test_a_channel_that_is_down_is_not_asked_for_every_message(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BATCH", 10)
    people = await system.registered(40)
    system.at("2024-02-01 10:00")
    system.world.sms.weather.bring(60, Outage.REFUSE)
    await system.deliver(*(due(one) for one in people))
    assert await system.sms_job.run() == system.clock.now() + CHANNEL_PAUSE
    assert system.world.sms.weather.reached == 10


async def test_a_slow_carrier_does_not_outlast_the_lease(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not begun in time is given back untried, so that no other process can send it beside us."""
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    await system.deliver(due(one))
    with monkeypatch.context() as slow:
        slow.setattr(delivery, "PATIENCE", 0.0)
        assert await system.sms_job.run() == system.clock.now() + CHANNEL_PAUSE
    row = (await system.messages(one, "due"))["sms"]
    assert (row["state"], row["claims"], row["tries"], row["ambiguous"]) == ("created", 1, 0, 0)
    await system.sms_job.run()
    assert (await system.messages(one, "due"))["sms"]["tries"] == 1
    assert timedelta(seconds=delivery.PATIENCE + smtp.PATIENCE) < LEASE
    assert timedelta(seconds=delivery.PATIENCE + aliyun.PATIENCE) < LEASE


async def test_after_a_lost_answer_the_carrier_is_asked_and_a_mail_is_repeated_under_the_same_reference(
    system: System,
) -> None:
    (one,) = await system.registered()
    system.world.sms.receipts_url = None  # what a receipt can mend is another test's
    system.at("2024-02-01 10:00")
    system.world.sms.weather.bring(10, Outage.LOSE)
    system.world.mailbox.weather.bring(10, Outage.LOSE)
    await system.deliver(due(one))
    await system.send()
    for row in (await system.messages(one, "due")).values():
        assert (row["state"], row["ambiguous"], row["tries"]) == ("created", 1, 1)
    system.clock.jump(system.clock.now() + timedelta(minutes=1))
    await system.send()
    told = await system.messages(one, "due")
    assert told["sms"]["state"] in {"accepted", "delivered"}
    assert told["email"]["state"] == "delivered"
    assert system.sms_to(one)[1:] == [str(told["sms"]["message_id"])], "it was there: no copy"
    assert (told["sms"]["ambiguous"], told["email"]["ambiguous"]) == (0, 1)
    assert system.world.sms.asked == 1
    copies = [
        m["message_id"] for m in system.mails_to(one) if str(told["email"]["message_id"]) in m["message_id"]
    ]
    assert len(copies) == 2
    assert len(set(copies)) == 1


async def test_a_receipt_spares_the_second_copy(system: System) -> None:
    """The answer was lost, the receipt was not."""
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    system.world.sms.weather.bring(1, Outage.LOSE)
    await system.deliver(due(one))
    await system.sms_job.run()
    await system.hear_receipts()
    assert (await system.states(one, "due"))["sms"] == "delivered"
    system.clock.jump(system.clock.now() + timedelta(hours=1))
    await system.sms_job.run()
    assert len(system.sms_to(one)) == 2


async def test_two_processes_share_the_work_and_send_nothing_twice(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BATCH", 8)
    people = await system.registered(60)
    system.at("2024-02-01 10:00")
    await system.deliver(*(due(one) for one in people))
    first = system.sms_job, system.mail_job
    old = system.process
    system.start()
    await asyncio.gather(*(job.run() for job in (*first, system.sms_job, system.mail_job)))
    assert all(system.copies(one, channel) == 2 for one in people for channel in ("sms", "email"))
    await old.plumbing.database.dispose()


async def test_statements_and_domain_come_to_the_same_verdict(system: System) -> None:
    """Every state against every change that a statement makes."""
    (one,) = await system.registered()
    await system.deliver(expired(one))
    message_id = (await system.messages(one, "expired"))["sms"]["message_id"]

    reasons = {State.UNDELIVERED: "refused", State.EXPIRED: "no-receipt"}

    async def put(state: State) -> None:
        await system.write(
            "update messages set state = $2, claims = 1, body = 'x', reason_code = $3, due_at = $4 where message_id = $1",
            message_id,
            str(state),
            reasons.get(state),
            moment("2024-02-01 10:00") if state in (State.CREATED, State.SENDING) else None,
        )

    async def record(to: State) -> None:
        reason = reasons.get(to)
        due_at = moment("2024-03-01 10:00") if to is State.CREATED else None
        async with system.database.unit_of_work() as uow:
            await messages.record(uow, [Result(message_id, 1, one, to, due_at=due_at, reason_code=reason)])

    async def receive(to: State) -> None:
        reason = "refused" if to is State.UNDELIVERED else None
        async with system.database.unit_of_work() as uow:
            await messages.receive(uow, [Outcome(message_id, to, "1", "X", reason)], {one})

    async def claim(_: State) -> None:
        async with system.database.unit_of_work() as uow:
            await messages.claim(
                uow, [Claim(message_id, 1, "", "x", 1, "aliyun")], moment("2024-03-02 10:00")
            )

    async def supersede(_: State) -> None:
        async with system.database.unit_of_work() as uow:
            await messages.supersede(uow, [message_id])

    async def run_out(_: State) -> None:
        async with system.database.unit_of_work() as uow:
            await silence.expire(uow, {message_id: one}, NO_RECEIPT)

    async def come_too_late(_: State) -> None:
        async with system.database.unit_of_work() as uow:
            await silence.expire(uow, {message_id: one}, TOO_LATE)

    changes = [
        (run_out, State.EXPIRED, frozenset({State.ACCEPTED})),
        (come_too_late, State.EXPIRED, frozenset({State.CREATED, State.SENDING})),
        (claim, State.SENDING, sources_of(State.SENDING)),
        (supersede, State.SUPERSEDED, sources_of(State.SUPERSEDED)),
        (receive, State.DELIVERED, sources_of(State.DELIVERED)),
        (receive, State.UNDELIVERED, sources_of(State.UNDELIVERED)),
        *(
            (record, to, frozenset({State.SENDING}))
            for to in NEXT[State.SENDING] - {State.SENDING, State.SUPERSEDED}
        ),
    ]
    for (change, to, sources), state in itertools.product(changes, State):
        await put(state)
        before = (await system.rows("select * from messages where message_id = $1", message_id))[0]
        await change(to)
        after = (await system.rows("select * from messages where message_id = $1", message_id))[0]
        if state in sources:
            assert to in NEXT[state]
            assert after["state"] == to, f"{change.__name__}: {state} -> {to}"
        else:
            assert after == before, f"{change.__name__}: {state} -> {to}"


async def test_receipts_come_twice_late_unasked_and_broken(system: System) -> None:
    people = await system.registered(3)
    system.at("2024-02-01 10:00")
    await system.deliver(*(due(one) for one in people))
    await system.sms_job.run()
    references = [system.sms_to(one)[1] for one in people]
    before = len(await system.told())
    unknown = ["018c0000-0000-7000-8000-000000000000", "no-reference", ""]
    for _ in range(3):
        answer = await system.push(receipts([*references, *references, *unknown]))
        assert answer.json() == {"code": 0, "msg": "接收成功"}
    assert len(await system.told()) == before + 3
    # A contradiction that comes later changes nothing.
    await system.push(receipts(references, success=False, code="MOBILE_NOT_ON_SERVICE"))
    assert [(await system.states(one, "due"))["sms"] for one in people] == ["delivered"] * 3
    everything = await system.everything()
    for broken in (
        b"",
        b"{}",
        b"[1]",
        b"[{}]",
        b"\xff\xfe",
        b"[" * 5000,
        b'[{"success": "yes", "out_id": 1}]',
    ):
        assert (await system.push(broken)).json()["code"] == 0
    assert await system.everything() == everything


async def test_one_odd_entry_of_a_push_costs_nobody_else_their_receipt(system: System) -> None:
    people = await system.registered(3)
    system.at("2024-02-01 10:00")
    await system.deliver(*(due(one) for one in people))
    await system.sms_job.run()
    first, second, third = receipts([system.sms_to(one)[1] for one in people])
    odd = [{}, 7, None, {**second, "success": "true"}]
    await system.push([first, *odd, {**third, "err_code": "DELI\0VERED\ud800", "biz_id": "9\0"}])
    assert [(await system.states(one, "due"))["sms"] for one in people] == [
        "delivered",
        "accepted",
        "delivered",
    ]


async def test_a_receipt_for_what_was_never_sent_is_not_believed(system: System) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 23:00")
    await system.deliver(due(one))
    row = (await system.messages(one, "due"))["sms"]
    await system.push(receipts([str(row["message_id"])]))
    email = (await system.messages(one, "due"))["email"]
    await system.push(receipts([str(email["message_id"])]))
    assert await system.states(one, "due") == {"sms": "created", "email": "created"}


async def test_receipts_at_another_address_are_not_taken(system: System) -> None:
    (one,) = await system.registered(phone=f"{SILENT_PREFIX}0002")
    reference = system.sms_to(one)[0]
    answer = await system.push(receipts([reference]), secret="x" * len(system.secret))
    assert answer.status_code == 404
    assert (await system.states(one, "pre-registered"))["sms"] == "accepted"


async def test_events_name_their_cause_and_have_no_gap(system: System) -> None:
    people = await system.registered(20)
    system.at("2024-02-01 10:00")
    await system.deliver(*(due(one) for one in people))
    await system.settle()
    said = await system.told()  # asserts the numbers
    assert len(said) == 20 * 4
    causes = await system.rows("select distinct causation_id from outbox")
    inbox = {str(row["event_id"]) for row in await system.rows("select event_id from inbox")}
    assert {row["causation_id"] for row in causes} <= inbox
    assert len(causes) == 40


@pytest.mark.parametrize(
    "change",
    [
        "state = 'lost'",
        "occasion = 'forfeited'",
        "channel = 'fax'",
        "state = 'delivered', due_at = now()",
        "state = 'sending', due_at = null",
        "state = 'sending', due_at = now(), body = null",
        "state = 'undelivered', due_at = null",
        "state = 'delivered', due_at = null, reason_code = 'refused'",
    ],
)
async def test_a_message_that_cannot_be_is_not_kept(system: System, change: str) -> None:
    await system.registered()
    with pytest.raises(IntegrityConstraintViolationError):
        await system.write(f"update messages set {change}")


async def test_nobodys_address_or_text_is_in_a_log_line(system: System) -> None:
    with capture_logs() as lines:
        (one,) = await system.registered()
        system.at("2024-02-01 10:00")
        system.world.sms.weather.bring(10, Outage.LOSE)
        system.registry.people[str(one)]["email"] = "full+canary@example.cn"
        await system.write("update recipients set contact_wanted = contact_wanted + 1")
        await system.deliver(due(one))
        await system.settle()
        await system.push(b"[{}]")
    assert {"delivered", "batch", "receipts-malformed"} <= {line["event"] for line in lines}
    written = str(lines)
    for canary in ("13900000000", "p0@example.cn", "canary", "考生", "280元"):
        assert canary not in written

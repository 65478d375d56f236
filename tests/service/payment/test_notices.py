"""What gateways report: every payment into the book once, then the verdict by the gateway's own moment."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from services.chassis.db import Database
from services.payment.domain.order import ORDER_LIFE
from tests.service.payment.system import (
    CLOSES,
    OPENS,
    System,
    approved,
    moment,
    rejected,
    returned,
    withdrawn,
)
from tests.support.counted import counted, counts

LAST = "2024-02-08 23:57:59"


def refused(reason: str) -> float:
    """How many notices were refused for this."""
    return counted("kaowu_payment_callbacks_total", channel="wechat", outcome=reason)


async def captured(system: System, order_no: str) -> tuple[dict[str, str], bytes]:
    """A true notice of a payment, that was kept from arriving."""
    system.pay(order_no)
    system.kept = []
    await system.call_back(order_no)
    ((headers, body),) = system.kept
    system.kept = None
    return headers, body


async def test_a_hundred_notices_at_once_are_one_payment_and_all_acknowledged(system: System) -> None:
    candidate = await system.owing()
    headers, body = await captured(system, await system.ordered(candidate))
    answers = await asyncio.gather(*(system.notify(headers, body) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {204}
    assert await system.words(candidate) == ["due", "paid"]
    assert await system.ledger(candidate) == [("received", 20_000, None), ("fee", 20_000, None)]


async def test_a_notice_is_acknowledged_only_once_it_is_committed(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = await system.owing()
    headers, body = await captured(system, await system.ordered(candidate))
    async with system.other_session() as uow:
        await uow.sql("select 1 from obligations where registration_id = $1 for update", candidate)
        waiting = asyncio.create_task(system.notify(headers, body))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    assert (await waiting).status_code == 204
    assert await system.status(candidate) == "paid"


async def test_without_a_database_a_notice_is_not_acknowledged_and_comes_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = await system.owing()
    headers, body = await captured(system, await system.ordered(candidate))
    with monkeypatch.context() as cut:
        cut.setattr(Database, "_connections", _away)
        assert (await system.notify(headers, body)).status_code == 503
    assert (await system.notify(headers, body)).status_code == 204
    assert await system.words(candidate) == ["due", "paid"]


async def _away(_: Database) -> None:
    raise OSError("the database is away")


@pytest.mark.parametrize(
    ("part", "status", "reason"),
    [
        ("wechatpay-signature", 401, "signature"),
        ("wechatpay-timestamp", 401, "signature"),
        ("wechatpay-nonce", 401, "signature"),
        ("wechatpay-serial", 401, "unknown-serial"),
        ("body", 401, "signature"),
    ],
)
async def test_an_altered_notice_changes_nothing_and_is_refused(
    system: System, part: str, status: int, reason: str
) -> None:
    candidate = await system.owing()
    headers, body = await captured(system, await system.ordered(candidate))
    before, counted = await system.everything(), refused(reason)
    if part == "body":
        body = body.replace(b"ciphertext", b"ciphertexT")
    else:
        first = "1" if headers[part][0] != "1" else "2"
        headers = {**headers, part: first + headers[part][1:]}
    answer = await system.notify(headers, body)
    assert answer.status_code == status
    assert answer.json() == {"code": "FAIL", "message": reason}
    assert await system.everything() == before
    assert refused(reason) == counted + 1


async def test_nonsense_and_silence_on_the_notify_route_change_nothing(system: System) -> None:
    before = await system.everything()
    for headers, body in [({}, b""), ({}, b"{}"), ({"Wechatpay-Serial": "x"}, b"\xff\xfe")]:
        assert (await system.notify(headers, body)).status_code == 400
    assert (await system.notify({}, b"x" * 10_000_000)).status_code == 413
    assert await system.everything() == before


async def test_a_replayed_notice_is_stale_after_five_minutes_and_the_query_still_tells(
    system: System,
) -> None:
    candidate = await system.owing()
    headers, body = await captured(system, await system.ordered(candidate))
    counted = refused("stale")
    system.clock.jump(moment(OPENS) + timedelta(minutes=5, seconds=1))
    assert (await system.notify(headers, body)).status_code == 401
    assert refused("stale") == counted + 1
    assert await system.status(candidate) == "awaiting"
    system.clock.jump(moment(OPENS) + timedelta(hours=2))
    await system.settle()
    assert await system.status(candidate) == "paid"


async def test_a_true_notice_about_an_order_that_is_not_ours_is_refused(system: System) -> None:
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    headers, body = await captured(system, order_no)
    # The same merchant, another database: a backup that is older than the order.
    await system.write("delete from orders where order_no = $1", order_no)
    answer = await system.notify(headers, body)
    assert (answer.status_code, answer.json()) == (400, {"code": "FAIL", "message": "unknown-order"})
    assert not await system.rows("select * from ledger")


async def test_the_wrong_amount_goes_back_and_the_fee_is_still_owed(system: System) -> None:
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    known = system.world.wechat.book.find(order_no)
    assert known is not None
    known.amount_fen = 1
    await system.paid_and_heard(order_no)
    assert system.heard == [204]
    assert await system.status(candidate) == "awaiting"
    assert await system.ledger(candidate) == [("received", 1, None), ("refund-due", 1, "wrong-amount")]
    assert (await system.order_row(order_no))["status"] == "paid"
    # It can still be paid, with another order.
    await system.paid_and_heard(await system.ordered(candidate))
    assert await system.status(candidate) == "paid"
    money = await system.office("money")
    assert (money["received"], money["paid"], money["due"], money["held"]) == (20_001, 20_000, 1, 0)
    assert [(due["cause"], due["amount_fen"]) for due in money["refunds_due"]] == [("wrong-amount", 1)]


@pytest.mark.parametrize("heard", ["told", "asked", "ordering"])
async def test_a_code_of_before_the_fee_changed_pays_no_other_fee(system: System, heard: str) -> None:
    """Sent back, amended and approved again while the gateway was away: the first code could still be opened."""
    candidate = await system.owing()
    first = await system.ordered(candidate)
    system.gateway_down(60)
    await system.deliver(returned(candidate))
    await system.settle()
    await system.deliver(approved(candidate, subjects=(1, 2)))
    system.clock.jump(system.clock.now() + timedelta(seconds=61))
    system.pay(first)
    if heard == "told":
        await system.call_back(first)
    elif heard == "asked":
        system.clock.jump(system.clock.now() + ORDER_LIFE)
        await system.settle()
    else:
        # Nobody is told that they have paid whose money goes back.
        answer = await system.order(candidate)
        assert (answer.status_code, answer.json().get("amount_fen")) == (201, 10_000), answer.text
    assert await system.status(candidate) == "awaiting"
    assert await system.ledger(candidate) == [
        ("received", 20_000, None),
        ("refund-due", 20_000, "wrong-amount"),
    ]
    await system.paid_and_heard(await system.ordered(candidate))
    assert await system.words(candidate) == ["due", "due", "paid"]
    assert (await system.office("reconciliation"))["balanced"]


async def test_a_second_payment_counts_once_and_goes_back(system: System) -> None:
    """Row 48 of the fault matrix."""
    candidate = await system.owing()
    first = await system.ordered(candidate)
    # The gateway gave a second code before the first was closed: two tabs.
    await system.write(
        "with said as (insert into answers (order_no, kind, state, at, digest, raw, signature) "
        "values ($1, 'query', 'closed', now(), '', '', '{}') returning answer_id) "
        "update orders set status = 'closed', answer_id = said.answer_id from said where order_no = $1",
        first,
    )
    second = await system.ordered(candidate)
    await system.paid_and_heard(second)
    with counts(1, "kaowu_payment_refunds_due_total", cause="paid-twice"):
        await system.paid_and_heard(first)
    assert await system.words(candidate) == ["due", "paid"]
    assert await system.ledger(candidate) == [
        ("received", 20_000, None),
        ("fee", 20_000, None),
        ("received", 20_000, None),
        ("refund-due", 20_000, "paid-twice"),
    ]
    money = await system.office("money")
    assert (money["received"], money["paid"], money["due"]) == (40_000, 20_000, 20_000)


@pytest.mark.parametrize("late", [timedelta(), timedelta(hours=25)], ids=["at once", "25 hours later"])
async def test_paid_in_time_and_heard_of_after_forfeiture_is_reinstated_then_paid(
    system: System, late: timedelta
) -> None:
    """Row 40 of the fault matrix. WeChat Pay tells for the last time 24 hours and four minutes after the payment."""
    candidate = await system.owing()
    system.at(LAST)
    order_no = await system.ordered(candidate)
    # The order was forgotten here, so nobody asked about it at the close.
    await system.write("update orders set status = 'failed', refusal = 'TEST' where order_no = $1", order_no)
    system.at("2024-02-08 23:59:59.999999")
    system.pay(order_no)
    system.at(CLOSES)
    await system.close()
    assert await system.status(candidate) == "expired"

    system.clock.jump(moment(CLOSES) + late)
    with (
        counts(1, "kaowu_payment_reinstated_total"),
        counts(1, "kaowu_payment_paid_total", heard_by="notice"),
    ):
        await system.call_back(order_no)
    assert await system.words(candidate) == ["due", "expired", "reinstated", "paid"]
    reinstated, paid = (await system.said(candidate))[-2:]
    assert isinstance(reinstated, payment.Reinstated)
    assert (reinstated.cause, reinstated.closes_at) == ("paid-in-time", moment(CLOSES))
    assert isinstance(paid, payment.Paid)
    assert paid.paid_at == moment("2024-02-08 23:59:59")
    now = await system.obligation(candidate)
    assert (now["status"], now["proof_id"], now["expired_at"]) == ("paid", None, None)


async def test_paid_at_the_close_stays_forfeited_and_goes_back(system: System) -> None:
    """Row 41 of the fault matrix."""
    candidate = await system.owing()
    system.at(LAST)
    order_no = await system.ordered(candidate)
    await system.write("update orders set status = 'failed', refusal = 'TEST' where order_no = $1", order_no)
    system.at(CLOSES)
    await system.close()
    known = system.world.wechat.book.find(order_no)
    assert known is not None
    known.expires_at = moment(CLOSES) + timedelta(minutes=1)  # a gateway that does not end orders in time
    system.pay(order_no)
    with counts(1, "kaowu_payment_refunds_due_total", cause="paid-late"):
        await system.call_back(order_no)
    assert await system.words(candidate) == ["due", "expired"]
    assert await system.ledger(candidate) == [
        ("received", 20_000, None),
        ("refund-due", 20_000, "paid-late"),
    ]


async def test_a_lost_notice_is_found_when_the_order_ends(system: System) -> None:
    """Row 44 of the fault matrix."""
    candidate, other = await system.approved(2)
    lost, unpaid = await system.ordered(candidate), await system.ordered(other)
    system.pay(lost)
    assert await system.settle() == moment(OPENS) + timedelta(hours=2)
    system.clock.jump(moment(OPENS) + timedelta(hours=2) - timedelta(microseconds=1))
    await system.settle()
    assert await system.status(candidate) == "awaiting"
    system.clock.jump(moment(OPENS) + timedelta(hours=2))
    with counts(1, "kaowu_payment_paid_total", heard_by="query"):
        assert await system.settle() is None
    assert await system.status(candidate) == "paid"
    assert (await system.order_row(unpaid))["status"] == "closed"
    assert await system.status(other) == "awaiting"
    assert (await system.order(other)).status_code == 201


async def test_an_outage_at_an_orders_end_is_asked_about_again_later(system: System) -> None:
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    system.pay(order_no)
    end = moment(OPENS) + timedelta(hours=2)
    system.clock.jump(end)
    system.gateway_down(30 * 60)
    assert await system.settle() == end + timedelta(minutes=5)
    system.clock.jump(end + timedelta(minutes=5))
    assert await system.settle() == end + timedelta(minutes=65)
    system.clock.jump(end + timedelta(minutes=65))
    assert await system.settle() is None
    assert await system.status(candidate) == "paid"


async def test_a_rejection_ends_what_is_owed_and_closes_the_open_order(system: System) -> None:
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    await system.deliver(rejected(candidate))
    assert await system.status(candidate) == "cancelled"
    assert system.settle_job.awake.is_set()
    await system.settle()
    assert (await system.order_row(order_no))["status"] == "closed"
    assert (await system.order(candidate)).json()["code"] == "not-approved"
    assert await system.words(candidate) == ["due"]


async def test_an_open_order_that_turns_out_paid_after_a_rejection_goes_back(system: System) -> None:
    candidate = await system.owing()
    system.pay(await system.ordered(candidate))
    await system.deliver(rejected(candidate))
    await system.settle()
    assert await system.status(candidate) == "cancelled"
    assert await system.ledger(candidate) == [
        ("received", 20_000, None),
        ("refund-due", 20_000, "rejected"),
    ]


async def test_rejected_after_paying_gets_the_money_back(system: System) -> None:
    candidate = await system.owing()
    await system.paid_and_heard(await system.ordered(candidate))
    await system.deliver(rejected(candidate))
    assert await system.status(candidate) == "cancelled"
    received, fee, *back = await system.ledger(candidate)
    assert [received, fee] == [("received", 20_000, None), ("fee", 20_000, None)]
    assert sorted(back, key=str) == [("fee-taken-back", 20_000, None), ("refund-due", 20_000, "rejected")]
    money = await system.office("money")
    assert (money["received"], money["paid"], money["due"]) == (20_000, 0, 20_000)


async def test_sent_back_owes_nothing_until_approved_again(system: System) -> None:
    candidate = await system.owing()
    await system.deliver(returned(candidate))
    assert await system.status(candidate) == "cancelled"
    assert (await system.order(candidate)).json()["code"] == "not-approved"
    await system.deliver(approved(candidate, subjects=(1, 2)))
    assert await system.words(candidate) == ["due", "due"]
    now = await system.obligation(candidate)
    assert (now["status"], now["amount_fen"], now["cancelled_for"]) == ("awaiting", 10_000, None)


@pytest.mark.parametrize("event", [returned, withdrawn])
async def test_losing_the_approval_after_paying_is_for_people_to_sort_out(
    system: System, event: object
) -> None:
    candidate = await system.owing()
    await system.paid_and_heard(await system.ordered(candidate))
    await system.deliver(event(candidate))  # type: ignore[operator]  # two functions of one shape
    assert await system.parked() == ["failed: AlreadyPaid"]
    assert await system.status(candidate) == "paid"


async def test_who_never_owed_is_untouched_by_rejection_and_withdrawal(system: System) -> None:
    before = await system.everything()
    await system.deliver(rejected(uuid7()), returned(uuid7()), withdrawn(uuid7()))
    assert await system.everything() == before


async def test_the_book_is_only_ever_added_to(system: System) -> None:
    candidate = await system.owing()
    await system.paid_and_heard(await system.ordered(candidate))
    for table in ("ledger", "answers"):
        for statement in (f"delete from {table}", f"update {table} set order_no = 'x'"):
            with pytest.raises(Exception, match="only ever added to"):
                await system.write(statement)


async def test_what_the_gateway_said_is_kept_signed_and_encrypted(system: System) -> None:
    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    await system.paid_and_heard(order_no)
    (answer,) = await system.rows("select * from answers")
    assert b"ciphertext" not in answer["raw"]
    raw = system.process.plumbing.vault.decrypt(answer["raw"], row=order_no)
    assert b"ciphertext" in raw
    assert {"wechatpay-signature", "wechatpay-serial", "wechatpay-nonce", "wechatpay-timestamp"} <= set(
        answer["signature"]
    )

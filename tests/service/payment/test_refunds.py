"""Money that has to go back: once, in full, on the gateway's own word, and told once. Row 49 of the fault matrix."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts import payment
from services.payment.domain.book import refund_number
from tests.service.payment.system import System, moment, rejected
from tests.support.counted import counts

REFUNDS = "kaowu_payment_refunds_total"


async def paid_and_rejected(system: System) -> UUID:
    """Paid in time, then rejected: the whole fee is due back."""
    candidate = await system.owing()
    await system.paid_and_heard(await system.ordered(candidate))
    await system.deliver(rejected(candidate))
    return candidate


async def at_the_gateway(system: System) -> dict[str, int]:
    return system.world.wechat.refunds.totals(system.clock.now())


async def refund_row(system: System) -> dict[str, object]:
    (row,) = await system.rows("select * from refunds")
    return row


async def forget(system: System, kind: str) -> None:
    """As if the book had never had these postings."""
    async with system.database.unit_of_work() as uow:
        for statement in (
            "alter table ledger disable trigger keep_ledger",
            f"delete from ledger where kind = '{kind}'",
            "alter table ledger enable trigger keep_ledger",
        ):
            await uow.sql(statement)


async def test_what_is_due_back_goes_back_once_and_is_told_once(system: System) -> None:
    candidate = await paid_and_rejected(system)
    before = await system.office("money")
    assert (before["received"], before["paid"], before["due"], before["refunded"]) == (20_000, 0, 20_000, 0)
    for _ in range(3):
        assert await system.refund() is None
    assert await at_the_gateway(system) == {"refunds": 1, "done": 1, "done_fen": 20_000}
    after = await system.office("money")
    assert (after["received"], after["paid"], after["due"], after["refunded"]) == (20_000, 0, 0, 20_000)
    assert after["refunds_due"] == []
    assert await system.words(candidate) == ["due", "paid", "refunded"]
    (told,) = [event for event in await system.said(candidate) if isinstance(event, payment.Refunded)]
    assert (told.cause, told.amount_fen) == ("rejected", 20_000)
    kinds = [kind for kind, _, _ in await system.ledger(candidate)]
    assert sorted(kinds) == ["fee", "fee-taken-back", "received", "refund-due", "refunded"]


async def test_the_candidate_has_a_receipt_for_each_payment_and_sees_what_became_of_it(
    system: System,
) -> None:
    async def receipts() -> list[dict[str, Any]]:
        answer = await system.call("GET", f"/registrations/{candidate}/payment", f"candidate:{candidate}")
        found: list[dict[str, Any]] = answer.json()["receipts"]
        return found

    candidate = await system.owing()
    order_no = await system.ordered(candidate)
    assert await receipts() == []
    paid_at = system.clock.now()
    await system.paid_and_heard(order_no)
    (entry,) = await system.rows("select transaction_id from ledger where kind = 'received'")
    (receipt,) = await receipts()
    assert receipt == {
        "order_no": order_no,
        "channel": "wechat",
        "transaction_id": entry["transaction_id"],
        "amount_fen": 20_000,
        "currency": "CNY",
        "paid_at": f"{paid_at:%Y-%m-%dT%H:%M:%SZ}",
        "became": "fee",
        "refund_cause": None,
        "refund_no": None,
        "refund_confirmed_at": None,
    }
    await system.deliver(rejected(candidate))
    (receipt,) = await receipts()
    assert (receipt["became"], receipt["refund_cause"]) == ("refund-due", "rejected")
    assert receipt["refund_confirmed_at"] is None
    await system.refund()
    (receipt,) = await receipts()
    number = refund_number("wechat", entry["transaction_id"])
    assert (receipt["became"], receipt["refund_no"]) == ("refunded", number)
    assert receipt["refund_confirmed_at"] is not None


async def test_the_gateways_word_is_kept_and_without_it_nothing_is_done(system: System) -> None:
    await paid_and_rejected(system)
    await system.refund()
    (entry,) = await system.rows("select answer_id, debit, credit from ledger where kind = 'refunded'")
    assert (entry["debit"], entry["credit"]) == ("refunds-due", "gateway:wechat")
    (answer,) = await system.rows("select kind, state from answers where answer_id = $1", entry["answer_id"])
    assert (answer["kind"], answer["state"]) == ("refund", "done")
    with pytest.raises(Exception, match="refunded_by_the_gateway"):
        await system.write(
            "insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, "
            "paid_at, recorded_at) select 'refunded', registration_id, order_no, channel, 'another', amount_fen, "
            "currency, paid_at, recorded_at from ledger where kind = 'received'"
        )


async def test_a_gateway_that_is_away_is_asked_again_under_the_same_number(system: System) -> None:
    candidate = await paid_and_rejected(system)
    system.gateway_down(3600)
    at = system.clock.now()
    with counts(1, REFUNDS, channel="wechat", state="due"):
        assert await system.refund() == at + timedelta(minutes=1)
    row = await refund_row(system)
    assert (row["status"], row["attempts"], row["decided_at"]) == ("due", 1, None)
    assert (await system.office("money"))["due"] == 20_000
    assert await system.words(candidate) == ["due", "paid"]
    system.clock.jump(at + timedelta(hours=1))
    with counts(1, REFUNDS, channel="wechat", state="done"):
        assert await system.refund() is None
    assert await at_the_gateway(system) == {"refunds": 1, "done": 1, "done_fen": 20_000}
    assert (await refund_row(system))["refund_no"] == row["refund_no"]


async def test_an_answer_that_was_lost_pays_nobody_twice(system: System) -> None:
    from deploy.simulators.outage import Outage  # noqa: PLC0415

    candidate = await paid_and_rejected(system)
    system.gateway_down(30, Outage.LOSE)
    await system.refund()
    assert (await at_the_gateway(system))["done"] == 1, "the gateway did it"
    assert await system.words(candidate) == ["due", "paid"], "and nobody here knows"
    system.clock.jump(system.clock.now() + timedelta(minutes=1))
    await system.refund()
    assert await at_the_gateway(system) == {"refunds": 1, "done": 1, "done_fen": 20_000}
    assert await system.words(candidate) == ["due", "paid", "refunded"]


async def test_a_refund_under_way_is_not_done_before_the_gateway_says_so(system: System) -> None:
    candidate = await paid_and_rejected(system)
    system.world.wechat.refunds.takes = timedelta(hours=2)
    with counts(1, REFUNDS, channel="wechat", state="asked"):
        await system.refund()
    assert (await refund_row(system))["status"] == "asked"
    assert await system.words(candidate) == ["due", "paid"]
    system.clock.jump(system.clock.now() + timedelta(hours=2))
    await system.refund()
    assert (await refund_row(system))["status"] == "done"
    assert await system.words(candidate) == ["due", "paid", "refunded"]


async def test_when_the_gateway_tells_of_a_refund_it_is_asked_about_at_once(system: System) -> None:
    candidate = await paid_and_rejected(system)
    system.world.wechat.refunds.takes = timedelta(hours=2)
    asked_at = system.clock.now()
    upcoming = await system.refund()
    for minutes in (100, 110):
        system.clock.jump(asked_at + timedelta(minutes=minutes))
        upcoming = await system.refund()
    done_at = asked_at + timedelta(hours=2)
    assert upcoming == done_at + timedelta(minutes=20)
    system.refund_job.awake.clear()
    system.clock.jump(done_at)
    with counts(1, "kaowu_payment_callbacks_total", channel="wechat", outcome="refund-news"):
        await system.gateway_at_rest()
    assert system.refund_job.awake.is_set()
    assert await system.refund() is None
    assert await system.words(candidate) == ["due", "paid", "refunded"]
    # What is told of a refund that is done, or of one that is not ours, changes nothing.
    before = await system.everything()
    await system.world.wechat._tell_of_refund(
        system.world.wechat.refunds.all()[0], system.settings.wechat_notify_url
    )
    assert await system.everything() == before


async def test_a_refund_that_the_gateway_refuses_stays_due_and_is_listed_with_its_word(
    system: System,
) -> None:
    candidate = await paid_and_rejected(system)
    system.world.wechat.refunds.refusing = ["INVALID_REQUEST"]
    at = system.clock.now()
    with counts(1, REFUNDS, channel="wechat", state="refused"):
        assert await system.refund() == at + timedelta(days=1)
    money = await system.office("money")
    assert money["due"] == 20_000
    (listed,) = money["refunds_due"]
    assert (listed["state"], listed["gateway_code"], listed["cause"]) == (
        "refused",
        "INVALID_REQUEST",
        "rejected",
    )
    assert await system.words(candidate) == ["due", "paid"]
    # Somebody has put it right at the gateway: the next day's question finds it.
    system.clock.jump(at + timedelta(days=1))
    await system.refund()
    assert await system.words(candidate) == ["due", "paid", "refunded"]


async def test_an_abnormal_refund_is_never_called_done(system: System) -> None:
    candidate = await paid_and_rejected(system)
    system.world.wechat.refunds.abnormal = 1
    await system.refund()
    (listed,) = (await system.office("money"))["refunds_due"]
    assert (listed["state"], listed["gateway_code"]) == ("refused", "ABNORMAL")
    assert await system.words(candidate) == ["due", "paid"]


async def test_late_twice_and_wrong_payments_go_back_each_once(system: System) -> None:
    late = await system.owing()
    order_no = await system.ordered(late)
    known = system.world.wechat.book.find(order_no)
    assert known is not None
    system.at("2024-02-09 00:00")
    await system.close()
    known.expires_at = moment("2024-02-09 00:00") + timedelta(
        minutes=1
    )  # a gateway that does not end orders in time
    known.state = type(known.state)("NOTPAY")
    system.pay(order_no)
    await system.call_back(order_no)
    await system.refund()
    assert await system.words(late) == ["due", "expired", "refunded"]
    assert (await system.office("money"))["refunded"] == 20_000


async def test_two_processes_and_a_notice_at_once_tell_once(system: System) -> None:
    import asyncio  # noqa: PLC0415

    candidate = await paid_and_rejected(system)
    await asyncio.gather(*(system.refund() for _ in range(4)), return_exceptions=True)
    await system.refund()
    assert await system.words(candidate) == ["due", "paid", "refunded"]
    assert (await at_the_gateway(system))["refunds"] == 1


async def test_what_was_told_before_a_restore_is_not_told_again(system: System) -> None:
    candidate = await paid_and_rejected(system)
    await system.refund()
    # The restored book has forgotten that the money went back; what was said has been put back from the topic.
    await forget(system, "refunded")
    await system.write("update refunds set status = 'due', decided_at = null")
    await system.refund()
    assert (await system.office("money"))["refunded"] == 20_000
    assert await system.words(candidate) == ["due", "paid", "refunded"]
    assert await at_the_gateway(system) == {"refunds": 1, "done": 1, "done_fen": 20_000}


async def test_the_book_of_double_entry_balances_in_every_posting(system: System) -> None:
    await paid_and_rejected(system)
    await system.refund()
    other = await system.owing()
    await system.paid_and_heard(await system.ordered(other))
    rows = await system.rows(
        "select account, sum(fen)::bigint as fen from (select debit as account, amount_fen as fen from ledger "
        "union all select credit, -amount_fen from ledger) s group by account order by account"
    )
    balances = {row["account"]: row["fen"] for row in rows}
    assert balances == {"fees": -20_000, "gateway:wechat": 20_000, "refunds-due": 0, "unjudged": 0}
    assert sum(balances.values()) == 0


async def test_fees_that_the_version_before_did_not_post_are_completed(system: System) -> None:
    """Version n-1 writes what came in and nothing else."""
    candidate = await system.owing()
    await system.paid_and_heard(await system.ordered(candidate))
    await forget(system, "fee")
    assert (await system.office("money"))["held"] == 20_000
    for _ in range(2):
        await system.turns.post_fees()
    money = await system.office("money")
    assert (money["paid"], money["held"]) == (20_000, 0)


def test_a_refunds_number_follows_from_its_payment_alone() -> None:
    number = refund_number("wechat", "4200202401300000000000000001")
    assert number == refund_number("wechat", "4200202401300000000000000001")
    assert number != refund_number("alipay", "4200202401300000000000000001")
    assert 6 <= len(number) <= 32
    assert number.isalnum()

"""Every way in which bill, book and registration may differ is a break, which a person closes with a reason."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from contracts import payment
from tests.service.payment.system import CYCLE, System
from tests.service.payment.with_bills import (
    DAY,
    NEXT,
    PAID_AT,
    breaks,
    day_of,
    gateway,
    kinds,
    paid,
    paid_back,
    paid_on,
)


async def test_a_payment_whose_notice_got_lost_is_found_by_the_bill_and_settled(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    candidate, order_no = await paid(office, channel, heard=False)
    office.at(NEXT)
    assert await office.words(candidate) == ["due"]
    await office.reconcile()
    (found,) = await breaks(office)
    assert (found["kind"], found["order_no"], found["billed_fen"], found["booked_fen"]) == (
        "not-in-ledger", order_no, 20_000, None,
    )  # fmt: skip
    assert found["in_ledger_now"]
    assert (found["state"], found["state_now"]) == ("awaiting", "paid")
    assert await office.words(candidate) == ["due", "paid"]
    assert (await office.office("reconciliation"))["balanced"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("missing", "not-in-bill"),
        ("extra", "unknown-order"),
        ("amount", "other-amount"),
        ("twice", "duplicate-line"),
        ("order", "other-order"),
        ("day", "other-day"),
        ("refund-order", "other-order"),
        ("refund-missing", "refund-not-in-bill"),
        ("refund-extra", "refund-not-in-ledger"),
        ("refund-amount", "refund-other-amount"),
    ],
)
async def test_every_way_in_which_a_bill_may_be_wrong_is_a_break(
    office: System, channel: str, fault: str, kind: str
) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    if fault.startswith("refund"):
        await paid_back(office, channel)
    gateway(office, channel).bill_faults = [fault]
    if fault in ("missing", "order", "day"):
        await paid(office, channel)
    office.at(NEXT)
    await office.reconcile()
    (found,) = await breaks(office)
    assert (found["kind"], found["channel"], found["day"]) == (kind, channel, DAY)
    events = [event for event in await office.said(CYCLE) if isinstance(event, payment.BreakFound)]
    assert [(event.kind, str(event.break_id)) for event in events] == [(kind, found["break_id"])]
    # A day later it is still the one break, and nothing new is said of it.
    office.at("2024-02-01 10:30")
    await office.reconcile()
    assert len(await breaks(office)) == 1


async def test_paid_in_the_bill_and_in_the_book_while_the_registration_is_not_paid_is_a_break(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    candidate, _ = await paid(office, channel)
    await office.write(
        "update obligations set status = 'awaiting', paid_at = null where registration_id = $1", candidate
    )
    office.at(NEXT)
    await office.reconcile()
    (found,) = await breaks(office)
    assert (found["kind"], found["state"]) == ("not-paid-here", "awaiting")
    report = await office.office("reconciliation")
    assert not report["balanced"], "the fee stands in the book, and nobody owed it"
    assert not report["totals"][channel]["balanced"]


async def test_a_refund_under_way_is_explained_and_a_break_if_it_is_not_done_in_a_week(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    gateway(office, channel).refunds.takes = timedelta(days=30)
    await paid_back(office, channel)
    office.at(NEXT)
    await office.reconcile()
    assert [one["reason"] for one in (await day_of(office, channel))["explanations"]] == [
        "goes-back", "refund-under-way",
    ]  # fmt: skip
    for day in range(1, 9):
        assert await breaks(office) == []
        office.at(f"2024-02-{day:02d} 10:30")
        await paid_on(office, channel, f"2024-02-{day:02d} 10:31")
        await office.reconcile()
    assert await kinds(office) == ["refund-not-in-ledger"]


async def closing(system: System, break_id: object, role: str = "office") -> int:
    answer = await system.call(
        "POST", f"/office/breaks/{break_id}/close", role,
        {"reason_code": "gateway-corrected", "reason": "渠道客服已更正"},
    )  # fmt: skip
    return answer.status_code


async def test_a_break_is_closed_once_by_a_person_of_the_office_with_a_reason(office: System) -> None:
    office.at(PAID_AT)
    await paid(office, "wechat")
    office.world.wechat.bill_faults = ["amount"]
    office.at(NEXT)
    await office.reconcile()
    (found,) = await breaks(office)
    assert await closing(office, found["break_id"], "ops") == 403
    assert await closing(office, uuid4()) == 404
    answer = await office.call("POST", f"/office/breaks/{found['break_id']}/close", "office", {"reason": ""})
    assert answer.status_code == 422
    assert await closing(office, found["break_id"]) == 200
    assert await closing(office, found["break_id"]) == 409
    assert await breaks(office) == []
    (closed,) = (await office.office("reconciliation?closed=true"))["breaks"]
    assert closed["closed"]["reason_code"] == "gateway-corrected"
    (row,) = await office.rows("select * from audit where action = 'break-closed'")
    assert row["subject"] == found["break_id"]
    events = [event for event in await office.said(CYCLE) if isinstance(event, payment.BreakClosed)]
    assert [str(event.break_id) for event in events] == [found["break_id"]]
    stored = await office.rows("select reason from break_closings")
    assert "渠道客服".encode() not in stored[0]["reason"]
    with pytest.raises(Exception, match="only ever added to"):
        await office.write("delete from breaks")


async def test_what_is_found_again_in_a_changed_bill_after_it_was_closed_is_a_new_break(
    office: System,
) -> None:
    office.at(PAID_AT)
    await paid(office, "wechat")
    office.world.wechat.bill_faults = ["amount"]
    office.at(NEXT)
    await office.reconcile()
    (first,) = await breaks(office)
    assert await closing(office, first["break_id"]) == 200
    office.world.wechat.bill_faults = ["amount", "extra"]
    await office.call("POST", f"/office/reconciliation/wechat/{DAY}/again", "office")
    await office.reconcile()
    assert await kinds(office) == ["other-amount", "unknown-order"]
    assert first["break_id"] not in [one["break_id"] for one in await breaks(office)]

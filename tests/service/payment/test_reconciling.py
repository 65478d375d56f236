"""Each day's bill of each gateway against our book: matched, explained, or on a list that a person closes."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts import payment
from deploy.simulators.gateway import Gateway
from deploy.simulators.outage import Outage
from services.chassis.db import UnitOfWork
from services.payment.handlers.reconciling import Bills
from services.payment.ports import Bill, BillLine
from services.payment.repository import bills
from tests.service.payment.system import CYCLE, System, moment, rejected

PAID_AT = "2024-01-30 12:00"
NEXT = "2024-01-31 10:30"
DAY = "2024-01-30"


@pytest.fixture(params=["wechat", "alipay"])
async def channel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def office(system: System) -> System:
    """An office with accounts at both gateways."""
    await system.with_alipay()
    return system


def gateway(system: System, channel: str) -> Gateway:
    return system.world.wechat if channel == "wechat" else system.world.alipay


async def paid(system: System, channel: str, *, heard: bool = True) -> tuple[UUID, str]:
    candidate = await system.owing()
    order_no = await system.ordered(candidate, channel)
    system.pay(order_no)
    if heard:
        await system.call_back(order_no)
    return candidate, order_no


async def paid_back(system: System, channel: str) -> UUID:
    candidate, _ = await paid(system, channel)
    await system.deliver(rejected(candidate))
    await system.refund()
    return candidate


async def breaks(system: System) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await system.office("reconciliation"))["breaks"]
    return found


async def kinds(system: System) -> list[str]:
    return sorted(one["kind"] for one in await breaks(system))


async def day_of(system: System, channel: str, day: str = DAY) -> dict[str, Any]:
    days = (await system.office("reconciliation"))["days"]
    (found,) = [one for one in days if (one["channel"], one["day"]) == (channel, day)]
    return dict(found)


async def said(system: System) -> list[payment.Reconciled]:
    return [event for event in await system.said(CYCLE) if isinstance(event, payment.Reconciled)]


async def test_a_day_on_which_bill_and_book_agree_has_no_breaks_and_balances(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    for _ in range(3):
        await paid(office, channel)
    await paid_back(office, channel)
    office.at(NEXT)
    await office.reconcile()
    day = await day_of(office, channel)
    assert (day["state"], day["lines"], day["matched"], day["explained"], day["breaks"]) == (
        "reconciled", 5, 4, 1, 0,
    )  # fmt: skip
    assert (day["billed"], day["billed_back"], day["received"], day["refunded"], day["paid"]) == (
        80_000, 20_000, 80_000, 20_000, 60_000,
    )  # fmt: skip
    assert [one["reason"] for one in day["explanations"]] == ["goes-back"]
    report = await office.office("reconciliation")
    assert report["balanced"]
    assert report["breaks"] == []
    (event,) = [one for one in await said(office) if str(one.date) == DAY and one.channel == channel]
    assert (event.counts.lines, event.counts.matched, event.breaks) == (5, 4, 0)
    assert (event.sums_fen.billed, event.sums_fen.booked) == (80_000, 80_000)


async def test_a_bill_is_fetched_at_half_past_ten_and_not_a_microsecond_before(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    office.clock.jump(moment(NEXT) - timedelta(microseconds=1))
    assert await office.reconcile() == moment(NEXT)
    assert (await day_of(office, channel))["state"] == "not-over"
    office.at(NEXT)
    await office.reconcile()
    assert (await day_of(office, channel))["state"] == "reconciled"


async def test_running_a_day_again_changes_nothing(office: System, channel: str) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    gateway(office, channel).bill_faults = ["extra"]
    office.at(NEXT)
    await office.reconcile()
    before = await office.everything()
    for _ in range(2):
        answer = await office.call("POST", f"/office/reconciliation/{channel}/{DAY}/again", "office")
        assert answer.status_code == 202, answer.text
        await office.reconcile()
    assert await office.everything() == before


async def test_a_changed_bill_is_compared_anew_and_said_so_and_what_stands_stays_one_break(
    office: System, channel: str
) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    gateway(office, channel).bill_faults = ["extra"]
    office.at(NEXT)
    await office.reconcile()
    gateway(office, channel).bill_faults = ["extra", "amount"]
    await office.call("POST", f"/office/reconciliation/{channel}/{DAY}/again", "office")
    await office.reconcile()
    day = await day_of(office, channel)
    assert day["bill_changed"]
    assert await kinds(office) == ["other-amount", "unknown-order"]
    assert [one.breaks for one in await said(office) if one.channel == channel and one.counts.lines] == [1, 2]
    sequences = [row["sequence"] for row in await office.rows(
        "select sequence from outbox where key = $1 order by id", CYCLE
    )]  # fmt: skip
    assert sequences == list(range(1, len(sequences) + 1))


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
    if fault == "missing":
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


async def paid_on(system: System, channel: str, at: str) -> None:
    """So that the gateway has a bill of this day."""
    system.at(at)
    await paid(system, channel)


async def test_paid_at_the_end_of_a_day_and_booked_on_the_next_is_explained(
    office: System, channel: str
) -> None:
    office.at("2024-01-30 23:58")
    await paid(office, channel)
    gateway(office, channel).bill_faults = ["late"]
    await paid_on(office, channel, "2024-01-31 09:00")
    office.at("2024-02-01 10:30")
    await office.reconcile()
    assert await breaks(office) == []
    day = await day_of(office, channel, "2024-01-31")
    assert (day["lines"], day["matched"]) == (2, 1)
    assert [one["reason"] for one in day["explanations"]] == ["booked-next-day"]


@pytest.mark.parametrize(
    ("at", "day"), [("2024-01-30 23:59:59.999999", "2024-01-30"), ("2024-01-31 00:00", "2024-01-31")]
)
async def test_midnight_in_beijing_begins_the_next_day(
    office: System, channel: str, at: str, day: str
) -> None:
    office.at(at)
    await paid(office, channel)
    office.at("2024-02-01 10:30")
    await office.reconcile()
    found = await day_of(office, channel, day)
    assert (found["state"], found["lines"], found["matched"], found["received"]) == (
        "reconciled", 1, 1, 20_000,
    )  # fmt: skip
    assert await breaks(office) == []


async def test_days_missed_while_nobody_ran_are_made_up_for(office: System, channel: str) -> None:
    for day in (29, 30, 31):
        await paid_on(office, channel, f"2024-01-{day} 12:00")
    office.at("2024-02-01 15:00")
    await office.end()
    office.start()
    await office.reconcile()
    days = [one for one in (await office.office("reconciliation"))["days"] if one["channel"] == channel]
    assert [(one["day"], one["state"]) for one in days[:3]] == [
        ("2024-01-29", "reconciled"), ("2024-01-30", "reconciled"), ("2024-01-31", "reconciled"),
    ]  # fmt: skip


async def test_a_day_without_a_bill_is_over_only_when_a_day_later_there_is_still_none(
    office: System, channel: str
) -> None:
    """Alipay has one word for a bill that is not made yet and one that never will be."""
    office.at(NEXT)
    again = await office.reconcile()
    assert again == moment(NEXT) + timedelta(minutes=30)
    day = await day_of(office, channel)
    assert (day["state"], day["waits"]["attempts"]) == ("waiting", 1)
    office.at("2024-02-01 10:30")
    await office.reconcile()
    assert (await day_of(office, channel))["state"] == "no-bill"
    assert await breaks(office) == []


async def test_a_day_without_a_bill_on_which_we_booked_money_stays_open(office: System, channel: str) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    gateway(office, channel).bill_faults = [
        "missing"
    ]  # of one line: the simulated gateway then lists nothing
    for at in (NEXT, "2024-02-01 10:30", "2024-02-03 10:30"):
        office.at(at)
        await office.reconcile()
    day = await day_of(office, channel)
    assert (day["state"], day["waits"]["attempts"]) == ("waiting", 3)


async def test_a_bill_of_another_day_is_not_compared(office: System, channel: str) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    gateway(office, channel).bill_faults = ["another-day"]
    office.at(NEXT)
    await office.reconcile()
    day = await day_of(office, channel)
    assert (day["state"], day["waits"]["gateway_code"]) == ("waiting", "other-day")
    assert await breaks(office) == []


async def test_a_gateway_that_is_away_is_asked_again(office: System, channel: str) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    office.at(NEXT)
    gateway(office, channel).weather.bring(600, Outage.REFUSE)
    await office.reconcile()
    assert (await day_of(office, channel))["state"] == "waiting"
    office.at("2024-01-31 11:00")
    await office.reconcile()
    assert (await day_of(office, channel))["state"] == "reconciled"


async def test_the_file_is_kept_encrypted_with_its_digest(office: System, channel: str) -> None:
    office.at(PAID_AT)
    await paid(office, channel)
    office.at(NEXT)
    await office.reconcile()
    (row,) = await office.rows("select * from bills where channel = $1 and digest is not null", channel)
    assert (row["lines"], len(row["digest"])) == (1, 32)
    opened = office.process.plumbing.vault.decrypt(row["raw"], row=str(row["bill_id"]))
    assert opened[:2] in (b"\x1f\x8b", b"PK")
    assert opened not in row["raw"]
    with pytest.raises(Exception, match="only ever added to"):
        await office.write("delete from bills")


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


async def test_a_bill_cut_short_while_it_is_written_down_counts_once(
    office: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bills, "CHUNK", 1)
    office.at(PAID_AT)
    await paid(office, "wechat")
    await paid(office, "wechat")
    office.at(NEXT)
    written = bills.add_lines

    async def dies(uow: Any, bill_id: Any, first: int, lines: Any) -> None:
        await written(uow, bill_id, first, lines)
        if first == 1:
            monkeypatch.setattr(bills, "add_lines", cut)

    async def cut(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(bills, "add_lines", dies)
    with pytest.raises(ConnectionError):
        await office.reconcile()
    assert len(await office.rows("select 1 from bill_lines")) == 1
    monkeypatch.setattr(bills, "add_lines", written)
    await office.reconcile()
    day = await day_of(office, "wechat")
    assert (day["lines"], day["matched"], day["breaks"]) == (2, 2, 0)


async def test_a_hundred_thousand_lines_go_through_in_a_few_statements(office: System) -> None:
    """Counted, not timed: the work is done in sets. With one payment missing in the book and one in the bill."""
    many = 100_000
    office.at(PAID_AT)
    candidate, order_no = await paid(office, "wechat")
    await office.write(
        """
        insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at,
                            recorded_at)
        select k.kind, $1, $2, 'wechat', 'T' || n, 20000, 'CNY', $3, $3
        from generate_series(1, $4::int) n, (values ('received'), ('fee')) as k (kind)
        """,
        candidate,
        order_no,
        moment(PAID_AT),
        many,
    )
    lines = tuple(BillLine(order_no, f"T{n}", None, 20_000, moment(PAID_AT)) for n in range(2, many + 2))
    channel = Recorded(Bill("wechat", date(2024, 1, 30), lines, bytes(32), b"\x1f\x8braw"))
    office.at(NEXT)
    asked: list[str] = []
    sql = UnitOfWork.sql

    async def counted(uow: UnitOfWork, statement: str, *args: object) -> Any:
        asked.append(statement)
        return await sql(uow, statement, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnitOfWork, "sql", counted)
        await Bills({"wechat": channel}, office.turns.gateways)._take(channel.bill)
    assert len(asked) < 20
    (row,) = await office.rows("select * from reconciliations")
    assert (row["lines"], row["matched"], row["breaks"]) == (many, many - 1, 3)
    assert await kinds(office) == ["not-in-bill", "not-in-bill", "not-in-ledger"]


class Recorded:
    """A gateway whose bill is known."""

    name = "wechat"

    def __init__(self, bill: Bill) -> None:
        self.bill = bill

    async def fetch_bill(self, day: date) -> Bill:
        return self.bill

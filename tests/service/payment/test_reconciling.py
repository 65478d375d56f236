"""Each day's bill of each gateway against our book: matched, explained, or on a list that a person closes."""

from __future__ import annotations

import io
from datetime import date, timedelta
from typing import Any

import pytest
from rich.console import Console

from contracts import payment
from deploy import reconcile_commands
from deploy.simulators.outage import Outage
from services.chassis.db import UnitOfWork
from services.payment.handlers.reconciling import Bills
from services.payment.ports import Bill, BillLine
from services.payment.repository import bills
from tests.service.payment.system import CLOSES, CYCLE, System, moment
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
    said,
)


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


async def test_the_office_reads_it_in_a_terminal(office: System) -> None:
    office.at(PAID_AT)
    await paid(office, "wechat")
    office.world.wechat.bill_faults = ["amount"]
    office.at(NEXT)
    await office.reconcile()
    report = await office.office("reconciliation")
    console = Console(file=io.StringIO(), width=132)
    for table in (
        reconcile_commands.days(report["days"]),
        reconcile_commands.totals(report["totals"]),
        reconcile_commands.breaks(report["breaks"], closed=False),
    ):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    for word in (DAY, "已对账", "等待账单 isp.bill_not_exist", "收款金额不一致", "200.01", "200.00"):
        assert word in written, written


async def test_a_close_between_two_comparisons_is_numbered_with_them(office: System) -> None:
    """The close's own statement counts closes only, as in the version before: the database numbers it among all."""
    office.at(PAID_AT)
    await paid(office, "wechat")
    office.at(NEXT)
    await office.reconcile()
    office.at(CLOSES)
    await office.close()
    office.at("2024-02-09 10:30")
    await office.reconcile()
    rows = await office.rows("select type, sequence from outbox where key = $1 order by id", CYCLE)
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    place = [row["type"].split(".")[2] for row in rows].index("window-closed")
    assert 0 < place < len(rows) - 1
    (closing,) = await office.rows("select sequence from closings")
    assert closing["sequence"] == place + 1


async def test_after_a_restore_days_are_compared_again_and_nothing_is_said_twice(office: System) -> None:
    office.at(PAID_AT)
    await paid(office, "wechat")
    office.world.wechat.bill_faults = ["amount", "extra"]
    office.at(NEXT)
    await office.reconcile()
    before = [
        (str(event.break_id), event.kind)
        for event in await office.said(CYCLE)
        if isinstance(event, payment.BreakFound)
    ]
    everything = len(await office.said(CYCLE))
    assert len(before) == 2
    lost = ("explanations", "breaks", "reconciliations", "bill_lines", "bills")
    async with office.database.unit_of_work() as uow:
        for table in lost:
            await uow.sql(f"alter table {table} disable trigger keep_{table}")
            await uow.sql(f"delete from {table}")
            await uow.sql(f"alter table {table} enable trigger keep_{table}")
        await uow.sql("delete from bill_waits")
    await office.reconcile()
    assert sorted(one["break_id"] for one in await breaks(office)) == sorted(one for one, _ in before)
    assert len(await office.said(CYCLE)) == everything

"""Payments that are told of at the same time: taken in together, each as if it had come alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from contracts.reasons import RefundCause
from services.chassis.cause import Cause
from services.payment.domain.obligation import Cancellation, Fact, Obligation, Status
from services.payment.domain.order import Success
from services.payment.handlers import till as tills
from services.payment.handlers.till import Till
from services.payment.repository import receipts
from services.payment.repository.orders import Evidence
from services.payment.repository.receipts import Receipt
from tests.service.payment.system import CLOSES, System, moment, rejected
from tests.service.payment.test_notices import captured


async def ready_to_pay(system: System, many: int) -> list[tuple[UUID, dict[str, str], bytes]]:
    """So many who owe, each with the gateway's notice, held back."""
    found = []
    for candidate in await system.approved(many):
        headers, body = await captured(system, await system.ordered(candidate))
        found.append((candidate, headers, body))
    return found


async def test_many_who_pay_at_once_are_taken_in_by_few_transactions(system: System) -> None:
    everyone = await ready_to_pay(system, 40)
    answers = await asyncio.gather(*(system.notify(headers, body) for _, headers, body in everyone))
    assert {answer.status_code for answer in answers} == {204}
    for candidate, _, _ in everyone:
        assert await system.status(candidate) == "paid"
        assert await system.words(candidate) == ["due", "paid"]
        assert await system.ledger(candidate) == [("received", 20_000, None), ("fee", 20_000, None)]
    (row,) = await system.rows(
        "select count(distinct xmin::text) as written from ledger where kind = 'received'"
    )
    assert row["written"] < len(everyone) / 2, "nobody waited for nobody, so they shared transactions"


async def test_among_many_who_pay_each_is_judged_alone(system: System) -> None:
    plain, late, gone, again = await ready_to_pay(system, 4)
    await system.deliver(rejected(gone[0]))
    await system.notify(*again[1:])
    async with system.other_session() as uow:
        await uow.sql(
            "update obligations set opens_at = '2024-01-01', closes_at = '2024-01-02', told_closes_at = '2024-01-02' "
            "where registration_id = $1",
            late[0],
        )
    # The first two write by themselves; these wait behind them and come together.
    answers = await asyncio.gather(
        *(system.notify(*one[1:]) for one in (plain, late, gone, again)),
    )
    assert {answer.status_code for answer in answers} == {204}
    assert [await system.status(one[0]) for one in (plain, late, gone, again)] == [
        "paid", "awaiting", "cancelled", "paid",
    ]  # fmt: skip
    assert (await system.ledger(late[0]))[1:] == [("refund-due", 20_000, RefundCause.PAID_LATE)]
    assert (await system.ledger(gone[0]))[1:] == [("refund-due", 20_000, RefundCause.REJECTED)]
    assert await system.words(again[0]) == ["due", "paid"]


STATES: Sequence[tuple[str, dict[str, Any]]] = (
    ("awaiting", {}),
    ("held", {}),
    ("expired", {"proof_id": UUID(int=7), "expired_at": moment(CLOSES)}),
    ("paid", {"paid_at": moment(CLOSES) - timedelta(days=2)}),
    ("cancelled", {"cancelled_for": "rejected"}),
)
MOMENTS = (timedelta(microseconds=-1), timedelta(0), timedelta(seconds=1))
MONEY = ((20_000, "CNY"), (19_999, "CNY"), (20_000, "USD"))


async def test_the_statement_takes_in_exactly_what_the_rule_calls_paid(system: System) -> None:
    closes_at = moment(CLOSES)
    people = await system.approved(len(STATES) * len(MOMENTS) * len(MONEY))
    wanted: dict[int, bool] = {}
    told: list[Receipt] = []
    cases = product(STATES, MOMENTS, MONEY)
    for place, (candidate, ((status, more), early, (fen, currency))) in enumerate(
        zip(people, cases, strict=True)
    ):
        order_no = await system.ordered(candidate)
        columns = ["status = $2", *(f"{name} = ${number}" for number, name in enumerate(more, start=3))]
        async with system.other_session() as uow:
            await uow.sql(
                f"update obligations set {', '.join(columns)} where registration_id = $1",
                candidate, status, *more.values(),
            )  # fmt: skip
        success = Success(order_no, f"transaction-{place}", fen, currency, closes_at + early)
        told.append(_receipt(success))
        row = await system.obligation(candidate)
        verdict = _rule(row).receive(success, 20_000)
        wanted[place] = verdict.facts == (Fact.PAID,) and verdict.refund is None
    async with system.database.unit_of_work() as uow:
        taken = await receipts.take_plain(uow, system.process.plumbing.vault, system.cycle.id, told)
    assert taken == {place for place, plain in wanted.items() if plain}
    assert len(taken) == 2, "awaiting and held, a moment before the close, the right money"
    for place, candidate in enumerate(people):
        assert bool(await system.ledger(candidate)) == (place in taken)


def _receipt(success: Success) -> Receipt:
    evidence = Evidence("notice", success.order_no, "paid", b"{}", {"serial": "1"})
    return Receipt("wechat", success, evidence, Cause.fresh())


def _rule(row: dict[str, Any]) -> Obligation:
    return Obligation(
        registration_id=row["registration_id"],
        status=Status(row["status"]),
        version=row["version"],
        amount_fen=row["amount_fen"],
        currency=row["currency"],
        opens_at=row["opens_at"],
        closes_at=row["closes_at"],
        told_closes_at=row["told_closes_at"],
        cancelled_for=Cancellation(row["cancelled_for"]) if row["cancelled_for"] else None,
    )


def _success(number: int, order_no: str = "") -> Receipt:
    at = datetime.fromisoformat("2024-02-01T00:00:00+00:00")
    return _receipt(Success(order_no or f"order-{number}", f"t-{number}", 1, "CNY", at))


class Book:
    """What was written together, and a gate before the end of each."""

    def __init__(self) -> None:
        self.written: list[list[str]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def write(self, together: Sequence[Receipt]) -> frozenset[int]:
        self.written.append([one.success.transaction_id for one in together])
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return frozenset(range(len(together)))


async def test_whoever_waits_comes_in_the_next_transaction_and_of_one_order_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tills, "WRITERS", 1)
    book = Book()
    till = Till(book.write)
    all_of_them = [_success(0), _success(1), _success(2, "same"), _success(3, "same")]
    paying = [asyncio.create_task(till.take(one)) for one in all_of_them]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    book.gate.set()
    assert await asyncio.gather(*paying) == [True] * 4
    assert book.written == [["t-0"], ["t-1", "t-2"], ["t-3"]]


async def test_whoever_leaves_the_line_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tills, "WRITERS", 1)
    book = Book()
    till = Till(book.write)
    paying = [asyncio.create_task(till.take(_success(number))) for number in range(5)]
    await asyncio.sleep(0)
    paying[2].cancel()  # waits
    paying[0].cancel()  # writes
    await asyncio.sleep(0)
    paying[1].cancel()  # is about to
    await asyncio.sleep(0)
    book.gate.set()
    answers = await asyncio.gather(*paying, return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        asyncio.CancelledError, asyncio.CancelledError, asyncio.CancelledError, bool, bool,
    ]  # fmt: skip
    assert await till.take(_success(9)) is True, "and the line goes on"


async def test_a_database_that_is_away_is_said_to_everyone_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tills, "WRITERS", 1)
    book = Book()
    till = Till(book.write)
    paying = [asyncio.create_task(till.take(_success(number))) for number in range(3)]
    await asyncio.sleep(0)
    book.failure = OSError("away")
    book.gate.set()
    answers = await asyncio.gather(*paying, return_exceptions=True)
    assert [type(answer) for answer in answers] == [OSError] * 3
    book.failure = None
    assert await till.take(replace(_success(9))) is True

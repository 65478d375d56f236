"""Bugs planted on purpose: each takes one protection of payment away, and the interleavings must find it by what is named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any, Final
from unittest.mock import patch

from contracts.reasons import RefundCause
from services.chassis.db import UnitOfWork
from services.payment.domain.decision import Decision, Word
from services.payment.domain.obligation import Fact, Obligation, Status, Verdict
from services.payment.domain.order import Order, Success
from services.payment.handlers import refunding, settling
from services.payment.ports import Answer, OrderState, PaymentChannel, RefundAnswer, RefundState
from services.payment.repository import decisions, ledger
from services.payment.repository.refunds import Refund
from tests.interleavings.stories import SEALED
from tests.support.switched_off import Mutation, instead, without

Judgement = Callable[[Obligation, Success, int], Verdict]


@dataclass(frozen=True, slots=True)
class Planted:
    """A protection that is gone, and who must notice."""

    mutation: Mutation
    noticed_by: frozenset[str]
    """Invariants, or what is raised where nothing may be."""
    within: int
    """Batches, from 0 on. Several times as many as it took when this was written."""


def _put(*changes: tuple[str, str]) -> AbstractContextManager[Any]:
    """Statements with other words: (what is found, what stands there instead)."""
    stack = contextlib.ExitStack()
    for found, others in changes:
        stack.enter_context(instead(found, others))
    return stack


@contextlib.contextmanager
def _judging(otherwise: Callable[[Judgement, Obligation, Success, int], Verdict]) -> Iterator[None]:
    """`Obligation.receive` says something else."""
    judge = Obligation.receive

    def receive(owed: Obligation, success: Success, order_amount_fen: int) -> Verdict:
        return otherwise(judge, owed, success, order_amount_fen)

    with patch.object(Obligation, "receive", receive):
        yield


def _late_is_in_time(judge: Judgement, owed: Obligation, success: Success, fen: int) -> Verdict:
    before = min(success.paid_at, owed.closes_at - timedelta(seconds=1))
    return judge(owed, replace(success, paid_at=before), fen)


def _any_amount_will_do(judge: Judgement, owed: Obligation, success: Success, fen: int) -> Verdict:
    return judge(owed, replace(success, amount_fen=fen), fen)


def _twice_is_fine(judge: Judgement, owed: Obligation, success: Success, fen: int) -> Verdict:
    return judge(replace(owed, status=Status.AWAITING) if owed.status is Status.PAID else owed, success, fen)


@contextlib.contextmanager
def _unknown_is_closed() -> Iterator[None]:
    """What the gateway has not heard of, and so did not end, counts as ended by our close."""
    close = settling._close

    async def closed(channel: PaymentChannel, order: Order) -> tuple[settling._Closing, str]:
        closing, word = await close(channel, order)
        return (settling._Closing.ENDED if closing is settling._Closing.UNKNOWN else closing), word

    with patch.object(settling, "_close", closed):
        yield


def _comes_back_in_silence(judge: Judgement, owed: Obligation, success: Success, fen: int) -> Verdict:
    verdict = judge(owed, success, fen)
    if Fact.REINSTATED not in verdict.facts:
        return verdict
    return replace(
        verdict, obligation=replace(verdict.obligation, version=owed.version + 1), facts=(Fact.PAID,)
    )


def _forfeited_for_good(judge: Judgement, owed: Obligation, success: Success, fen: int) -> Verdict:
    """Once somebody is forfeited no payment counts: not even one in time."""
    if owed.status is Status.EXPIRED:
        return Verdict(owed, refund=RefundCause.PAID_LATE)
    return judge(owed, success, fen)


@contextlib.contextmanager
def _no_answer_is_an_answer() -> Iterator[None]:
    """Whoever's gateway is silent has not paid."""
    ask = settling._ask

    async def asked(channel: Any, order: Order) -> Answer:
        answer = await ask(channel, order)
        silent = Answer(order.order_no, OrderState.UNPAID, None, None, None, None, 200, b"{}", SEALED)
        return silent if isinstance(answer, settling.Settled) else answer

    with patch.object(settling, "_ask", asked):
        yield


@contextlib.contextmanager
def _a_number_for_every_try() -> Iterator[None]:
    """A refund is asked for under another number each time."""
    ask, numbers = refunding.Refunds._ask, count(1)

    async def asked(refunds: refunding.Refunds, refund: Refund) -> RefundAnswer | None:
        if refund.attempts:
            refund = replace(refund, refund_no=f"{refund.refund_no}-{next(numbers)}")
        return await ask(refunds, refund)

    with patch.object(refunding.Refunds, "_ask", asked):
        yield


@contextlib.contextmanager
def _taken_for_done(state: RefundState) -> Iterator[None]:
    """What the gateway says to be something else counts as done."""
    ask = refunding.Refunds._ask

    async def asked(refunds: refunding.Refunds, refund: Refund) -> RefundAnswer | None:
        answer = await ask(refunds, refund)
        if answer is None or answer.state is not state:
            return answer
        return replace(answer, state=RefundState.DONE, amount_fen=refund.amount_fen)

    with patch.object(refunding.Refunds, "_ask", asked):
        yield


@contextlib.contextmanager
def _asking_is_enough() -> Iterator[None]:
    """What one person asked for is carried out before another said a word."""
    read = decisions.not_done

    async def not_done(uow: UnitOfWork) -> list[Decision]:
        return [replace(one, word=Word.APPROVED) for one in await read(uow)]

    with patch.object(decisions, "not_done", not_done):
        yield


def _skipped(where: Any, name: str, returns: Any = None) -> AbstractContextManager[Any]:
    """Something that is not done any more."""

    async def skipped(*_: object, **__: object) -> Any:
        return returns

    return patch.object(where, name, skipped)


_UNDECIDED: Final = (
    r" and not exists \(select from orders r where r\.registration_id = o\.registration_id"
    r" and r\.status in \([^)]*\)\)"
)
_LOCK_OF_A_PAYMENT: Final = r"(?<=where r\.order_no = \$1) for update of o"


def _neither_lock_nor_version() -> AbstractContextManager[Any]:
    return _put(
        (_LOCK_OF_A_PAYMENT, ""), (r" status = \$2 and version = \$3", " $2::text > '' and $3::bigint > 0")
    )


def _sweep_forfeits_whom_it_read() -> AbstractContextManager[Any]:
    return _put(
        (r" for update of o (skip locked)?(?=\s*\), expired)", ""),
        (r"select o\.ctid from", "select o.registration_id from"),
        (
            r"o\.ctid = any\(array\(select ctid from due\)\) and o\.status in \([^)]*\) and o\.closes_at <= \$1",
            "o.registration_id = any(array(select registration_id from due))",
        ),
    )


PLANTED: Final[dict[str, Planted]] = {
    # Whoever comes second
    "row lock of whoever is paid": Planted(
        lambda: without(_LOCK_OF_A_PAYMENT), frozenset({"DeadlockDetectedError", "Overtaken"}), 50
    ),
    "row lock, and the state and version that were read": Planted(
        _neither_lock_nor_version,
        frozenset({"CheckViolationError", "DeadlockDetectedError", "I1", "I2", "I3"}),
        50,
    ),
    "whoever is swept still owes": Planted(
        _sweep_forfeits_whom_it_read, frozenset({"CheckViolationError", "I2", "I3"}), 50
    ),
    # The close
    "not before the close": Planted(
        lambda: _put(
            (r"o\.closes_at <= \$1\s+and (?=\s*o\.status in)", ""),
            (r" and o\.closes_at <= \$1(?=\s+returning)", ""),
        ),
        frozenset({"CheckViolationError"}),
        10,
    ),
    "no order undecided": Planted(lambda: without(_UNDECIDED), frozenset({"I7"}), 10),
    "no answer is no answer": Planted(_no_answer_is_an_answer, frozenset({"I7"}), 10),
    "a code let go may be paid": Planted(
        lambda: instead(r"\$3 = 'unknown-order' and r\.code_url", "$3 = 'nothing' and r.code_url"),
        frozenset({"I7"}),
        10,
    ),
    "what is opened after our close is not closed": Planted(_unknown_is_closed, frozenset({"I1", "I7"}), 50),
    "nobody falls while a later close is decided about": Planted(
        lambda: instead(r" and not\s+\(\(o\.closes_at < ", " and not (false and (o.closes_at < "),
        frozenset({"I7"}),
        100,
    ),
    "a close is moved by two people": Planted(
        _asking_is_enough, frozenset({"ForeignKeyViolationError", "I3", "I7"}), 20
    ),
    # Money
    "late is late": Planted(
        partial(_judging, _late_is_in_time), frozenset({"CheckViolationError", "I7"}), 10
    ),
    "in time is in time, heard of late": Planted(
        partial(_judging, _forfeited_for_good), frozenset({"I1"}), 10
    ),
    "the right amount": Planted(partial(_judging, _any_amount_will_do), frozenset({"I1"}), 10),
    "one fee": Planted(partial(_judging, _twice_is_fine), frozenset({"I1", "I2", "I3"}), 10),
    "a reinstatement is said": Planted(partial(_judging, _comes_back_in_silence), frozenset({"I3"}), 10),
    "no CLOSED over a success": Planted(
        lambda: without(r" and r\.status in \([^)]*\)(?= returning 1)"), frozenset({"I1", "I7"}), 10
    ),
    "what is no fee goes back": Planted(partial(_skipped, ledger, "owe_back"), frozenset({"I1", "I7"}), 10),
    "whoever is rejected gets it back": Planted(
        partial(_skipped, ledger, "owe_back_all", 0), frozenset({"I1"}), 10
    ),
    "one number for a refund": Planted(_a_number_for_every_try, frozenset({"I1"}), 10),
    "under way is not done": Planted(partial(_taken_for_done, RefundState.UNDER_WAY), frozenset({"I1"}), 10),
    "refused is not done": Planted(partial(_taken_for_done, RefundState.REFUSED), frozenset({"I1"}), 10),
}

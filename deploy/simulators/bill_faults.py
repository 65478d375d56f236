"""A bill's lines, and how a script may make a bill differ from the gateway's book."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

_NOBODYS: Final = "29990101NOBODYSORDER"


class Booked(NamedTuple):
    """A line of a bill; of a payment where `refund_no` is empty."""

    at: datetime
    order_no: str
    transaction_id: str
    amount_fen: int
    refund_no: str
    refund_fen: int


Lines = list[Booked]


def spoilt(lines: Lines, faults: Iterable[str]) -> Lines:
    """The lines of a day with these faults, one after the other. There is at least one line."""
    for fault in faults:
        if fault in _OF_THE_BILL:
            lines = _OF_THE_BILL[fault](lines)
        elif fault in _OF_A_REFUND:
            back = next((at for at, line in enumerate(lines) if line.refund_no), None)
            if back is not None:
                lines = [*lines[:back], *_OF_A_REFUND[fault](lines[back]), *lines[back + 1 :]]
    return lines


_OF_THE_BILL: Final[Mapping[str, Callable[[Lines], Lines]]] = {
    "missing": lambda lines: lines[:-1],
    "first-missing": lambda lines: lines[1:],
    "extra": lambda lines: [*lines, lines[0]._replace(order_no=_NOBODYS, transaction_id="9" * 28)],
    "amount": lambda lines: [lines[0]._replace(amount_fen=lines[0].amount_fen + 1), *lines[1:]],
    "twice": lambda lines: [*lines, lines[0]],
    # The first line names the order of the second.
    "order": lambda lines: [lines[0]._replace(order_no=lines[1 % len(lines)].order_no), *lines[1:]],
    # The first line, or every line, is of the day before.
    "day": lambda lines: [lines[0]._replace(at=lines[0].at - timedelta(days=1)), *lines[1:]],
    "another-day": lambda lines: [line._replace(at=line.at - timedelta(days=1)) for line in lines],
    "refund-extra": lambda lines: [
        *lines, lines[0]._replace(refund_no="R29990101NOBODYSREFUND", refund_fen=1),
    ],
}  # fmt: skip
_OF_A_REFUND: Final[Mapping[str, Callable[[Booked], Lines]]] = {
    "refund-missing": lambda line: [],
    "refund-amount": lambda line: [line._replace(refund_fen=line.refund_fen - 1)],
    "refund-order": lambda line: [line._replace(order_no=_NOBODYS)],
}

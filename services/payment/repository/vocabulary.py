"""States as SQL writes them, from the domain's own table: a set-based statement must not have rules of its own."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from services.payment.domain.obligation import Status, sources_of
from services.payment.domain.order import UNDECIDED, UNDER_WAY


def one_of(values: Iterable[StrEnum]) -> str:
    """`('a', 'b')`, for `in`."""
    return "(" + ", ".join(f"'{value}'" for value in sorted(values)) + ")"


MAY_EXPIRE: Final = one_of(sources_of(Status.EXPIRED))
MAY_BE_PAID: Final = one_of(sources_of(Status.PAID))
MAY_BE_HELD: Final = one_of(sources_of(Status.HELD))
UNDECIDED_ORDER: Final = one_of(UNDECIDED)
ORDER_UNDER_WAY: Final = one_of(UNDER_WAY)

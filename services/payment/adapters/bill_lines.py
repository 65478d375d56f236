"""A line of a bill, whichever gateway's: what cannot be money, a moment or a number is refused before anything is compared."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Final

from services.payment.adapters.asking import BEIJING
from services.payment.ports import BillLine

_NUMBER: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_MOST_FEN: Final = 10**12  # ten thousand million yuan: no fee, and nothing that a sum of could not be kept


def bill_line(order_no: str, transaction_id: str, refund_no: str | None, yuan: str, at: str) -> BillLine:
    """`yuan` is not below nothing, `at` by Beijing's clock. Raises ValueError."""
    try:
        fen = Decimal(yuan) * 100
        if not 0 <= fen <= _MOST_FEN or fen != int(fen):
            raise ValueError(yuan)
        moment = datetime.fromisoformat(at).replace(tzinfo=BEIJING).astimezone(UTC)
    except (DecimalException, OverflowError) as error:
        raise ValueError(str(error)) from None
    numbers = (order_no, transaction_id, refund_no or "none")
    if not all(map(_NUMBER.fullmatch, numbers)):
        raise ValueError("a number that nobody gave")
    return BillLine(order_no, transaction_id, refund_no, int(fen), moment)

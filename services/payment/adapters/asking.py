"""What asking a gateway is, whichever it is: kept connections, patience that ends, files that come apart from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Final, Protocol

from services.chassis import wire
from services.payment.ports import ChannelUnavailable

PATIENCE: Final = 5.0  # real seconds for one call, connecting included
BODY_LIMIT: Final = 64 * 1024  # the gateways' own bodies are below 4 KiB
FILE_PATIENCE: Final = 60.0
FILE_LIMIT: Final = 64 << 20
BEIJING: Final = timezone(timedelta(hours=8))


class AccountInvalid(Exception):
    """The account file cannot be used; says which entry and why, never a value."""


class Asking(Protocol):
    """What carries a request to the gateway. Raises wire.NoAnswer."""

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes = b""
    ) -> wire.Answer: ...

    async def aclose(self) -> None: ...


class Connections:
    """A few kept connections to one gateway for the life of the process."""

    def __init__(self, origin: str, *, count: int, asking: Asking | None) -> None:
        self._asking: Asking = asking or wire.Wire(
            origin, connections=count, patience=PATIENCE, limit=BODY_LIMIT
        )
        # Files come by connections of their own: no order waits behind a bill.
        self._files = wire.Wires(connections=2, patience=FILE_PATIENCE, limit=FILE_LIMIT)

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes
    ) -> wire.Answer:
        """One exchange. Raises ChannelUnavailable."""
        try:
            return await self._asking.request(method, target, headers, content)
        except wire.NoAnswer as error:
            raise ChannelUnavailable(str(error)) from None

    async def file(self, url: str, headers: Mapping[str, str]) -> bytes:
        """A whole file. Raises ChannelUnavailable. Whether its host may be asked is the caller's to know."""
        try:
            answer = await self._files.request("GET", url, headers, b"")
        except wire.NoAnswer as error:
            raise ChannelUnavailable(str(error)) from None
        if answer.status != 200:
            raise ChannelUnavailable(f"status {answer.status}")
        return answer.body

    async def aclose(self) -> None:
        await self._asking.aclose()
        await self._files.aclose()


def check_order(amount_fen: int, description: str, expires_at: datetime) -> None:
    """Whether any gateway would take such an order. Raises ValueError."""
    if amount_fen < 1 or not 1 <= len(description) <= 127:
        raise ValueError("an order has an amount and a description of at most 127 characters")
    if expires_at.tzinfo is None:
        raise ValueError("expires_at needs an offset")


def check_refund(amount_fen: int, paid_fen: int, reason: str) -> None:
    """Whether any gateway would take such a refund. Raises ValueError."""
    if not 1 <= amount_fen <= paid_fen or not 1 <= len(reason) <= 80:
        raise ValueError("a refund has an amount up to what was paid, and a reason of at most 80 characters")

"""What notification needs of those who carry messages: an address, a text, our reference; no registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Accepted:
    """The carrier took it. For mail that is delivery to the relay; for SMS a receipt says more, later."""

    provider_ref: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message the carrier took. Unsigned on the wire: a hint, joined on our reference."""

    reference: str
    provider_ref: str
    delivered: bool
    code: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Sent:
    """What the carrier says when it is asked about a message. `delivered` None: it does not know yet."""

    delivered: bool | None
    code: str


class Rejected(Exception):
    """The carrier said no and will not carry this one. Its text is the code alone, never an address.

    `permanent`: the same message will never go (bad number, unknown mailbox); otherwise it may go later.
    """

    def __init__(self, code: str, *, permanent: bool) -> None:
        super().__init__(code)
        self.code = code
        self.permanent = permanent


class NoAnswer(Exception):
    """Nothing usable came back. With `maybe_accepted` sending again may make a second copy: count it.

    Without, it surely was not taken (no connection): send again freely.
    """

    def __init__(self, reason: str, *, maybe_accepted: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.maybe_accepted = maybe_accepted


class MalformedReceipts(Exception):
    """The pushed body is not what the carrier sends."""


class Sms(Protocol):
    async def send(
        self, to: str, template: str, variables: Mapping[str, str], text: str, reference: str
    ) -> Accepted:
        """`template` is the carrier's code of the approved text, `text` the whole for carriers that take it.

        `reference` (our message id) comes back in the receipt. Raises Rejected or NoAnswer.
        """
        ...

    async def find(self, to: str, since: datetime, reference: str) -> Sent | None:
        """What it knows of the message that it was given under this reference since then; None: it was given none.

        Raises Rejected or NoAnswer.
        """
        ...

    def parse_receipts(self, raw: bytes) -> list[Receipt]:
        """Raises MalformedReceipts."""
        ...


class Mail(Protocol):
    async def send(self, to: str, subject: str, text: str, reference: str) -> Accepted:
        """`reference` is the left side of the Message-ID, the same at every try. Raises Rejected or NoAnswer."""
        ...


@dataclass(frozen=True, slots=True)
class Contact:
    """Where one registration's candidate is reached. `tail`: the last four of the registration number."""

    registration_id: UUID
    tail: str
    phone: str | None
    email: str | None


class ContactBook(Protocol):
    async def look_up(self, registration_ids: Sequence[UUID]) -> list[Contact]:
        """Those of these (at most 500) that registration knows. Raises NoAnswer."""
        ...

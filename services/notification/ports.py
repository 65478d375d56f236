"""What notification needs of those who carry messages: an address, a text, our reference; no registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Accepted:
    """The carrier took it. For mail that is delivery to the relay; for SMS a receipt says more, later."""

    provider_ref: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message the carrier took. Unsigned on the wire: a hint, joined on our reference.

    A carrier that does not give our reference back leaves it empty: then its own, `provider_ref`, joins.
    """

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
    `wait`: it went over a limit of the carrier's that lasts so long. That is a delay, no failure.
    """

    def __init__(self, code: str, *, permanent: bool, wait: timedelta | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.permanent = permanent
        self.wait = wait


class NoAnswer(Exception):
    """Nothing usable came back. With `maybe_accepted` sending again may make a second copy: count it.

    Without, it surely was not taken (no connection): send again freely.
    """

    def __init__(self, reason: str, *, maybe_accepted: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.maybe_accepted = maybe_accepted


class MalformedReceipts(Exception):
    """The pushed body, or one entry of it, is not what the carrier sends."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one push holds, or one page that was pulled. An entry that cannot be read costs nobody else's message its receipt."""

    receipts: Sequence[Receipt]
    unreadable: Sequence[str] = ()
    """Of each such entry, what is wrong with it; never a value."""


class Sms(Protocol):
    @property
    def name(self) -> str:
        """One word: in the database, in addresses, in metrics."""
        ...

    @property
    def signature(self) -> str:
        """What it puts in front of every text, brackets included: it is counted as characters are."""
        ...

    @property
    def shows_after(self) -> timedelta:
        """How long after it took a message it may still answer `find` with None."""
        ...

    @property
    def lists_all(self) -> bool:
        """Whether `find` knows of every message after that; else only of those with a receipt."""
        ...

    @property
    def by_serial(self) -> bool:
        """Whether what it pushes names a message by its own number alone."""
        ...

    async def send(
        self, to: str, template: str, variables: Mapping[str, str], text: str, reference: str
    ) -> Accepted:
        """`template` is the carrier's code of the approved text, `text` the whole for carriers that take it.

        `variables` come in the order in which the text says them; `reference` (our message id) comes back in the
        receipt. Raises Rejected or NoAnswer.
        """
        ...

    async def find(self, to: str, since: datetime, reference: str) -> Sent | None:
        """What it knows of the message that it was given under this reference since then; None: it was given none.

        Raises Rejected or NoAnswer.
        """
        ...

    def parse_receipts(self, raw: bytes) -> Pushed:
        """Raises MalformedReceipts where the whole of it is no push."""
        ...

    @property
    def thanks(self) -> Mapping[str, object]:
        """What it wants to hear when it has pushed receipts: anything else, and it pushes them again."""
        ...

    async def pull(self) -> Pushed | None:
        """The next receipts that it keeps for us; each is given once. None: it keeps none for anybody.

        Raises Rejected or NoAnswer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Letter:
    """What a person reads in a mail: a subject, and the same text in two forms."""

    subject: str
    text: str
    html: str | None = None
    language: str = "zh"


class Mail(Protocol):
    async def send(self, to: str, letter: Letter, reference: str) -> Accepted:
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

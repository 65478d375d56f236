"""Mail that comes back after its relay had taken it: what may be undone by that, and why, in a word of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from services.notification.domain.life import State

# Beside the table of life: only a bounce, and only of mail, takes a delivery back. A mail whose answer was lost may
# bounce while it waits for its next try. What has ended otherwise stays: it was said already.
UNDONE_BY_A_BOUNCE: Final = frozenset({State.CREATED, State.SENDING, State.DELIVERED})


@dataclass(frozen=True, slots=True)
class Bounce:
    """A mail that its relay had taken came back. `status`: why, as mail servers say it: 5.1.1 (RFC 3463)."""

    message_id: UUID
    status: str


class Left(StrEnum):
    """Why a mail in the box changes nothing."""

    HUGE = "huge"
    UNREADABLE = "unreadable"
    FOREIGN = "foreign"  # to no return path of ours, or to several
    FORGED = "forged"
    DELAYED = "delayed"  # the server goes on trying
    OTHER = "other"  # a vacation answer, a receipt, a letter


@dataclass(frozen=True, slots=True)
class Found:
    """One file of the box and what it is."""

    name: str
    what: Bounce | Left


_WORDS: Final[Mapping[str, str]] = {
    "1.2": "domain-unknown",
    "1.10": "domain-unknown",
    "1": "mailbox-unknown",
    "2.1": "mailbox-disabled",
    "2.2": "mailbox-full",
    "2.3": "mail-too-big",
    "2": "mailbox-unknown",
    "3.4": "mail-too-big",
    "4": "not-reached",
}


def reason_word(status: str) -> str:
    """The coded reason that may stand on the wire. What is not listed was refused for a reason of the server's own."""
    _, _, detail = status.partition(".")
    return _WORDS.get(detail) or _WORDS.get(detail.partition(".")[0]) or "refused"

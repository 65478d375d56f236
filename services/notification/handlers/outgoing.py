"""A message on its way out, and the ways out that there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

from contracts.reasons import Carrier
from services.notification.domain.life import State
from services.notification.handlers.asking import Find
from services.notification.ports import Accepted
from services.notification.repository.messages import Result
from services.notification.templates.wording import Text

Send: TypeAlias = Callable[[str, Text, str], Awaitable[Accepted]]
COLUMN: Final[Mapping[Carrier, str]] = {Carrier.SMS: "phone", Carrier.EMAIL: "email"}


@dataclass(frozen=True, slots=True)
class Provider:
    """One of those who carry a channel's messages. `share`: per cent of them, while it is well.

    `find`: how it is asked about a message. It may not know for `shows_after` of one that it took; `lists_all`: after
    that it knows of every one, else of those with a receipt. `by_serial`: its receipts name a message by its own number.
    `signature`: what it puts in front of a text.
    """

    name: str
    send: Send
    share: float = 100.0
    find: Find | None = None
    shows_after: timedelta = timedelta(0)
    lists_all: bool = False
    by_serial: bool = False
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Channel:
    """One way out. `accepted`: what a carrier's yes means here; `in_flight`: how many at a time."""

    carrier: Carrier
    providers: Mapping[str, Provider]
    accepted: State
    in_flight: int

    @classmethod
    def of_one(
        cls,
        carrier: Carrier,
        name: str,
        send: Send,
        accepted: State,
        in_flight: int,
        find: Find | None = None,
    ) -> Channel:
        """With a single provider."""
        return cls(carrier, {name: Provider(name, send, find=find)}, accepted, in_flight)

    def askable(self, had_by: str) -> list[Provider]:
        """Those who may have a message that this one had, or that nobody knows who had, and that can be asked."""
        known = self.providers.get(had_by)
        return [one for one in ([known] if known else self.providers.values()) if one.find is not None]

    @property
    def first(self) -> Provider:
        """Who carried it before a second one was there."""
        return next(iter(self.providers.values()))

    @property
    def signature(self) -> str:
        """The longest that any of them puts in front of a text: whose it will be is not known when its parts are counted."""
        return max((one.signature for one in self.providers.values()), key=len)

    def finder(self, provider: str | None) -> Find | None:
        """How whoever had a message is asked about it."""
        return self.providers.get(provider or "", self.first).find


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message ready to leave."""

    message_id: UUID
    registration_id: UUID
    claim: int
    tries: int
    address: str | None
    text: Text
    priority: int
    had_by: str  # who had it last; "": nobody, or after a restore nobody knows
    provider: str  # who gets it
    at: datetime  # when it was claimed
    ask_since: datetime | None  # since then `had_by` may have it, or anybody: asked first
    until: float  # on the loop's clock: what is not begun by then is given back
    erased: bool = False
    number: bytes = b""  # a keyed index of an SMS's number
    parts: int = 1  # of an SMS: how many it is counted and paid as, its signature included
    settled: int = 0  # -1: an earlier try's outcome was unknown, and has been learned


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one claim. `left`: this claim's message left, or may have."""

    one: Outgoing
    result: Result
    left: bool

    @classmethod
    def of(cls, one: Outgoing, state: State, *, left: bool = True, **result: Any) -> Tried:
        return cls(one, Result(one.message_id, one.claim, one.registration_id, state, **result), left)

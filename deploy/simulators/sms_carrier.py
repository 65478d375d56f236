"""What every simulated carrier of SMS does: a book of what it took, its limits for a number, and receipts that it pushes.

Numbers with a reserved prefix behave badly, so that any script can have a dead number.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.simulators.agenda import Agenda
from deploy.simulators.http import Reply, Request
from deploy.simulators.journal import Journal
from deploy.simulators.outage import Outage, Weather
from services.chassis.clock import Clock
from services.chassis.wire import NoAnswer, Wires

DEAD_PREFIX = "1990000"  # accepted, then 空号
SILENT_PREFIX = "1990001"  # accepted, never a receipt
REFUSED_PREFIX = "1990002"  # refused as illegal at once
NUMBER = re.compile(r"1[3-9][0-9]{9}")
DAY = timedelta(days=1)
HANG = 60.0  # real seconds: beyond anybody's patience
SLOW = 3.0  # real seconds
_REPEATS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=10))
_BATCH = 500
_PATIENCE = 5.0
_GATHERING = 0.02  # real seconds in which receipts due at one moment come together


class Refusal(Exception):
    """`status` 200 is a business answer, anything else a refusal of the API itself."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message


@dataclass(slots=True)
class Message:
    biz_id: str
    out_id: str
    to: str
    """SHA-256 of the number: the book is read by others and needs no numbers."""
    template: str
    text: str
    at: datetime
    state: str = "sent"
    code: str = ""
    done_at: datetime | None = None


@dataclass(slots=True)
class Manners:
    """How receipts come from now on, when told to: after how long, how often each, or never."""

    delay: timedelta
    times: int = 1
    never: bool = False


class SmsCarrier(ABC):
    """`templates`: code → approved text; empty: any well-formed code is approved."""

    name = ""
    dead_code = ""
    delivered_code = ""

    def __init__(
        self,
        clock: Clock,
        agenda: Agenda,
        journal: Journal,
        client: Wires,
        *,
        templates: Mapping[str, str],
        receipts_url: str | None,
        receipt_delay: timedelta,
        receipt_grid: timedelta,
    ) -> None:
        self._clock = clock
        self._agenda = agenda
        self._journal = journal
        self._templates = templates
        self._grid = receipt_grid
        self._client = client
        self._sent: dict[tuple[str, ...], deque[datetime]] = {}
        self._receipts: dict[datetime, list[tuple[Message, str]]] = {}
        self.manners = Manners(receipt_delay)
        self.receipts_url = receipts_url
        self.weather = Weather(clock)
        self.messages: list[Message] = []
        self._to: dict[str, list[Message]] = {}
        self.refused: dict[str, int] = {}
        self.forbidden: frozenset[str] = frozenset()
        """Words that it carries for nobody. Which they are carriers do not publish: a script names some."""
        self.asked = 0
        """Questions about what was sent."""
        self.receipts_pushed = 0
        self.receipts_given_up = 0
        self.throttled_until: datetime | None = None
        self._remember()

    async def handle(self, request: Request) -> Reply:
        """One call, in whatever weather."""
        outage = self.weather.meet()
        if outage is Outage.REFUSE:
            return self._unavailable(503)
        if outage is Outage.HANG:
            await asyncio.sleep(HANG)
            return self._unavailable(504)
        if outage is Outage.SLOW:
            await asyncio.sleep(SLOW)
        reply = self._answer(request)
        if outage is Outage.SWALLOW:
            await asyncio.sleep(HANG)
        return self._unavailable(502) if outage is Outage.LOSE else reply

    @abstractmethod
    def _answer(self, request: Request) -> Reply:
        """In its own wire form."""

    @abstractmethod
    def _unavailable(self, status: int) -> Reply:
        """What it says in bad weather, in its own wire form."""

    @abstractmethod
    def _receipt(self, message: Message, number: str, now: datetime) -> dict[str, Any]:
        """As it is pushed."""

    @abstractmethod
    def _thanked(self, answer: Mapping[str, Any]) -> bool:
        """Whether that is what it wants to hear."""

    def throttle(self, seconds: float) -> None:
        self.throttled_until = self._clock.now() + timedelta(seconds=seconds)

    @property
    def throttled(self) -> bool:
        return self.throttled_until is not None and self._clock.now() < self.throttled_until

    def waiting_for_receipt(self) -> int:
        return sum(map(len, self._receipts.values()))

    # Limits for a number

    def _within(self, key: tuple[str, ...], window: timedelta, most: int) -> bool:
        """Whether one more of this kind fits into a window that slides: what is exactly that old is out of it."""
        now, recent = self._clock.now(), self._sent.get(key)
        while recent and recent[0] <= now - window:
            recent.popleft()
        return recent is None or len(recent) < most

    def _count(self, *keys: tuple[str, ...]) -> None:
        for key in keys:
            self._sent.setdefault(key, deque()).append(self._clock.now())

    # The book

    def _take(self, number: str, template: str, text: str, reference: str, biz_id: str) -> Message:
        now = self._clock.now()
        message = Message(biz_id, reference, hashed(number), template, text, now)
        self._enter(message)
        self._journal.append(
            {
                "did": "send",
                "biz_id": message.biz_id,
                "out_id": message.out_id,
                "to": message.to,
                "template": template,
                "text": text,
                "at": now.isoformat(),
            }
        )
        if not number.startswith(SILENT_PREFIX) and not self.manners.never:
            self._plan_receipt(message, number)
        return message

    def _enter(self, message: Message) -> None:
        self.messages.append(message)
        self._to.setdefault(message.to, []).append(message)

    def _went_to(self, number: str) -> Sequence[Message]:
        """What it took for this number, oldest first."""
        return self._to.get(hashed(number), ())

    def _remember(self) -> None:
        """The book of earlier runs. Receipts still owed are lost: numbers are not kept."""
        by_biz_id: dict[str, Message] = {}
        for entry in self._journal.entries():
            if entry["did"] == "send":
                message = Message(
                    entry["biz_id"],
                    entry["out_id"],
                    entry["to"],
                    entry["template"],
                    entry["text"],
                    datetime.fromisoformat(entry["at"]),
                )
                by_biz_id[message.biz_id] = message
                self._enter(message)
            else:
                done = by_biz_id[entry["biz_id"]]
                done.state, done.code = entry["state"], entry.get("code", "")
                done.done_at = datetime.fromisoformat(entry["at"]) if "at" in entry else done.at

    # Receipts

    def _plan_receipt(self, message: Message, number: str) -> None:
        due = message.at + self.manners.delay
        if self._grid:
            due += -(due - datetime(1970, 1, 1, tzinfo=UTC)) % self._grid
        batch = self._receipts.get(due)
        if batch is None:
            batch = self._receipts[due] = []
            self._agenda.add(due, lambda: self._push_all(due))
        batch.append((message, number))

    async def _push_all(self, due: datetime) -> None:
        await asyncio.sleep(_GATHERING)
        batch = self._receipts.pop(due)
        for message, number in batch:
            self._settle(message, number)
        for start in range(0, len(batch), _BATCH):
            for _ in range(self.manners.times):
                await self._push(batch[start : start + _BATCH], 0)

    def _settle(self, message: Message, number: str) -> None:
        """Its end is known, whether anybody is told or asks."""
        dead = number.startswith(DEAD_PREFIX)
        message.state = "undelivered" if dead else "delivered"
        message.code = self.dead_code if dead else self.delivered_code
        message.done_at = self._clock.now()
        self._journal.append(
            {
                "did": "receipt",
                "biz_id": message.biz_id,
                "state": message.state,
                "code": message.code,
                "at": message.done_at.isoformat(),
            }
        )

    async def _push(self, batch: list[tuple[Message, str]], attempt: int) -> None:
        if (until := self.weather.until) is not None:
            self._agenda.add(until, lambda: self._push(batch, attempt))
            return
        now = self._clock.now()
        if await self._post([self._receipt(message, number, now) for message, number in batch]):
            self.receipts_pushed += len(batch)
        elif attempt < len(_REPEATS):
            self._agenda.add(self._clock.now() + _REPEATS[attempt], lambda: self._push(batch, attempt + 1))
        else:
            self.receipts_given_up += len(batch)

    async def _post(self, content: list[dict[str, Any]]) -> bool:
        if self.receipts_url is None:
            return False
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            answer = await self._client.request(
                "POST", self.receipts_url, {"Content-Type": "application/json"}, body, _PATIENCE
            )
            return answer.status == 200 and self._thanked(json.loads(answer.body))
        except (NoAnswer, ValueError, AttributeError):
            return False

    def _refusing(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What came of a call; a refusal is counted."""
        try:
            return work()
        except Refusal as refusal:
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
            raise


def hashed(number: str) -> str:
    return hashlib.sha256(number.encode()).hexdigest()


def pieces(text: str) -> int:
    """70 characters are one message; longer ones are cut into pieces of 67."""
    return 1 if len(text) <= 70 else -(-len(text) // 67)

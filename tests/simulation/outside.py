"""Carriers, simulated: messages and receipts.

They keep books of their own and never look into ours. They speak our ports, not the wire: what the wire can do wrong is tested
where it is spoken (tests/service/notification/test_aliyun.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast

from services.notification.ports import Accepted, NoAnswer, Pushed, Receipt, Rejected, Sent
from tests.simulation.chance import Chance
from tests.simulation.gateway import Manners
from tests.simulation.lives import at_gate

Now = Callable[[], datetime]
Later = Callable[[datetime, str, Callable[[], Any]], None]


@dataclass
class SimulatedCarriers:
    """Sms and Mail before carriers that take, refuse, stay silent, and send receipts for SMS."""

    name: ClassVar[str] = "aliyun"
    signature: ClassVar[str] = "【本地模拟考点】"
    shows_after: ClassVar[timedelta] = timedelta(0)
    lists_all: ClassVar[bool] = True
    by_serial: ClassVar[bool] = False
    thanks: ClassVar[Mapping[str, object]] = {"code": 0}
    now: Now
    chance: Chance = field(default_factory=lambda: Chance(0))
    manners: Manners = field(default_factory=Manners)
    later: Later = lambda _at, _what, _do: None
    push: Callable[[list[dict[str, Any]]], Any] = lambda _receipts: None
    taken: Counter[str] = field(default_factory=Counter)
    """Our reference → copies that a carrier really took."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Our reference → copies of which the sender never learned, or died before it wrote down what it had learned."""
    _under_way: list[str] = field(default_factory=list)
    _receipts: dict[datetime, list[dict[str, Any]]] = field(default_factory=dict)

    def begin(self, chance: Chance, manners: Manners) -> None:
        self.chance, self.manners = chance, manners
        self._receipts.clear()
        self.taken.clear()
        self.unknown.clear()
        self.next_action()

    def begin_calm(self) -> None:
        """Nothing goes wrong any more."""
        self.manners = Manners()

    def next_action(self) -> None:
        """Whoever sent has written down what came of it, or has died."""
        self._under_way.clear()

    def not_written_down(self) -> None:
        """What left in this action may be sent again."""
        self.unknown.update(self._under_way)
        self._under_way.clear()

    async def send(self, *words: Any) -> Accepted:
        """Both ports: the reference comes last, an SMS has five words and a mail four."""
        await at_gate()
        reference, sms = str(words[-1]), len(words) == 5
        if self.chance.happens("carrier away", self.manners.away):
            raise NoAnswer("simulated", maybe_accepted=False)
        if self.chance.happens("carrier busy", self.manners.busy):
            raise Rejected("isv.BUSINESS_LIMIT_CONTROL", permanent=False)
        self.taken[reference] += 1
        if sms:
            dead = self.chance.happens("number out of service", self.manners.dead)
            self._report(reference, dead)
        if self.chance.happens("carrier's answer lost", self.manners.unheard):
            self.unknown[reference] += 1
            raise NoAnswer("simulated", maybe_accepted=True)
        self._under_way.append(reference)
        return Accepted(f"biz-{reference}")

    async def find(self, to: str, since: datetime, reference: str) -> Sent | None:
        """Only a restore makes anybody ask."""
        del to, since
        await at_gate()
        return Sent(None, "") if self.taken[reference] else None

    async def pull(self) -> None:
        """It keeps no receipts."""
        return

    def _report(self, reference: str, dead: bool) -> None:
        """A carrier pushes the receipts of one moment together."""
        at = self.now() + timedelta(seconds=2)
        if at not in self._receipts:
            self.later(at, "receipt", lambda: self._push(at))
        self._receipts.setdefault(at, []).append(
            {
                "reference": reference,
                "delivered": not dead,
                "code": "MOBILE_NOT_ON_SERVICE" if dead else "DELIVERED",
            }
        )

    async def _push(self, at: datetime) -> None:
        await self.push(self._receipts.pop(at))

    def parse_receipts(self, raw: bytes) -> Pushed:
        at = self.now()
        return Pushed(
            [
                Receipt(one["reference"], f"biz-{one['reference']}", one["delivered"], one["code"], at)
                for one in cast("Sequence[dict[str, Any]]", json.loads(raw))
            ]
        )

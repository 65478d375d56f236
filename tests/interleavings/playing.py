"""A batch: many registrations side by side, each with a story of its own, under one clock and one office.

The batch's number decides everything that happens in it, down to which of two transactions runs its next statement.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from contracts import confirmation
from contracts.envelope import Envelope
from contracts.event import Event
from contracts.reasons import ReasonCode
from services.payment.domain.decision import Kind, Word
from services.payment.handlers import approvals, closing
from services.payment.handlers.deciding import Wanted
from services.payment.repository import closing as closing_rows
from tests.interleavings.judging import Judge
from tests.interleavings.stories import LI, SECOND, WANG, Candidate, Do, Stories
from tests.interleavings.town import ALIPAY, WECHAT, Town
from tests.simulation.lives import Doing

SIZE: Final = 200
TOGETHER: Final = 0.12
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
# What people do, and how likely each is: with a code in hand, without one, and once it is over.
_WITH_A_CODE: Final = {
    "order by wechat": 3,
    "order by alipay": 3,
    "open a code": 1,
    "pay": 9,
    "pay another amount": 1,
    "notice": 3,
    "refund notice": 1,
    "query": 2,
    "check my payment": 2,
}
_WITHOUT: Final = {
    "order by wechat": 6,
    "order by alipay": 6,
    "pay": 1,
    "notice": 5,
    "refund notice": 1,
    "check my payment": 1,
    "revive": 1,
}
_AFTERWARDS: Final = {
    "order by alipay": 1,
    "order by wechat": 1,
    "pay": 8,
    "notice": 5,
    "refund notice": 2,
    "query": 2,
    "check my payment": 3,
    "revive": 3,
}


class Turn(NamedTuple):
    """Something that happens at a tick, and whom it is about."""

    what: str
    play: Do
    candidate: Candidate | None = None


@dataclass
class Batch:
    town: Town
    number: int
    size: int = SIZE
    reached: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"batch {self.number}")
        first = self.number * self.size
        self.candidates = [self._candidate(first + place) for place in range(self.size)]
        self.stories = Stories(self.town, self.reached)
        self.judge = Judge(self.town, self.candidates, self.reached)
        self.closes = self.town.cycle.windows.payment.closes
        self.later = self.closes + self.chance.choice((timedelta(hours=2), _DAY))
        self.earlier = self.closes - self.chance.choice((30, 60)) * _MINUTE
        self._asked: list[UUID] = []
        self._landed: dict[str, dict[UUID, Do]] = {}

    def _candidate(self, number: int) -> Candidate:
        chance = random.Random(f"run {number}")
        sites = [site.id for site in self.town.cycle.sites]
        registration_id = UUID(int=chance.getrandbits(128), version=4)
        return Candidate(
            number,
            registration_id,
            chance.choice(sites),
            chance,
            self.town.cycle.windows.payment.closes,
            notice_lost=chance.random() < 0.2,
        )

    async def play(self) -> None:
        """To the end. Raises Violation."""
        ticks = self._ticks()
        await self.town.begin(ticks[0], self.chance.choice((10, 1000)))
        for gateway in (self.town.wechat, self.town.alipay):
            gateway.reached = self.reached
        await self._approve()
        for moment in ticks:
            self.town.move_to(moment)
            if moment in (self.closes, self.later) and self.chance.random() < 0.85:
                await self._close_by_hand()
            else:
                await self._tick()
            await self.judge.look()
        await self._come_to_rest()
        await self.judge.judge()

    def _ticks(self) -> Sequence[datetime]:
        instant = timedelta(microseconds=1)
        midnight = self.closes.replace(microsecond=0) + 4 * _DAY
        found = {self.closes - minutes * _MINUTE for minutes in (150, 125, 100)}
        for close in (self.earlier, self.closes, self.later, midnight, midnight + _DAY):
            found |= {close - 4 * _MINUTE, close - SECOND, close, close + SECOND}
        found |= {self.closes - 119 * SECOND, self.closes - instant}
        found |= {close + minutes * _MINUTE for close in (self.closes, self.later) for minutes in (6, 70)}
        return sorted(found)

    async def _approve(self) -> None:
        events = [
            _heard(
                confirmation.Approved(
                    cycle_id=self.town.cycle.id,
                    registration_id=one.registration_id,
                    site_id=one.site,
                    level="junior",
                    subjects=(1, 2, 3, 4),
                    specialty_code="203",
                )
            )
            for one in self.candidates
        ]
        async with self.town.database.unit_of_work() as uow:
            await approvals.open_obligations(uow, events, cycle=self.town.cycle, close_again=lambda: None)

    # One moment

    async def _tick(self) -> None:
        turns = [*self._of_candidates(), *self._of_office()]
        self.chance.shuffle(turns)
        while turns:
            turn = turns.pop()
            if turn.what == "pay" and turn.candidate is not None and self.chance.random() < 0.2:
                await turn.play()
                await self._heard_of_at_once(turn.candidate)
                continue
            if not turns or self.chance.random() > TOGETHER:
                await turn.play()
                continue
            company = [turns.pop()]
            if turn.candidate is not None and self.chance.random() < 0.6:
                # Two things that are about the same rows.
                company = [self._one_of(turn.candidate)]
            if turns and self.chance.random() < 0.4:
                company.append(turns.pop())
            await self._together(turn.play, [one.play for one in company])

    def _of_candidates(self) -> list[Turn]:
        now = self.town.now
        found = [
            self._one_of(one) for one in self.candidates if one.chance.random() < _odds(one.closes_at - now)
        ]
        rejected = [one for one in self.candidates if not one.rejected and one.chance.random() < 0.003]
        if rejected:
            found.append(Turn("reject", partial(self._reject, rejected)))
        return found

    def _one_of(self, candidate: Candidate) -> Turn:
        events = _AFTERWARDS
        if self.town.now < candidate.closes_at:
            unpaid = [number for number in candidate.orders if not self.stories.is_paid(number)]
            events = _WITH_A_CODE if unpaid else _WITHOUT
        what = candidate.chance.choices(list(events), list(events.values()))[0]
        return Turn(what, self.stories.events(candidate)[what], candidate)

    def _of_office(self) -> list[Turn]:
        town, chance = self.town, self.chance
        may: tuple[tuple[float, str, Callable[[], Awaitable[object]]], ...] = (
            (0.4, "close job", town.turns.close_window),
            (0.2, "decide", lambda: closing.decide_open_orders(town.gateways, town.now)),
            (0.3, "sweep", self._sweep),
            (0.3, "settle job", lambda: town.turns.settle_orders(lambda: None)),
            (0.3, "refund job", lambda: self.stories.job("refund", town.turns.refund)),
            (0.4, "carry out", self.stories.carry_out),
            (0.12, "ask", self._ask),
            (0.4, "say", self._say),
            (0.3, "weather", self._weather),
        )
        return [
            Turn(what, partial(self._counted, what, play))
            for odds, what, play in may
            if chance.random() < odds
        ]

    async def _counted(self, what: str, play: Callable[[], Awaitable[object]]) -> None:
        self.reached[what] += 1
        await play()

    async def _together(self, first: Do, others: Sequence[Do]) -> None:
        """Statement by statement, as chance says."""
        waiting = [Doing(play, number) for number, play in enumerate(others, start=1)]
        interleaver = self.town.interleaver
        before = interleaver.met
        await interleaver.together(
            self.chance.randrange,
            Doing(first, 0),
            lambda: waiting.pop() if waiting else None,
            between=_nothing,
        )
        self.reached["several at once"] += 1
        self.reached["one waited for the other's row"] += interleaver.met - before
        for left in waiting:
            await left.run()

    async def _heard_of_at_once(self, candidate: Candidate) -> None:
        """A payment's callback, a query, and what else is about the same rows: all at the same moment."""
        events, chance = self.stories.events(candidate), candidate.chance
        first = events[chance.choice(("query", "query", "check my payment", "notice"))]
        others = [
            events[what]
            for what in ("notice", "query", "check my payment", "order by wechat", "order by alipay")
        ]
        others.append(self._sweep)
        if chance.random() < 0.3 and not candidate.rejected:
            others.append(partial(self._reject, [candidate]))
        self.stories.note(candidate, "heard of at once in several ways")
        await self._together(first, chance.sample(others, chance.choice((1, 2, 3))))

    async def _reject(self, candidates: Sequence[Candidate]) -> None:
        for one in candidates:
            one.rejected = True
            self.stories.note(one, "rejected")
        events = [
            _heard(
                confirmation.Rejected(
                    cycle_id=self.town.cycle.id,
                    registration_id=one.registration_id,
                    level="site",
                    reason_codes=(ReasonCode.EDUCATION,),
                )
            )
            for one in candidates
        ]
        async with self.town.database.unit_of_work() as uow:
            await approvals.cancel_rejected(uow, events, ask_gateway=lambda: None, refund_soon=lambda: None)

    async def _sweep(self, chunk: int = 50) -> None:
        """Also before the close: then it must find nobody. In small chunks others come in between."""
        swept = await closing.sweep(self.town.database, self.town.cycle, self.town.now, chunk=chunk)
        self.reached["forfeited"] += swept

    async def _weather(self) -> None:
        """Gateways come and go; refunds take their time, are refused, or come back from a dead account."""
        gateway = self.town.gateway(self.chance.choice((WECHAT, ALIPAY)))
        match self.chance.randrange(8):
            case 0 | 1 if not gateway.away:
                gateway.away = True
                self.reached[f"{gateway.name} away"] += 1
            case 0 | 1 | 2:
                gateway.away = False
            case 3:
                gateway.unheard = 3
            case 4:
                gateway.refunds.takes = timedelta(minutes=self.chance.choice((0, 30)))
            case 5:
                gateway.refunds.abnormal += 1
                self.reached["a refund will come back from a dead account"] += 1
            case 6:
                gateway.opened = 3
            case _:
                gateway.refunds.refusing.append(self.chance.choice(("NOT_ENOUGH", "INVALID_REQUEST")))

    async def _ask(self) -> None:
        town, chance = self.town, self.chance
        is_early = town.now < self.earlier
        closes_at = self.earlier if is_early and chance.random() < 0.5 else self.later
        site = chance.choice(self.candidates).site if chance.random() < 0.5 else None
        wanted = Wanted(Kind.EXTEND_PAYMENT, "系统故障", closes_at=closes_at, site_id=site)
        decision = await self.stories.ask(wanted)
        if decision is not None:
            self._asked.append(decision)

    async def _say(self) -> None:
        if not self._asked:
            return
        decision = self.chance.choice(self._asked)
        if self.chance.random() < 0.2:
            await self.stories.say(decision, Word.APPROVED, LI)
        word = Word.REJECTED if self.chance.random() < 0.25 else Word.APPROVED
        if await self.stories.say(decision, word, WANG):
            self._asked.remove(decision)

    # Row 42: a payment lands between our query and our `expired`

    async def _close_by_hand(self) -> None:
        """The close, step by step; some gateways' answers are old ones, and what is true comes in between."""
        town = self.town
        town.wechat.away = town.alipay.away = False
        for one in self.candidates:
            unpaid = [number for number in one.orders if not self.stories.is_paid(number)]
            if unpaid and not one.notice_lost and one.chance.random() < 0.8:
                number = unpaid[-1]
                town.gateway_of(number).behind[number] = partial(self._lands, one)
        await closing.decide_open_orders(town.gateways, town.now)
        await self._come("between query and sweep")
        # In the order in which the sweep comes by.
        during = [tell for _, tell in sorted(self._landed.pop("during the sweep", {}).items())]
        async with town.database.reading(town.now) as uow:
            due = await closing_rows.count_due(uow)
        # As many chunks as landings: so they meet at the same rows.
        await self._together(partial(self._sweep, max(due // max(len(during), 1), 1)), during[::-1])
        await self._come("after the sweep")
        for gateway in (town.wechat, town.alipay):
            gateway.behind.clear()  # nobody asked about these

    async def _lands(self, candidate: Candidate, number: str) -> None:
        gateway = self.town.gateway_of(number)
        when, late = candidate.closes_at, candidate.chance.random() < 0.2
        if late:
            # Gateways take a payment that had begun before the end of its order.
            when += candidate.chance.choice((0, 1, 5)) * SECOND
            gateway.prolong(number, when + SECOND)
        else:
            when = min(self.town.now, when) - SECOND
        if not self.stories.is_paid(number) and gateway.pay_before(number, when) is None:
            return
        candidate.behind.add(number)
        stage = candidate.chance.choice(
            (
                "before our answer",
                "between query and sweep",
                "during the sweep",
                "during the sweep",
                "after the sweep",
            )
        )
        self.stories.note(candidate, f"a payment lands {stage}{', too late' if late else ''}")
        tell: Do = partial(self.stories.tell, candidate, number, "landed")
        if stage == "during the sweep" and candidate.chance.random() < 0.5:
            # Found by a question of the candidate's: that takes several statements, and holds the row for all of them.
            tell = self.stories.events(candidate)["check my payment"]
        if stage == "before our answer":
            await tell()
        else:
            self._landed.setdefault(stage, {})[candidate.registration_id] = tell

    async def _come(self, stage: str) -> None:
        for tell in self._landed.pop(stage, {}).values():
            await tell()

    # The end

    async def _come_to_rest(self) -> None:
        """The gateways are there, every callback that is not lost has come, every job has run until nothing is due."""
        town = self.town
        for gateway in (town.wechat, town.alipay):
            gateway.forget()
            gateway.settle_accounts()
        for one in self.candidates:
            for number in one.foreign:
                found = town.gateway_of(number).book.find(number)
                if found is not None:
                    found.currency = "CNY"  # the gateway has set it right
            for number in one.orders:
                if self.stories.is_paid(number) and (not one.notice_lost or number in one.foreign):
                    await self.stories.tell(one, number)
        for _ in range(10):
            await town.turns.settle_orders(lambda: None)
            await town.turns.carry_out(lambda: None)
            await town.turns.close_window()
            await town.turns.refund()
            town.move_to(town.now + _DAY)


async def _nothing() -> None: ...


def _odds(left: timedelta) -> float:
    """How likely somebody does something now, so long before the close: most come at the end."""
    if left <= timedelta(0):
        return 0.25 if left > -timedelta(minutes=10) else 0.06
    return 0.6 if timedelta(minutes=3) < left < timedelta(minutes=5) else 0.3


EventT = TypeVar("EventT", bound=Event)


def _heard(event: EventT) -> EventT:
    """As it comes to a handler."""
    event.carried_by(
        Envelope(
            event_id=uuid7(),
            type=event.type,
            source=event.source,
            subject=event.key,
            time=datetime(2024, 1, 1, tzinfo=UTC),
            dataschema=event.dataschema(),
            sequence=1,
            correlation_id=str(uuid7()),
        )
    )
    return event

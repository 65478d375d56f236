"""What a candidate, the gateways and two people of the office may do about one registration; counted by what came of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from contracts.refusals import Refused
from deploy.simulators.order_book import Refusal, TradeState
from services.chassis.tokens import Actor
from services.payment.domain.decision import Kind, Word
from services.payment.domain.order import UNDECIDED
from services.payment.domain.refusals import PaymentRuleBroken
from services.payment.handlers import checking, deciding, ordering, receiving
from services.payment.handlers.deciding import Wanted
from services.payment.handlers.ordering import GatewayRefused
from services.payment.handlers.receiving import Mismatch
from services.payment.ports import OrderState
from services.payment.repository import orders as order_rows
from tests.interleavings.town import ALIPAY, WECHAT, Town

SEALED: Final = {"simulated": "true"}
LI = Actor("office-li", frozenset({"office"}))
WANG = Actor("office-wang", frozenset({"office"}))
SECOND: Final = timedelta(seconds=1)

Do = Callable[[], Awaitable[None]]


@dataclass
class Candidate:
    """One registration: one run."""

    number: int
    registration_id: UUID
    site: str
    chance: random.Random
    closes_at: datetime
    """As last seen."""
    orders: list[str] = field(default_factory=list)
    rejected: bool = False
    notice_lost: bool = False
    """The gateway never calls back: only a query finds what it paid."""
    behind: set[str] = field(default_factory=set)
    """Orders whose gateway once said less than was true, and has not called back since."""
    foreign: set[str] = field(default_factory=set)
    """Orders whose gateway names another currency: a person has to look."""
    log: list[str] = field(default_factory=list)


class Stories:
    """Events by name. Each may be played alone, or statement by statement with others."""

    def __init__(self, town: Town, reached: Counter[str]) -> None:
        self.town, self.reached = town, reached
        self._under_way: set[str] = set()

    async def job(self, name: str, run: Callable[[], Awaitable[object]]) -> None:
        """As a job runs: while one process is at it no other begins."""
        if name in self._under_way:
            self.reached[f"{name}: somebody is at it"] += 1
            return
        self._under_way.add(name)
        try:
            await run()
        finally:
            self._under_way.discard(name)

    async def carry_out(self) -> None:
        await self.job("carry out", lambda: deciding.carry_out(self.town.database, self.town.now))

    def note(self, candidate: Candidate, what: str) -> None:
        self.reached[what] += 1
        candidate.log.append(f"{self.town.now:%m-%d %H:%M:%S} {what}")

    def events(self, candidate: Candidate) -> Mapping[str, Do]:
        """What may happen next to this one."""
        named: dict[str, Callable[[Candidate], Awaitable[None]]] = {
            "order by wechat": self._order_wechat,
            "order by alipay": self._order_alipay,
            "open a code": self._open,
            "pay": self._pay,
            "pay another amount": self._pay_wrongly,
            "notice": self._notice,
            "refund notice": self._refund_notice,
            "query": self._query,
            "check my payment": self._check,
            "revive": self._revive,
        }
        return {name: _bound(event, candidate) for name, event in named.items()}

    # The candidate

    async def _order_wechat(self, candidate: Candidate) -> None:
        await self._order(candidate, WECHAT)

    async def _order_alipay(self, candidate: Candidate) -> None:
        await self._order(candidate, ALIPAY)

    async def _order(self, candidate: Candidate, channel: str) -> None:
        town = self.town
        second = ", the second" if candidate.orders else ""
        try:
            order = await ordering.place_order(
                town.gateways, candidate.registration_id, channel, ask_at=lambda _at: None
            )
        except (PaymentRuleBroken, GatewayRefused) as refusal:
            self.note(candidate, f"order by {channel}: {type(refusal).__name__}")
        else:
            self.note(candidate, f"order by {channel}: made{second}")
            # Only who was given a code can pay it: what a gateway took and nobody heard of is no order of anybody.
            town.given[order.order_no] = channel
            if order.order_no not in candidate.orders:
                candidate.orders.append(order.order_no)
            if channel == WECHAT and candidate.chance.random() < 0.3:
                found = town.wechat.book.find(order.order_no)
                if found is not None:
                    # Gateways take a payment that had begun before the end of its order.
                    found.expires_at += timedelta(seconds=candidate.chance.choice((1, 5, 600)))

    def _book(self, order_no: str) -> Any:
        return self.town.gateway_of(order_no).book

    async def _open(self, candidate: Candidate) -> None:
        if candidate.orders:
            number = candidate.chance.choice(candidate.orders)
            self._book(number).open(number, self.town.now)
            self.note(candidate, "code opened")

    async def _pay(self, candidate: Candidate) -> None:
        if not candidate.orders:
            return
        number = candidate.chance.choice((candidate.orders[-1], candidate.chance.choice(candidate.orders)))
        gateway = self.town.gateway_of(number)
        try:
            gateway.pay(number)
        except Refusal as refusal:
            self.note(candidate, f"pay by {gateway.name}: {refusal.code}")
        else:
            before = any(self.is_paid(one) for one in candidate.orders if one != number)
            self.note(candidate, f"pay by {gateway.name}: {'again' if before else 'taken'}")

    async def _pay_wrongly(self, candidate: Candidate) -> None:
        if not candidate.orders:
            return
        number = candidate.orders[-1]
        gateway, foreign = self.town.gateway_of(number), candidate.chance.random() < 0.3
        try:
            if foreign:
                gateway.pay(number, currency="USD")
                candidate.foreign.add(number)
            else:
                gateway.pay(number, candidate.chance.choice((1, 19_999, 20_001)))
        except Refusal:
            return
        self.note(candidate, "pay another currency" if foreign else "pay another amount")

    def is_paid(self, order_no: str) -> bool:
        found = self._book(order_no).find(order_no)
        return found is not None and found.state is TradeState.SUCCESS

    async def _check(self, candidate: Candidate) -> None:
        actor = Actor(f"account-{candidate.number}", frozenset({"candidate"}))
        try:
            found = await checking.check_now(
                self.town.gateways, candidate.registration_id, actor, decided=lambda: None
            )
        except Refused as refused:
            self.note(candidate, f"check my payment: {refused.code}")
        else:
            self.note(candidate, f"check my payment: {found['outcome']}")

    # The gateways

    async def _notice(self, candidate: Candidate) -> None:
        paid = [one for one in candidate.orders if self.is_paid(one)]
        if paid and not candidate.notice_lost:
            await self.tell(candidate, candidate.chance.choice(paid))

    async def tell(self, candidate: Candidate, number: str, word: str = "notice") -> None:
        """A callback, as it reaches the door behind the signature."""
        town, gateway = self.town, self.town.gateway_of(number)
        try:
            taken = await receiving.take_notice(
                town.database,
                town.till,
                gateway,
                SEALED,
                gateway.notice(number),
                at=town.now,
                cycle=town.cycle,
                vault=town.vault,
                refund_soon=lambda: None,
            )
        except Mismatch as mismatch:
            self.note(candidate, f"{word}: {mismatch.reason}")
        else:
            self.note(candidate, f"{word}: {taken}")
            candidate.behind.discard(number)

    async def _refund_notice(self, candidate: Candidate) -> None:
        """Out of order: before anything was said of a payment, or long after."""
        paid = [one for one in candidate.orders if self.is_paid(one)]
        if not paid:
            return
        town, number = self.town, candidate.chance.choice(paid)
        gateway = town.gateway_of(number)
        heard = await self._is_booked(number)
        taken = await receiving.take_notice(
            town.database,
            town.till,
            gateway,
            SEALED,
            gateway.notice(number, OrderState.REFUNDED),
            at=town.now,
            cycle=town.cycle,
            vault=town.vault,
            refund_soon=lambda: None,
        )
        self.note(candidate, f"refund notice {'after' if heard else 'before'} the payment's: {taken}")

    async def _is_booked(self, number: str) -> bool:
        async with self.town.database.reading() as uow:
            return bool(
                await uow.sql("select 1 from ledger where order_no = $1 and kind = 'received'", number)
            )

    async def _query(self, candidate: Candidate) -> None:
        """As the job asks: what is undecided is closed and asked about."""
        async with self.town.database.reading() as uow:
            tries = await order_rows.of_registration(uow, candidate.registration_id)
        for order in tries:
            if order.status in UNDECIDED:
                outcome = await self.town.gateways.settle(order)
                self.note(candidate, f"query by {order.channel}, {order.status}: {outcome}")

    # The office

    async def _revive(self, candidate: Candidate) -> None:
        """Two people lift one forfeiture; or the second says no, or the first tries to decide alone."""
        wanted = Wanted(Kind.REVIVE, "系统故障", registration_id=candidate.registration_id)
        decision = await self.ask(wanted, candidate)
        if decision is None:
            return
        choice = candidate.chance.random()
        if choice < 0.15:
            await self.say(decision, Word.APPROVED, LI, candidate)
        word = Word.REJECTED if choice > 0.85 else Word.APPROVED
        await self.say(decision, word, WANG, candidate)
        if choice < 0.6:
            await self.carry_out()

    async def ask(self, wanted: Wanted, candidate: Candidate | None = None) -> UUID | None:
        """The first person's word; None if a rule refuses."""
        town = self.town
        where = "all" if wanted.site_id is None else "a desk"
        what = "revival" if wanted.kind is Kind.REVIVE else f"close of {where}"
        try:
            async with town.database.unit_of_work() as uow:
                facts = await deciding.ask(uow, actor=LI, wanted=wanted, cycle=town.cycle, vault=town.vault)
        except PaymentRuleBroken as refusal:
            self._said(candidate, f"{what} asked for: {type(refusal).__name__}")
            return None
        self._said(candidate, f"{'earlier ' if facts['earlier'] else ''}{what} asked for")
        return UUID(facts["decision_id"])

    async def say(self, decision: UUID, word: Word, by: Actor, candidate: Candidate | None = None) -> bool:
        town = self.town
        try:
            async with town.database.unit_of_work() as uow:
                facts = await deciding.decide(
                    uow,
                    actor=by,
                    decision_id=decision,
                    word=word,
                    note=None,
                    cycle=town.cycle,
                    vault=town.vault,
                    decided=lambda: None,
                )
        except PaymentRuleBroken as refusal:
            self._said(candidate, f"decision: {type(refusal).__name__}")
            return False
        earlier = "earlier " if facts["earlier"] else ""
        self._said(candidate, f"{earlier}{facts['kind']} {word}")
        return True

    def _said(self, candidate: Candidate | None, what: str) -> None:
        if candidate is None:
            self.reached[what] += 1
        else:
            self.note(candidate, what)


def _bound(event: Callable[[Candidate], Awaitable[None]], candidate: Candidate) -> Do:
    async def play() -> None:
        await event(candidate)

    return play

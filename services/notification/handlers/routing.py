"""Before an SMS leaves: which carrier gets it, and whether its number and the day's budget have room for it.

What has no room waits: it is not sent, not given up, and never counted as sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from prometheus_client import Counter, Gauge

from services.chassis.db import Database, UnitOfWork
from services.notification.domain.life import RUNS_OUT_AFTER
from services.notification.domain.limits import DAY, Budget, Leaving, NumberLimits, Windows, start_of_day
from services.notification.domain.providers import PROBES, PROBING, Circuit, Health, Turns, order_of_choice
from services.notification.handlers.outgoing import Channel, Outgoing
from services.notification.handlers.scoreboard import Scoreboard
from services.notification.repository import limits, providers

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 5000
HELD: Final = Counter("kaowu_sms_held", "SMS that had to wait before they left, by what for", ["why"])
SPENT: Final = Gauge("kaowu_sms_parts_today", "Parts of SMS that left today")
CAP: Final = Gauge("kaowu_sms_parts_cap", "Parts of SMS that may leave in a day; 0: any number")


async def forget_what_left(database: Database) -> datetime | None:
    """What no window reaches any more; a receipt that is nobody's by now. When to go on, if there is more."""
    async with database.unit_of_work() as uow:
        more = await limits.forget(uow, _AT_ONCE) == _AT_ONCE
        await providers.forget_early(uow, uow.at - RUNS_OUT_AFTER)
        return uow.at if more else None


class Routing:
    """For every SMS of a batch one of: this carrier now, or not before then."""

    def __init__(
        self,
        channel: Channel,
        scoreboard: Scoreboard,
        *,
        of_numbers: Mapping[str, NumberLimits],
        parts_a_day: int | None,
        zone: ZoneInfo,
    ) -> None:
        self._channel, self._scoreboard = channel, scoreboard
        self._of_numbers, self._parts_a_day, self._zone = of_numbers, parts_a_day, zone
        self._turns = Turns()
        self._alarmed: datetime | None = None
        CAP.set(parts_a_day or 0)

    async def route(
        self, uow: UnitOfWork, batch: Sequence[Outgoing]
    ) -> tuple[list[Outgoing], datetime | None]:
        """Those that leave now, each with its carrier; the others come due when they may.

        With them, if no carrier takes anything now: when one may again. What waits for that is left as it is.
        """
        sendable = [one for one in batch if one.address is not None]
        going = [one for one in batch if one.address is None]
        if not sendable:
            return going, None
        health = await self._scoreboard.health(uow)
        closed = not any(one.share_now for one in health)
        health, probes = await self._probing(uow, sendable, health, closed=closed)
        windows = Windows(
            self._of_numbers, await limits.lately(uow, list({one.number for one in sendable})), self._zone
        )
        today = start_of_day(uow.at, self._zone)
        day = today.astimezone(self._zone).date()
        budget = Budget(self._parts_a_day, await limits.spent(uow, day))
        before = budget.spent
        leaving: list[tuple[UUID, Leaving]] = []
        held: list[tuple[UUID, datetime]] = []
        for one in sendable:
            probe = probes.get(one.message_id)
            if closed and probe is None and not self._is_bound(one):
                continue
            if not budget.allows(one.parts, one.priority):
                self._alarm(budget, uow.at, today)
                HELD.labels("budget").inc()
                held.append((one.message_id, start_of_day(today + DAY, self._zone)))
                continue
            way, until = self._choose(one, health, windows, uow.at, probe)
            if way is None:
                held.append((one.message_id, until))
                continue
            windows.leave(way)
            budget.spend(one.parts)
            leaving.append((one.message_id, way))
            going.append(one if one.provider == way.provider else replace(one, provider=way.provider))
        await limits.hold(uow, held)
        await limits.leave(uow, leaving)
        await limits.spend(uow, day, budget.spent - before)
        SPENT.set(budget.spent)
        return going, min(one.free_at(uow.at) for one in health) if closed else None

    async def stayed(self, uow: UnitOfWork, batch: Sequence[Outgoing]) -> None:
        """These surely were not taken: they count for no limit and cost nothing."""
        await limits.stayed(uow, [(one.message_id, one.number, one.at) for one in batch if one.number])
        cost: dict[datetime, int] = {}
        for one in batch:
            day = start_of_day(one.at, self._zone)
            cost[day] = cost.get(day, 0) + one.parts
        for day in sorted(cost):
            await limits.spend(uow, day.astimezone(self._zone).date(), -cost[day])

    async def _probing(
        self, uow: UnitOfWork, sendable: Sequence[Outgoing], health: Sequence[Health], *, closed: bool
    ) -> tuple[list[Health], dict[UUID, str]]:
        """Which messages try a fallen carrier whose pause is over, if this process is the one to do so. And the carriers again.

        First those that must ask it anyway; then the least urgent, as an answer that does not come delays them.
        """
        waiting = [
            one.name for one in health if one.configured > 0 and one.circuit(uow.at) is Circuit.WAITING
        ]
        probes: dict[UUID, str] = {}
        for name in waiting:
            asking = [one for one in sendable if one.had_by == name and self._is_bound(one)]
            able = [
                one
                for one in reversed(sendable)
                if not self._is_bound(one)
                and self._carries(name, one)
                and one.message_id not in probes
                and (closed or one.had_by != name)
            ]
            probes |= {one.message_id: name for one in [*asking, *able][:PROBES]}
        if not probes:
            return list(health), {}
        names = sorted(set(probes.values()))
        mine = await self._scoreboard.probe(uow, names)
        # One that is not ours to try is tried by somebody else.
        paused = [replace(one, paused_until=uow.at + PROBING) if one.name in names else one for one in health]
        return paused, {message_id: name for message_id, name in probes.items() if name in mine}

    def _is_bound(self, one: Outgoing) -> bool:
        """A carrier may have it already: nobody else gets the message before that one has said."""
        return one.ask_since is not None and one.had_by in self._channel.providers

    def _carries(self, name: str, one: Outgoing) -> bool:
        """Whether this carrier has approved the text."""
        return name == self._channel.first.name or name in one.text.codes

    def _choose(
        self,
        one: Outgoing,
        health: Sequence[Health],
        windows: Windows,
        at: datetime,
        probe: str | None,
    ) -> tuple[Leaving | None, datetime]:
        """The first carrier whose turn it is and that has room for this number; without one, when there is."""
        if self._is_bound(one):
            had_by = next(known for known in health if known.name == one.had_by)
            if had_by.share_now or probe or had_by.configured == 0:
                return self._way(one, one.had_by, at), at
            HELD.labels("paused").inc()
            return None, had_by.free_at(at)
        able = [known for known in health if self._carries(known.name, one)]
        names = order_of_choice(self._turns, able, one.had_by or None)
        if probe is not None:
            names.insert(0, probe)
        if not names:
            HELD.labels("paused").inc()
            return None, min(known.free_at(at) for known in able)
        moments = []
        for name in names:
            way = self._way(one, name, at)
            moment = windows.free_at(way)
            if moment <= at:
                return way, at
            moments.append(moment)
        HELD.labels("number").inc()
        return None, min(moments)

    @staticmethod
    def _way(one: Outgoing, provider: str, at: datetime) -> Leaving:
        text = hashlib.blake2b(one.text.body.encode(), digest_size=16).digest()
        return Leaving(provider, one.number, one.text.template, text, at)

    def _alarm(self, budget: Budget, at: datetime, today: datetime) -> None:
        """Once a day and process: somebody must decide whether more may be spent."""
        if self._alarmed != today:
            self._alarmed = today
            log.error("sms-budget-spent", parts=budget.spent, cap=budget.cap, at=at.isoformat())

"""What this process has seen of each carrier of SMS, and what all processes make of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from services.chassis.db import UnitOfWork
from services.notification.domain.providers import Health, Tally, shares_of
from services.notification.repository import providers

log = structlog.get_logger(__name__)

WINDOW: Final = timedelta(seconds=30)  # tries that are judged together
WRITTEN_EVERY: Final = timedelta(seconds=10)  # what is well need not be written down at once
OUTCOMES: Final = Counter("kaowu_sms_tries", "Tries at each carrier of SMS", ["provider", "outcome"])
SHARE: Final = Gauge("kaowu_sms_share", "Per cent of the SMS that a carrier gets now", ["provider"])
FALLS: Final = Counter(
    "kaowu_sms_falls", "How often a carrier's share was cut because it failed", ["provider"]
)


class Scoreboard:
    """Shared verdicts, own evidence: written when something failed, else now and then."""

    def __init__(self, configured: Mapping[str, float]) -> None:
        self._configured = dict(configured)
        self._seen: dict[str, deque[tuple[datetime, Tally]]] = {name: deque() for name in configured}
        self._unwritten: dict[str, Tally] = {}
        self._why: dict[str, str] = {}
        self._written_at: datetime | None = None

    @property
    def several(self) -> bool:
        """Whether there is anybody else to give a message to."""
        return len(self._configured) > 1

    def note(
        self, name: str, at: datetime, *, failed: bool = False, slow: bool = False, why: str = ""
    ) -> None:
        """One try."""
        tally = Tally(1, int(failed), int(slow and not failed))
        self._seen[name].append((at, tally))
        self._unwritten[name] = self._unwritten.get(name, Tally()) + tally
        if why:
            self._why[name] = why
        OUTCOMES.labels(name, "failed" if failed else "slow" if slow else "answered").inc()

    async def health(self, uow: UnitOfWork) -> list[Health]:
        """Every carrier as all processes know it."""
        health = shares_of(self._configured, await providers.known(uow))
        for one in health:
            SHARE.labels(one.name).set(one.share_at(uow.at))
        return health

    async def write(self, uow: UnitOfWork) -> None:
        """Tell the others what was seen, and judge by it."""
        if not self._due(uow.at):
            return
        tallies, self._unwritten, self._written_at = self._unwritten, {}, uow.at
        await providers.count(uow, tallies, self._configured)
        if not self.several:
            return
        changed = []
        for known in shares_of(self._configured, await providers.locked(uow, sorted(tallies))):
            if (
                known.name not in tallies
                or (new := known.judged(self._lately(known.name, uow.at), uow.at)) is None
            ):
                continue
            fell = new.fell_at == uow.at
            changed.append((new, self._why.get(known.name) if fell else None))
            if fell:
                self._seen[known.name].clear()
                FALLS.labels(known.name).inc()
                log.warning(
                    "provider-fell",
                    provider=known.name,
                    share=new.share,
                    paused_until=new.paused_until and new.paused_until.isoformat(),
                    why=self._why.get(known.name),
                )
        await providers.fall(uow, changed)

    def _due(self, at: datetime) -> bool:
        bad = any(tally.failed or tally.slow for tally in self._unwritten.values())
        rested = self._written_at is None or at - self._written_at >= WRITTEN_EVERY
        return bool(self._unwritten) and (bad or rested)

    def _lately(self, name: str, at: datetime) -> Tally:
        seen = self._seen[name]
        while seen and seen[0][0] <= at - WINDOW:
            seen.popleft()
        return sum((tally for _, tally in seen), Tally())

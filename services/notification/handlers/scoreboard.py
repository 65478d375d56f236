"""What this process has seen of each carrier of SMS, and what all processes make of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog
from prometheus_client import Counter, Gauge

from services.chassis.db import UnitOfWork
from services.notification.domain.providers import PROBING, Circuit, Health, Tally, shares_of
from services.notification.repository import providers

log = structlog.get_logger(__name__)

WINDOW: Final = timedelta(seconds=30)  # tries that are judged together
LATEST: Final = 100  # of them at most: one that dies amid thousands that went well falls as soon as any other
WRITTEN_EVERY: Final = timedelta(seconds=10)  # what is well need not be written down at once
OUTCOMES: Final = Counter("kaowu_sms_tries", "Tries at each carrier of SMS", ["provider", "outcome"])
SHARE: Final = Gauge("kaowu_sms_share", "Per cent of the SMS that a carrier gets now", ["provider"])
FALLS: Final = Counter(
    "kaowu_sms_falls", "How often a carrier's share was cut because it failed", ["provider"]
)


class _Try(NamedTuple):
    sent_at: datetime  # when its carrier was chosen
    at: datetime
    tally: Tally


class Scoreboard:
    """Shared verdicts, own evidence: written when something failed or a fallen carrier was tried, else now and then."""

    def __init__(self, configured: Mapping[str, float]) -> None:
        self._configured = dict(configured)
        self._seen: dict[str, deque[_Try]] = {name: deque(maxlen=LATEST) for name in configured}
        self._known: dict[str, Health] = {one.name: one for one in shares_of(configured, [])}
        self._unwritten: dict[str, Tally] = {}
        self._left_alone: set[str] = set()
        self._why: dict[str, str] = {}
        self._written_at: datetime | None = None

    @property
    def several(self) -> bool:
        """Whether there is anybody else to give a message to."""
        return len(self._configured) > 1

    def note(
        self,
        name: str,
        at: datetime,
        *,
        sent_at: datetime,
        failed: bool = False,
        slow: bool = False,
        why: str = "",
    ) -> None:
        """One try, of a message whose carrier was chosen at `sent_at`."""
        tally = Tally(1, int(failed), int(slow and not failed))
        self._seen[name].append(_Try(sent_at, at, tally))
        self._unwritten[name] = self._unwritten.get(name, Tally()) + tally
        if why:
            self._why[name] = why
        OUTCOMES.labels(name, "failed" if failed else "slow" if slow else "answered").inc()

    def leaves_alone(self, name: str, sent_at: datetime, at: datetime) -> bool:
        """Whether what waits since `sent_at` to go there need not try: it fell meanwhile, or all that was just seen failed."""
        if not self.several:
            return False
        known, seen = self._known[name], self._seen[name]
        if known.paused_until is not None and known.since is not None and sent_at <= known.since:
            return True
        if not seen or not seen[-1].tally.failed:
            return False
        found = known.judged(self._lately(known, at), at)
        if found is None or found.circuit(at) is not Circuit.PAUSED:
            return False
        self._left_alone.add(name)
        return True

    async def health(self, uow: UnitOfWork) -> list[Health]:
        """Every carrier as all processes know it."""
        health = shares_of(self._configured, await providers.known(uow))
        self._known = {one.name: one for one in health}
        for one in health:
            SHARE.labels(one.name).set(one.share_now)
        return health

    async def probe(self, uow: UnitOfWork, names: Sequence[str]) -> set[str]:
        """Those of these fallen ones that this process alone tries now. A turn that is not used is over after a while."""
        mine = await providers.probe(uow, names, uow.at + PROBING)
        if mine:
            log.info("provider-probed", providers=sorted(mine))
        return mine

    async def write(self, uow: UnitOfWork) -> None:
        """Tell the others what was seen, and judge by it."""
        if not self._due(uow.at):
            return
        tallies, self._unwritten, self._written_at = self._unwritten, {}, uow.at
        names, self._left_alone = self._left_alone.union(tallies), set()
        await providers.count(uow, tallies, self._configured)
        if not self.several:
            return
        changed = []
        for known in shares_of(self._configured, await providers.locked(uow, sorted(names))):
            if known.name not in names or (new := known.judged(self._lately(known, uow.at), uow.at)) is None:
                continue
            fell = new.fell_at == uow.at
            changed.append((new, self._why.get(known.name) if fell else None))
            self._tell(new, uow.at, fell=fell)
        await providers.change(uow, changed)

    def _tell(self, new: Health, at: datetime, *, fell: bool) -> None:
        name = new.name
        if not fell:
            log.info("provider-rose", provider=name, share=new.share_now, circuit=new.circuit(at))
            return
        FALLS.labels(name).inc()
        log.warning(
            "provider-fell",
            provider=name,
            share=new.share_now,
            paused_until=new.paused_until and new.paused_until.isoformat(),
            why=self._why.get(name),
        )

    def _due(self, at: datetime) -> bool:
        bad = any(tally.failed or tally.slow for tally in self._unwritten.values())
        fallen = any(self._known[name].fell_at is not None for name in self._unwritten)
        rested = self._written_at is None or at - self._written_at >= WRITTEN_EVERY
        return bool(self._left_alone or (self._unwritten and (bad or fallen or rested)))

    def _lately(self, known: Health, at: datetime) -> Tally:
        """What was seen of it lately, of what was sent since it last fell or rose."""
        seen, since = self._seen[known.name], known.since
        while seen and seen[0].at <= at - WINDOW:
            seen.popleft()
        return sum((one.tally for one in seen if since is None or one.sent_at > since), Tally())

"""When payment closes for whom: the cycle's close, and what the office has decided since for each desk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


class AnnouncedWindow(Protocol):
    """What is asked of `cycle.windows.payment`."""

    @property
    def opens(self) -> datetime: ...

    @property
    def closes(self) -> datetime: ...

    @property
    def told_closes(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Close:
    """The close that is enforced, the one that people are told, and since when it is so."""

    closes_at: datetime
    told_closes_at: datetime
    since: datetime


def grace(window: AnnouncedWindow) -> timedelta:
    """How much longer payment is taken than people are told. It stays the same when the close moves."""
    return window.closes - window.told_closes


@dataclass(frozen=True, slots=True)
class Closes:
    """The closes in force, by desk. A desk that is not among `moved` closes as was announced."""

    announced: Close
    moved: Mapping[str, Close]
    sites: frozenset[str]

    @classmethod
    def of(cls, window: AnnouncedWindow, sites: Iterable[str], moved: Mapping[str, Close]) -> Closes:
        return cls(Close(window.closes, window.told_closes, window.opens), moved, frozenset(sites))

    def at_site(self, site_id: str | None) -> Close:
        """That of a desk; for whose desk is not known here, what holds at every desk."""
        return self.everywhere if site_id is None else self.moved.get(site_id, self.announced)

    @property
    def everywhere(self) -> Close:
        """The first of all: nobody's window closes before it."""
        return min(self.in_force(), key=lambda close: close.closes_at)

    def in_force(self) -> list[Close]:
        """One for each moment at which payment closes for some desk."""
        found: dict[datetime, Close] = {}
        for site_id in self.sites:
            close = self.moved.get(site_id, self.announced)
            before = found.get(close.closes_at)
            if before is None or before.since < close.since:
                found[close.closes_at] = close
        return sorted(found.values(), key=lambda close: close.closes_at)

    def of_scope(self, site_id: str | None) -> dict[str, Close]:
        """Desk by desk, what a decision about this desk, or about all, would move."""
        return {site: self.at_site(site) for site in (self.sites if site_id is None else (site_id,))}

"""What to ask of a valid cycle before it opens: who can never be confirmed, who is told too late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING

from contracts.cycle.problems import Finding

if TYPE_CHECKING:
    from contracts.cycle.cycle import Cycle
    from contracts.cycle.desks import Site
    from contracts.cycle.windows import Window


def findings(cycle: Cycle) -> tuple[Finding, ...]:
    return (
        *_dead_ends(cycle),
        *_undated(cycle),
        *_outside(cycle),
        *_overlaps(cycle),
        *_told_later(cycle),
        *_results(cycle),
        *_specialty_counts(cycle),
        *_offsets(cycle),
    )


def stages(cycle: Cycle) -> tuple[tuple[str, str, Window], ...]:
    """The stages in the order of a candidate's way: key, what people call it, window."""
    windows = cycle.windows
    return (
        ("pre_registration", "网上预报名", windows.pre_registration),
        ("confirmation", "现场确认", windows.confirmation),
        ("payment", "网上缴费", windows.payment),
        ("results", "成绩发布", windows.results),
    )


def _windows(cycle: Cycle) -> Iterator[tuple[str, str, Window]]:
    for key, name, window in stages(cycle):
        yield f"windows.{key}", name, window
    for site in cycle.sites:
        if site.window is not None:
            yield f"sites.{site.id}.window", site.name, site.window


def extent(cycle: Cycle) -> tuple[datetime, datetime]:
    """From the first moment that anybody can do anything to the last one, papers included."""
    windows = [window for _, _, window in _windows(cycle)]
    ends = [window.closes for window in windows] + [paper.ends for paper in cycle.papers]
    return min(window.opens for window in windows), max(ends)


def _local(cycle: Cycle, moment: datetime) -> str:
    return moment.astimezone(cycle.zone).strftime("%Y-%m-%d %H:%M")


def dead_ends(cycle: Cycle) -> tuple[tuple[Site, Window], ...]:
    """Desks that close before pre-registration does."""
    last = cycle.windows.pre_registration.closes
    return tuple(
        (site, site.window) for site in cycle.sites if site.window is not None and site.window.closes < last
    )


def _dead_ends(cycle: Cycle) -> Iterator[Finding]:
    last = cycle.windows.pre_registration.closes
    for site, window in dead_ends(cycle):
        yield Finding(
            "dead-end",
            f"sites.{site.id}",
            f"dead end: {site.name} closes {_local(cycle, window.closes)}, pre-registration not until "
            f"{_local(cycle, last)}; who comes between could never be confirmed there and is refused",
        )


def _undated(cycle: Cycle) -> Iterator[Finding]:
    for site in cycle.sites:
        if site.window is None:
            yield Finding(
                "undated-desk",
                f"sites.{site.id}",
                f"undated desk: {site.name} ({site.undated_note}); nobody is confirmed there until the office "
                f"sets a window; its candidates lapse {_local(cycle, cycle.windows.confirmation.closes)}",
            )


def _outside(cycle: Cycle) -> Iterator[Finding]:
    overall = cycle.windows.confirmation
    for site in cycle.sites:
        window = site.window
        if window is not None and (window.opens < overall.opens or window.closes > overall.closes):
            yield Finding(
                "outside",
                f"sites.{site.id}.window",
                f"outside: {site.name} is open {_local(cycle, window.opens)} to "
                f"{_local(cycle, window.closes)}, the overall confirmation window "
                f"{_local(cycle, overall.opens)} to {_local(cycle, overall.closes)}",
            )


def _overlaps(cycle: Cycle) -> Iterator[Finding]:
    for (_, name, window), (key, other_name, other) in combinations(stages(cycle), 2):
        opens, closes = max(window.opens, other.opens), min(window.closes, other.closes)
        if opens < closes:
            yield Finding(
                "overlap",
                f"windows.{key}",
                f"overlap: {name} and {other_name} are both open {_local(cycle, opens)} to "
                f"{_local(cycle, closes)}; stages are per candidate there, not phases of the office",
            )


def _told_later(cycle: Cycle) -> Iterator[Finding]:
    for key, name, window in _windows(cycle):
        if window.told_closes > window.closes:
            yield Finding(
                "told-later",
                f"{key}.told_closes",
                f"told later than enforced: {name} is told to close {_local(cycle, window.told_closes)} "
                f"and closes {_local(cycle, window.closes)}; who trusts the told close comes too late",
            )


def _results(cycle: Cycle) -> Iterator[Finding]:
    last = cycle.last_paper_ends_at
    if last is not None and cycle.windows.results.opens < last:
        yield Finding(
            "results-early",
            "windows.results",
            f"results open {_local(cycle, cycle.windows.results.opens)}, before the last paper ends "
            f"{_local(cycle, last)}",
        )


def _specialty_counts(cycle: Cycle) -> Iterator[Finding]:
    for mode in cycle.modes:
        listed = sum(1 for specialty in cycle.specialties if specialty.mode == mode.id)
        if mode.specialties is not None and listed != mode.specialties:
            yield Finding(
                "specialty-count",
                f"modes.{mode.id}",
                f"the notice counts {mode.specialties} specialties on {mode.name}, the file lists {listed}",
            )


def _offsets(cycle: Cycle) -> Iterator[Finding]:
    for key, name, window in _windows(cycle):
        moments = [moment for interval in window.intervals for moment in (interval.opens, interval.closes)]
        if window.told is not None:
            moments.append(window.told)
        for moment in moments:
            expected = moment.astimezone(cycle.zone).utcoffset() or timedelta()
            if moment.utcoffset() != expected:
                yield Finding(
                    "zone-offset",
                    key,
                    f"{name}: {moment.isoformat()} is not written in the offset of {cycle.time_zone}; "
                    f"there it is {_local(cycle, moment)}",
                )

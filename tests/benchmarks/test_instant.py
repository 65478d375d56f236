"""What the benchmark of the instant says of payments during the sweep, and when it says nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.bench.disk import Probe
from deploy.bench.figures import Figure
from deploy.bench.instant import RATE, Seen, figures
from deploy.bench.scale import SMALL
from deploy.bench.serving import Memory

CLOSES_AT = datetime(2027, 2, 26, 0, 0, tzinfo=UTC)
MOMENT = CLOSES_AT.timestamp()
LASTED = 60


def judged(*, idle_ms: float, during_ms: float, disk_idle_ms: float, disk_during_ms: float) -> Figure:
    """P3, had every payment and every write to the disk taken so long."""
    begins, ends = MOMENT - SMALL.idle_seconds, MOMENT + LASTED
    times = [begins + number / RATE for number in range(int((ends - begins) * RATE))]
    calls = [(due, (idle_ms if due < MOMENT else during_ms) / 1000, 204) for due in times]
    disk = Probe([(due, (disk_idle_ms if due < MOMENT else disk_during_ms) / 1000) for due in times[::5]])
    seen = Seen(first=MOMENT + 0.3, closed=ends, published=ends)
    return figures(SMALL, CLOSES_AT, seen, Memory(), calls, "", disk)[0]


@pytest.mark.parametrize(("during_ms", "met"), [(30.0, True), (30.1, False)])
def test_three_times_idle_is_the_most(during_ms: float, met: bool) -> None:
    found = judged(idle_ms=10, during_ms=during_ms, disk_idle_ms=20, disk_during_ms=20)
    assert (found.met, found.not_measured) == (met, "")


def test_an_idle_time_with_a_stalling_disk_is_nothing_to_compare_with() -> None:
    """Else whoever waited for the disk before the close would make the close look quick."""
    found = judged(idle_ms=300, during_ms=70, disk_idle_ms=20.1, disk_during_ms=20)
    assert found.ratio == pytest.approx(70 / 300)
    assert not found.met
    assert "disk alone took 20.1 ms" in found.not_measured


def test_what_the_disk_does_during_the_close_counts_against_the_close() -> None:
    found = judged(idle_ms=10, during_ms=70, disk_idle_ms=1, disk_during_ms=300)
    assert not found.met
    assert not found.not_measured


def test_one_stall_spoils_the_whole_and_one_quarter_of_a_minute() -> None:
    found = judged(idle_ms=10, during_ms=20, disk_idle_ms=1, disk_during_ms=1)
    assert any("during median 20 (20, 20, 20, 20) ms" in note for note in found.notes), found.notes

"""Row 39 of the fault matrix: whatever zone a machine is set to, a window begins and ends at its moment in +08:00."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cycle import Cycle
from services.payment.domain.order import order_expires_at
from services.payment.domain.ordering import check_order
from services.payment.domain.refusals import PaymentRuleBroken, TooLateToOrder, WindowClosed, WindowNotOpen

CYCLE: Final = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
ZONES: Final = (
    "UTC",
    "Asia/Shanghai",
    "America/St_Johns",  # -3:30 in winter
    "Asia/Kathmandu",  # +5:45
    "Pacific/Kiritimati",  # +14
    "Europe/London",
)
# 2024年1月29日-2月8日, and 12月8日-14日上午, as moments of UTC: written down by hand.
OPENS: Final = datetime(2024, 1, 28, 16, 0, tzinfo=UTC)
LAST_ORDER: Final = datetime(2024, 2, 8, 15, 58, tzinfo=UTC)
CLOSES: Final = datetime(2024, 2, 8, 16, 0, tzinfo=UTC)
MORNING_ENDS: Final = datetime(2023, 12, 14, 4, 0, tzinfo=UTC)
TICK: Final = timedelta(microseconds=1)


@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """This process believes that its machine stands in that zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        try:
            yield
        finally:
            patch.undo()
            time.tzset()


near = st.sampled_from((OPENS, LAST_ORDER, CLOSES, MORNING_ENDS)).flatmap(
    lambda edge: st.timedeltas(min_value=-timedelta(hours=15), max_value=timedelta(hours=15)).map(
        lambda away: edge + away
    )
)
edges = st.sampled_from(
    [
        edge + away
        for edge in (OPENS, LAST_ORDER, CLOSES, MORNING_ENDS)
        for away in (-TICK, timedelta(0), TICK)
    ]
)


@given(zone=st.sampled_from(ZONES), at=st.one_of(edges, near))
def test_what_is_decided_at_a_moment_does_not_depend_on_where_the_machine_stands(
    zone: str, at: datetime
) -> None:
    with machine_in(zone):
        cycle = Cycle.read(CYCLE)
        payment = cycle.windows.payment
        assert (payment.opens, payment.closes) == (OPENS, CLOSES)
        assert payment.is_open(at) == (OPENS <= at < CLOSES)
        assert payment.has_closed(at) == (at >= CLOSES)
        (desk,) = [site.window for site in cycle.sites if site.id == "shizhong"]
        assert desk is not None
        assert desk.has_closed(at) == (at >= MORNING_ENDS)
        if OPENS <= at < CLOSES:
            assert order_expires_at(at, payment.closes) == min(at + timedelta(hours=2), CLOSES)
        told: type[PaymentRuleBroken] | None = None
        try:
            check_order(at, payment, None)
        except PaymentRuleBroken as broken:
            told = type(broken)
        if at >= CLOSES:
            assert told is WindowClosed
        elif at >= LAST_ORDER:
            assert told is TooLateToOrder
        elif at < OPENS:
            assert told is WindowNotOpen
        else:
            assert told not in (WindowClosed, TooLateToOrder, WindowNotOpen)


def test_the_zone_of_the_machine_is_really_another() -> None:
    """So that the test above is not one of the zone this machine happens to be in."""
    found = set()
    for zone in ZONES:
        with machine_in(zone):
            found.add(datetime(2024, 2, 8, 23, 59, 59).astimezone(UTC))
    assert len(found) == len(ZONES) - 1, "UTC and London agree in winter, nobody else"

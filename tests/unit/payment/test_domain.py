"""What a candidate owes and when it is forfeited: the rules alone, to the microsecond."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.reasons import RefundCause
from services.payment.domain.asking_again import ask_again_at
from services.payment.domain.obligation import NEXT, Cancellation, Fact, Obligation, Status, sources_of
from services.payment.domain.order import (
    ORDER_NEXT,
    UNDECIDED,
    OrderStatus,
    Success,
    order_expires_at,
)
from services.payment.domain.ordering import check_order
from services.payment.domain.refusals import (
    AlreadyPaid,
    NotAllowed,
    NotApproved,
    PaymentRuleBroken,
    TooEarly,
    TooLateToOrder,
    Undecided,
    WindowClosed,
    WindowNotOpen,
)
from services.payment.domain.reminders import plan_reminders

BEIJING = timezone(timedelta(hours=8))
OPENS = datetime(2024, 1, 29, tzinfo=BEIJING)
CLOSES = datetime(2024, 2, 9, tzinfo=BEIJING)
MICROSECOND = timedelta(microseconds=1)
OFFSETS = (timedelta(days=7), timedelta(days=3), timedelta(days=1), timedelta(hours=6), timedelta(hours=2))


@dataclass(frozen=True)
class TwoIntervals:
    """A payment window that may pause."""

    spans: tuple[tuple[datetime, datetime], ...] = ((OPENS, CLOSES),)
    no_orders_before_close: timedelta = timedelta(minutes=2)

    @property
    def opens(self) -> datetime:
        return self.spans[0][0]

    @property
    def closes(self) -> datetime:
        return self.spans[-1][1]

    def is_open(self, at: datetime) -> bool:
        return any(opens <= at < closes for opens, closes in self.spans)


WINDOW = TwoIntervals()
OWED = Obligation(
    registration_id=UUID(int=7),
    status=Status.AWAITING,
    version=1,
    amount_fen=28_000,
    currency="CNY",
    opens_at=OPENS,
    closes_at=CLOSES,
    told_closes_at=CLOSES,
)


def owed(status: Status) -> Obligation:
    return replace(OWED, status=status)


def success(paid_at: datetime, amount_fen: int = 28_000, currency: str = "CNY") -> Success:
    return Success("order-0001", "4200001", amount_fen, currency, paid_at)


# --- orders at both edges of the window


@pytest.mark.parametrize(
    ("at", "refusal"),
    [
        (OPENS - MICROSECOND, WindowNotOpen),
        (OPENS, None),
        (OPENS + MICROSECOND, None),
        (CLOSES - timedelta(minutes=2) - MICROSECOND, None),
        (CLOSES - timedelta(minutes=2), TooLateToOrder),
        (CLOSES - MICROSECOND, TooLateToOrder),
        (CLOSES, WindowClosed),
        (CLOSES + MICROSECOND, WindowClosed),
        (CLOSES + timedelta(days=400), WindowClosed),
    ],
)
@pytest.mark.parametrize("zone", [UTC, BEIJING])
def test_an_order_is_taken_only_inside_the_window_and_not_in_its_last_two_minutes(
    at: datetime, refusal: type[PaymentRuleBroken] | None, zone: timezone
) -> None:
    if refusal is None:
        assert check_order(at.astimezone(zone), WINDOW, OWED) is OWED
    else:
        with pytest.raises(refusal):
            check_order(at.astimezone(zone), WINDOW, OWED)


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        (None, NotApproved),
        (Status.CANCELLED, NotApproved),
        (Status.PAID, AlreadyPaid),
        (Status.HELD, NotAllowed),
        (Status.EXPIRED, NotAllowed),
    ],
)
def test_who_may_not_order_hears_why_and_the_window_is_told_before_the_state(
    state: Status | None, refusal: type[PaymentRuleBroken]
) -> None:
    obligation = owed(state) if state else None
    with pytest.raises(refusal):
        check_order(OPENS, WINDOW, obligation)
    for at, by_window in [
        (OPENS - MICROSECOND, WindowNotOpen),
        (CLOSES - MICROSECOND, TooLateToOrder),
        (CLOSES, WindowClosed),
    ]:
        with pytest.raises(by_window):
            check_order(at, WINDOW, obligation)


def test_a_window_that_pauses_takes_no_order_in_the_pause() -> None:
    pause, again = OPENS + timedelta(days=2), OPENS + timedelta(days=3)
    window = TwoIntervals(spans=((OPENS, pause), (again, CLOSES)))
    assert check_order(pause - MICROSECOND, window, OWED) is OWED
    for at in (pause, again - MICROSECOND):
        with pytest.raises(WindowNotOpen):
            check_order(at, window, OWED)
    assert check_order(again, window, OWED) is OWED


def test_a_candidate_whose_own_close_is_later_may_order_until_it() -> None:
    later = replace(OWED, closes_at=CLOSES + timedelta(days=2))
    assert check_order(CLOSES, WINDOW, later) is later
    with pytest.raises(WindowClosed):
        check_order(CLOSES + timedelta(days=2), WINDOW, later)


@given(
    st.integers(0, 11 * 86_400_000_000 - 120_000_001).map(
        lambda microseconds: OPENS + microseconds * MICROSECOND
    )
)
def test_an_order_never_outlives_its_code_or_the_window(at: datetime) -> None:
    expires_at = order_expires_at(at, CLOSES)
    assert at < expires_at <= CLOSES
    assert expires_at - at <= timedelta(hours=2)
    assert expires_at == CLOSES or expires_at - at == timedelta(hours=2)


# --- money


@pytest.mark.parametrize("state", [Status.AWAITING, Status.HELD])
def test_paid_a_microsecond_before_the_close_is_in_time_and_at_the_close_is_late(state: Status) -> None:
    in_time = owed(state).receive(success(CLOSES - MICROSECOND), 28_000)
    assert (in_time.obligation.status, in_time.obligation.version) == (Status.PAID, 2)
    assert (in_time.facts, in_time.refund) == ((Fact.PAID,), None)

    late = owed(state).receive(success(CLOSES), 28_000)
    assert (late.obligation, late.facts, late.refund) == (owed(state), (), RefundCause.PAID_LATE)


def test_paid_in_time_but_heard_of_after_forfeiture_is_reinstated_and_paid() -> None:
    verdict = owed(Status.EXPIRED).receive(success(CLOSES - MICROSECOND), 28_000)
    assert verdict.facts == (Fact.REINSTATED, Fact.PAID)
    assert (verdict.obligation.status, verdict.obligation.version) == (Status.PAID, 3)
    assert verdict.refund is None


def test_paid_late_stays_forfeited_and_is_refunded() -> None:
    verdict = owed(Status.EXPIRED).receive(success(CLOSES), 28_000)
    assert (verdict.obligation, verdict.facts, verdict.refund) == (
        owed(Status.EXPIRED),
        (),
        RefundCause.PAID_LATE,
    )


def test_a_second_payment_is_refunded_and_the_first_one_stands() -> None:
    verdict = owed(Status.PAID).receive(success(OPENS), 28_000)
    assert (verdict.obligation, verdict.facts, verdict.refund) == (
        owed(Status.PAID),
        (),
        RefundCause.PAID_TWICE,
    )


@pytest.mark.parametrize(
    ("why", "refund"),
    [
        (Cancellation.REJECTED, RefundCause.REJECTED),
        (Cancellation.RETURNED, RefundCause.OTHER),
        (Cancellation.WITHDRAWN, RefundCause.OTHER),
    ],
)
def test_money_for_somebody_who_owes_nothing_goes_back(why: Cancellation, refund: RefundCause) -> None:
    cancelled = OWED.cancel(why)
    verdict = cancelled.receive(success(OPENS), 28_000)
    assert (verdict.obligation, verdict.facts, verdict.refund) == (cancelled, (), refund)


@pytest.mark.parametrize("state", Status)
@pytest.mark.parametrize(("amount", "currency"), [(27_999, "CNY"), (28_001, "CNY"), (28_000, "USD")])
def test_the_wrong_amount_changes_nothing_and_goes_back(state: Status, amount: int, currency: str) -> None:
    verdict = owed(state).receive(success(OPENS, amount, currency), 28_000)
    assert (verdict.obligation, verdict.facts, verdict.refund) == (owed(state), (), RefundCause.WRONG_AMOUNT)


@pytest.mark.parametrize("fee", [27_999, 28_001])
@pytest.mark.parametrize("paid", [27_999, 28_000, 28_001])
def test_what_the_order_was_for_is_no_fee_if_another_one_is_owed_by_now(fee: int, paid: int) -> None:
    now = replace(OWED, amount_fen=fee)
    verdict = now.receive(success(OPENS, paid), 28_000)
    assert (verdict.obligation, verdict.facts, verdict.refund) == (now, (), RefundCause.WRONG_AMOUNT)


@given(
    st.sampled_from(Status),
    st.integers(-3, 3),
    st.sampled_from([28_000, 27_999]),
)
def test_every_payment_is_either_taken_or_goes_back(state: Status, microseconds: int, amount: int) -> None:
    verdict = owed(state).receive(success(CLOSES + microseconds * MICROSECOND, amount), 28_000)
    taken = Fact.PAID in verdict.facts
    assert taken == (verdict.refund is None)
    assert verdict.obligation.version == 1 + len(verdict.facts)
    assert taken == (
        amount == 28_000 and microseconds < 0 and state in {Status.AWAITING, Status.HELD, Status.EXPIRED}
    )


# --- forfeiture


def test_nobody_forfeits_a_microsecond_before_the_close() -> None:
    with pytest.raises(TooEarly):
        OWED.expire(CLOSES - MICROSECOND, [])
    with pytest.raises(TooEarly):
        OWED.hold(CLOSES - MICROSECOND)
    expired = OWED.expire(CLOSES, [])
    assert (expired.status, expired.version) == (Status.EXPIRED, 2)
    held = OWED.hold(CLOSES)
    assert (held.status, held.version) == (Status.HELD, 1)


@pytest.mark.parametrize("order", sorted(UNDECIDED))
@pytest.mark.parametrize("state", [Status.AWAITING, Status.HELD])
def test_nobody_forfeits_while_an_order_may_still_turn_out_paid(order: OrderStatus, state: Status) -> None:
    with pytest.raises(Undecided):
        owed(state).expire(CLOSES, [OrderStatus.CLOSED, order])
    assert owed(state).expire(CLOSES, [OrderStatus.CLOSED, OrderStatus.FAILED]).status is Status.EXPIRED


@given(st.sampled_from(Status), st.integers(-2, 2), st.lists(st.sampled_from(OrderStatus), max_size=3))
def test_a_paid_candidate_never_forfeits(state: Status, microseconds: int, orders: list[OrderStatus]) -> None:
    at = CLOSES + microseconds * MICROSECOND
    try:
        owed(state).expire(at, orders)
    except PaymentRuleBroken:
        return
    assert state in {Status.AWAITING, Status.HELD}
    assert at >= CLOSES
    assert not UNDECIDED.intersection(orders)


# --- the table


WAYS: dict[str, tuple[Status, Callable[[Obligation], Obligation]]] = {
    "expire": (Status.EXPIRED, lambda o: o.expire(CLOSES, [])),
    "hold": (Status.HELD, lambda o: o.hold(CLOSES)),
    "reject": (Status.CANCELLED, lambda o: o.cancel(Cancellation.REJECTED)),
    "reinstate": (Status.AWAITING, lambda o: o.reinstate()),
    "approve again": (Status.AWAITING, lambda o: o.approve_again(20_000)),
}


@pytest.mark.parametrize(("state", "way"), list(product(Status, WAYS)))
def test_only_the_ways_of_the_table_are_open_and_nothing_is_silently_ignored(state: Status, way: str) -> None:
    target, move = WAYS[way]
    try:
        after = move(owed(state))
    except NotAllowed:
        return
    assert after.status is target
    assert target in NEXT[state]


def test_already_paid_and_not_allowed_are_different_answers() -> None:
    for why in (Cancellation.RETURNED, Cancellation.WITHDRAWN):
        with pytest.raises(AlreadyPaid):
            owed(Status.PAID).cancel(why)
    assert owed(Status.PAID).cancel(Cancellation.REJECTED).cancelled_for is Cancellation.REJECTED
    with pytest.raises(NotAllowed):
        owed(Status.CANCELLED).cancel(Cancellation.REJECTED)


def test_nobody_comes_back_to_a_state_without_an_event_in_between() -> None:
    """(status, version) must name one state for ever: a silent cycle would break every race's guard."""
    silent = {Status.HELD, Status.CANCELLED}

    def silent_ways(state: Status, seen: frozenset[Status]) -> None:
        for target in NEXT[state] & silent:
            assert target not in seen
            silent_ways(target, seen | {target})

    for state in Status:
        silent_ways(state, frozenset({state}))


def test_what_can_expire_is_who_owes() -> None:
    assert sources_of(Status.EXPIRED) == (Status.AWAITING, Status.HELD)
    assert sources_of(Status.HELD) == (Status.AWAITING,)


def test_a_paid_order_stays_paid_and_any_other_gives_way_to_money() -> None:
    assert ORDER_NEXT[OrderStatus.PAID] == frozenset()
    assert all(OrderStatus.PAID in ORDER_NEXT[s] for s in OrderStatus if s is not OrderStatus.PAID)


def test_only_who_still_owes_is_reminded() -> None:
    assert OWED.remind().version == 2
    for state in set(Status) - {Status.AWAITING}:
        with pytest.raises(NotAllowed):
            owed(state).remind()


# --- asking again, reminding


def test_a_silent_gateway_is_asked_after_five_minutes_then_an_hour_and_at_least_daily() -> None:
    waits = [ask_again_at(CLOSES, attempts) - CLOSES for attempts in range(1, 12)]
    assert waits[:2] == [timedelta(minutes=5), timedelta(hours=1)]
    assert waits == sorted(waits)
    assert waits[-1] == timedelta(days=1)


def test_each_reminder_has_its_moment() -> None:
    plan = plan_reminders(CLOSES - timedelta(days=7) - MICROSECOND, OPENS, CLOSES, OFFSETS, [])
    assert (plan.send, plan.skip, plan.next_at) == (None, (), CLOSES - timedelta(days=7))
    plan = plan_reminders(CLOSES - timedelta(days=7), OPENS, CLOSES, OFFSETS, [])
    assert (plan.send, plan.skip, plan.next_at) == (timedelta(days=7), (), CLOSES - timedelta(days=3))
    plan = plan_reminders(CLOSES - timedelta(days=7), OPENS, CLOSES, OFFSETS, [timedelta(days=7)])
    assert plan.send is None


def test_of_several_missed_reminders_only_the_latest_is_sent() -> None:
    plan = plan_reminders(CLOSES - timedelta(hours=5), OPENS, CLOSES, OFFSETS, [timedelta(days=7)])
    assert plan.send == timedelta(hours=6)
    assert plan.skip == (timedelta(days=3), timedelta(days=1))
    assert plan.next_at == CLOSES - timedelta(hours=2)


def test_an_earlier_reminder_is_never_sent_after_a_later_one() -> None:
    plan = plan_reminders(CLOSES - timedelta(hours=5), OPENS, CLOSES, OFFSETS, [timedelta(hours=6)])
    assert plan.send is None
    assert set(plan.skip) == {timedelta(days=7), timedelta(days=3), timedelta(days=1)}


def test_nobody_is_reminded_of_a_window_that_has_closed_or_not_begun() -> None:
    assert plan_reminders(CLOSES, OPENS, CLOSES, OFFSETS, []).send is None
    late_opening = CLOSES - timedelta(days=2)
    plan = plan_reminders(late_opening, late_opening, CLOSES, OFFSETS, [])
    assert (plan.send, plan.skip, plan.next_at) == (None, (), CLOSES - timedelta(days=1))


@given(st.integers(0, 11 * 86_400), st.sets(st.sampled_from(OFFSETS)))
def test_a_reminder_names_a_moment_that_has_come_and_is_never_repeated(
    seconds: int, done: set[timedelta]
) -> None:
    at = OPENS + timedelta(seconds=seconds)
    plan = plan_reminders(at, OPENS, CLOSES, OFFSETS, sorted(done))
    if plan.send is not None:
        assert plan.send not in done
        assert CLOSES - plan.send <= at < CLOSES
        assert not [o for o in OFFSETS if o < plan.send and CLOSES - o <= at]
    after = plan_reminders(
        at, OPENS, CLOSES, OFFSETS, [*done, *plan.skip, *([plan.send] if plan.send else [])]
    )
    assert (after.send, after.skip) == (None, ())

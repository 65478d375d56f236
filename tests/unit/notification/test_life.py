"""States, tries, and the hours of the night."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cycle import Cycle
from contracts.notification import Undeliverable
from contracts.reasons import Carrier
from services.notification.domain import life, quiet
from services.notification.domain.calling import CallPatience
from services.notification.domain.life import Failure, NotAllowed, Standing, State
from services.notification.domain.occasions import Occasion
from services.notification.domain.parts import parts
from services.notification.domain.urgency import Urgency, urgency_of

AT = datetime(2024, 2, 1, 4, tzinfo=UTC)
CYCLE = Cycle.read(Path(__file__).parents[3] / "deploy/cycles/2024-health-leshan.toml")
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=90)).map(
    lambda after: datetime(2023, 12, 1, tzinfo=UTC) + after
)

ALLOWED = {
    ("created", "sending"),
    ("created", "superseded"),
    ("created", "delivered"),
    ("created", "undelivered"),
    ("created", "expired"),
    ("sending", "sending"),
    ("sending", "created"),
    ("sending", "accepted"),
    ("sending", "delivered"),
    ("sending", "undelivered"),
    ("sending", "superseded"),
    ("sending", "expired"),
    ("accepted", "delivered"),
    ("accepted", "undelivered"),
    ("accepted", "expired"),
    ("expired", "delivered"),
    ("expired", "undelivered"),
}


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("state", State)
def test_a_message_moves_only_as_the_table_says(state: State, to: State) -> None:
    if (str(state), str(to)) in ALLOWED:
        assert life.move(state, to) is to
        assert state in life.sources_of(to)
    else:
        with pytest.raises(NotAllowed):
            life.move(state, to)
        assert state not in life.sources_of(to)


def test_what_has_ended_stays_ended() -> None:
    for ended in (State.DELIVERED, State.UNDELIVERED, State.SUPERSEDED):
        assert not life.NEXT[ended]


def test_only_a_receipt_still_moves_what_ran_out() -> None:
    assert life.NEXT[State.EXPIRED] == {State.DELIVERED, State.UNDELIVERED}


def test_a_refused_message_is_not_tried_again() -> None:
    assert life.next_try(Failure.REFUSED, 1, AT) is None


@pytest.mark.parametrize("failure", [Failure.BUSY, Failure.UNREACHED, Failure.AMBIGUOUS])
def test_other_failures_are_tried_again_ever_later_and_then_given_up(failure: Failure) -> None:
    pauses: list[timedelta] = []
    tries = 1
    while (due := life.next_try(failure, tries, AT)) is not None:
        pauses.append(due - AT)
        tries += 1
    assert pauses == sorted(pauses)
    assert pauses[0] >= timedelta(seconds=30)
    assert sum(pauses, timedelta()) >= timedelta(hours=20)
    assert tries < 15


def test_an_answer_that_may_hide_a_copy_is_followed_by_fewer_tries() -> None:
    def tries(failure: Failure) -> int:
        return next(n for n in range(1, 99) if life.next_try(failure, n, AT) is None)

    assert tries(Failure.AMBIGUOUS) < tries(Failure.UNREACHED)


def ends(occasion: Occasion, standing: Standing, *, overtaken: bool = False, left: int = 60) -> State | None:
    deadline = AT + timedelta(minutes=left)
    return life.end_unsent(occasion, standing, overtaken=overtaken, deadline=deadline, at=AT)


@pytest.mark.parametrize("occasion", [Occasion.CLOSING_SOON, Occasion.DUE, Occasion.PAYMENT_WINDOW_MOVED])
def test_only_who_still_owes_is_asked_to_pay(occasion: Occasion) -> None:
    assert ends(occasion, Standing.AWAITING) is None
    assert ends(occasion, Standing.NONE) is None
    for over in (Standing.PAID, Standing.EXPIRED, Standing.CANCELLED):
        assert ends(occasion, over) is State.SUPERSEDED


@pytest.mark.parametrize("standing", [Standing.PAID, Standing.AWAITING])
def test_who_was_reinstated_does_not_hear_of_the_forfeiture_that_was_lifted(standing: Standing) -> None:
    assert ends(Occasion.EXPIRED, standing) is State.SUPERSEDED
    assert ends(Occasion.EXPIRED, Standing.EXPIRED) is None
    assert ends(Occasion.EXPIRED, Standing.EXPIRED, overtaken=True) is State.SUPERSEDED


def test_what_happened_is_told_whatever_came_after() -> None:
    for occasion in set(Occasion) - set(life.HOLDS_WHILE):
        assert all(life.still_holds(occasion, standing) for standing in Standing)
    assert ends(Occasion.PAID, Standing.PAID, left=-600) is None
    assert ends(Occasion.EXPIRED, Standing.EXPIRED, left=-600) is None


@pytest.mark.parametrize("occasion", sorted(life.ASKS))
def test_what_asks_for_something_does_not_go_out_once_it_is_over(occasion: Occasion) -> None:
    assert ends(occasion, Standing.AWAITING, left=1) is None
    assert ends(occasion, Standing.AWAITING, left=0) is State.EXPIRED
    assert ends(occasion, Standing.AWAITING, left=-1, overtaken=True) is State.SUPERSEDED


@pytest.mark.parametrize(
    ("occasion", "hours", "urgency"),
    [
        (Occasion.EXPIRED, None, Urgency.FINAL),
        (Occasion.REINSTATED, 300, Urgency.FINAL),
        (Occasion.CLOSING_SOON, 24, Urgency.FINAL),
        (Occasion.CLOSING_SOON, 24.1, Urgency.ORDINARY),
        (Occasion.RETURNED, 2, Urgency.FINAL),
        (Occasion.APPROVED, 2, Urgency.ORDINARY),
        (Occasion.PAID, None, Urgency.RECORD),
        (Occasion.PRE_REGISTERED, 2, Urgency.ORDINARY),
    ],
)
def test_whoever_would_lose_something_goes_first(
    occasion: Occasion, hours: float | None, urgency: Urgency
) -> None:
    deadline = None if hours is None else AT + timedelta(hours=hours)
    assert urgency_of(occasion, deadline, AT) is urgency


@pytest.mark.parametrize(
    ("occasion", "deadline", "first", "call_at"),
    [
        # The reminder of the last day: eight hours before the close, so that six hours before it all are told.
        ("closing-soon", "2024-02-09T00:00", "2024-02-08T08:00", "2024-02-08T16:00"),
        ("closing-soon", "2024-02-09T00:00", "2024-02-08T18:00", "2024-02-08T18:30"),
        ("closing-soon", "2024-02-09T00:00", "2024-02-06T08:00", None),
        ("expired", None, "2024-02-09T08:00", "2024-02-10T08:00"),
        ("lapsed", "2024-02-09T00:00", "2024-02-01T08:00", "2024-02-02T08:00"),
        ("returned", "2024-02-09T00:00", "2024-02-01T08:00", "2024-02-03T08:00"),
        ("returned", "2024-02-03T00:00", "2024-02-01T08:00", "2024-02-02T00:00"),
        ("returned", "2024-02-01T12:00", "2024-02-01T08:00", "2024-02-01T08:30"),
        ("paid", None, "2024-02-01T08:00", None),
        ("due", "2024-02-09T00:00", "2024-02-01T08:00", None),
    ],
)
def test_a_desk_calls_whom_nothing_has_told_in_time(
    occasion: str, deadline: str | None, first: str, call_at: str | None
) -> None:
    found = CallPatience().call_at(
        Occasion(occasion), beijing(deadline) if deadline else None, beijing(first)
    )
    assert found == (beijing(call_at) if call_at else None)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("isv.MOBILE_NUMBER_ILLEGAL", "bad-number"),
        ("MOBILE_NOT_ON_SERVICE", "number-not-in-use"),
        ("550", "mailbox-unknown"),
        ("550 5.1.1", "mailbox-unknown"),
        ("554", "refused"),
        ("isv.SOMETHING_NEW", "refused"),
        ("", "refused"),
    ],
)
def test_a_carriers_no_becomes_a_word_that_may_stand_on_the_wire(code: str, word: str) -> None:
    assert life.reason_word(code) == word
    Undeliverable(
        cycle_id="2024-health-leshan",
        registration_id=UUID("018c0000-0000-7000-8000-000000000001"),
        occasion="paid",
        channel=Carrier.SMS,
        template_version=1,
        reason_code=word,
    )


def beijing(text: str) -> datetime:
    return datetime.fromisoformat(text + "+08:00")


@pytest.mark.parametrize(
    ("at", "first"),
    [
        ("2024-02-01T21:59:59.999999", "2024-02-01T21:59:59.999999"),
        ("2024-02-01T22:00:00", "2024-02-02T08:00:00"),
        ("2024-02-01T23:59:59.999999", "2024-02-02T08:00:00"),
        ("2024-02-02T00:00:00", "2024-02-02T08:00:00"),
        ("2024-02-02T07:59:59.999999", "2024-02-02T08:00:00"),
        ("2024-02-02T08:00:00", "2024-02-02T08:00:00"),
    ],
)
def test_an_sms_waits_for_the_morning_and_an_email_does_not(at: str, first: str) -> None:
    assert quiet.first_moment(Carrier.SMS, None, beijing(at), CYCLE) == beijing(first)
    assert quiet.first_moment(Carrier.EMAIL, None, beijing(at), CYCLE) == beijing(at)


@pytest.mark.parametrize(
    ("deadline", "at_once"),
    [
        ("2024-02-02T08:00:00", True),
        ("2024-02-02T08:00:00.000001", False),
        ("2024-02-01T22:30:00.000001", True),
        ("2024-02-01T22:30:00", False),  # over already: nothing that the night could still save
        ("2024-02-08T00:00:00", False),
    ],
)
def test_a_message_that_would_come_too_late_goes_at_night(deadline: str, at_once: bool) -> None:
    at = beijing("2024-02-01T22:30:00")
    first = quiet.first_moment(Carrier.SMS, beijing(deadline), at, CYCLE)
    assert first == (at if at_once else beijing("2024-02-02T08:00:00"))


@given(MOMENTS, st.one_of(st.none(), MOMENTS))
def test_no_sms_goes_at_night_unless_its_deadline_is_before_the_morning(
    at: datetime, deadline: datetime | None
) -> None:
    first = quiet.first_moment(Carrier.SMS, deadline, at, CYCLE)
    assert at <= first <= at + timedelta(hours=10)
    assert not CYCLE.is_quiet(first) or (deadline is not None and at < deadline <= CYCLE.quiet_until(at))
    assert quiet.first_moment(Carrier.SMS, deadline, first, CYCLE) == first


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("字" * 70, 1),
        ("字" * 71, 2),
        ("字" * 134, 2),
        ("字" * 135, 3),
        ("a" * 71, 2),
        ("𠀀" * 35, 1),
        ("𠀀" * 36, 2),
    ],
)
def test_a_text_is_cut_as_the_carrier_cuts_it(text: str, count: int) -> None:
    assert parts(text) == count

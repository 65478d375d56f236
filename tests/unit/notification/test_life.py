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
from services.notification.domain.life import Failure, NotAllowed, Standing, State
from services.notification.domain.occasions import Occasion
from services.notification.domain.parts import parts

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


def test_a_paid_candidate_is_not_reminded_to_pay() -> None:
    assert life.still_holds(Occasion.CLOSING_SOON, Standing.AWAITING)
    assert life.still_holds(Occasion.CLOSING_SOON, Standing.NONE)
    for over in (Standing.PAID, Standing.EXPIRED, Standing.CANCELLED):
        assert not life.still_holds(Occasion.CLOSING_SOON, over)


def test_what_happened_is_told_whatever_came_after() -> None:
    for occasion in set(Occasion) - {Occasion.CLOSING_SOON}:
        assert all(life.still_holds(occasion, standing) for standing in Standing)


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

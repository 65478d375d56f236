"""What two people decide: who may say what until when, whom a close concerns, and how many an earlier one may cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from contracts.cycle import Cycle
from services.payment.domain.closes import Close, Closes, grace
from services.payment.domain.decision import (
    CloseNotAhead,
    DecidedAlready,
    Decision,
    Figures,
    Kind,
    OwnDecision,
    Stage,
    TooManyWouldFall,
    Word,
    check_share,
    close_of_a_revival,
)
from services.payment.domain.obligation import MAY_MOVE, Obligation, Status
from services.payment.domain.refusals import NotAllowed

CYCLE_FILE = Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"
CYCLE = Cycle.read(CYCLE_FILE)
OPENS, CLOSES = CYCLE.windows.payment.opens, CYCLE.windows.payment.closes
LATER = CLOSES + timedelta(days=2)
INSTANT = timedelta(microseconds=1)
BEIJING = ZoneInfo("Asia/Shanghai")
NOBODY = Figures(0, 0, 0, 0, 0, 0, 0, 0)
ASKED = Decision(
    decision_id=UUID(int=1),
    kind=Kind.EXTEND_PAYMENT,
    site_id=None,
    registration_id=None,
    closes_at=LATER,
    told_closes_at=LATER,
    earlier=False,
    reason_code="outage",
    asked_by="li",
    asked_at=CLOSES - INSTANT,
    figures=NOBODY,
)
OWES = Obligation(
    registration_id=UUID(int=2),
    status=Status.AWAITING,
    version=3,
    amount_fen=20_000,
    currency="CNY",
    opens_at=OPENS,
    closes_at=CLOSES,
    told_closes_at=CLOSES,
)


def test_a_decision_can_be_approved_until_its_own_close_and_rejected_at_any_time() -> None:
    assert ASKED.stage(LATER - INSTANT) is Stage.ASKED
    assert ASKED.stage(LATER) is Stage.OVERTAKEN
    ASKED.check_verdict("wang", LATER - INSTANT, Word.APPROVED)
    with pytest.raises(CloseNotAhead):
        ASKED.check_verdict("wang", LATER, Word.APPROVED)
    ASKED.check_verdict("wang", LATER, Word.REJECTED)


@pytest.mark.parametrize("word", list(Word))
def test_nobody_decides_alone_and_nobody_twice(word: Word) -> None:
    with pytest.raises(OwnDecision):
        ASKED.check_verdict("li", CLOSES, word)
    said = replace(ASKED, word=word, decided_by="wang", decided_at=CLOSES)
    with pytest.raises(DecidedAlready):
        said.check_verdict("zhao", CLOSES, word)


def test_what_is_approved_is_under_way_until_it_is_done_also_after_its_close() -> None:
    approved = replace(ASKED, word=Word.APPROVED)
    assert approved.stage(LATER + timedelta(days=1)) is Stage.UNDER_WAY
    assert replace(approved, done_at=LATER).stage(LATER) is Stage.DONE
    assert replace(ASKED, word=Word.REJECTED).stage(LATER) is Stage.REJECTED


@pytest.mark.parametrize(
    ("mine", "other", "same"),
    [
        (None, None, True),
        (None, "ebian", True),
        ("ebian", None, True),
        ("ebian", "ebian", True),
        ("ebian", "jingyan", False),
    ],
)
def test_two_decisions_are_about_the_same_people_where_their_desks_meet(
    mine: str | None, other: str | None, same: bool
) -> None:
    assert replace(ASKED, site_id=mine).concerns_as(Kind.EXTEND_PAYMENT, other, None) is same
    assert not replace(ASKED, site_id=mine).concerns_as(Kind.REVIVE, other, UUID(int=9))


@pytest.mark.parametrize(
    ("fall", "of", "refused"),
    [(0, 0, False), (1, 0, True), (1, 100, False), (1, 99, True), (10, 1000, False), (11, 1000, True)],
)
def test_an_earlier_close_may_cost_one_in_a_hundred_their_time(fall: int, of: int, refused: bool) -> None:
    figures = replace(NOBODY, would_fall=fall, approved=of)
    if not refused:
        check_share(figures, CYCLE.windows.payment.earlier_close_may_cost_per_mille)
        return
    with pytest.raises(TooManyWouldFall):
        check_share(figures, CYCLE.windows.payment.earlier_close_may_cost_per_mille)


def test_how_many_is_the_cycles_affair_and_a_file_that_does_not_say_it_is_what_it_was(tmp_path: Path) -> None:
    says = tmp_path / "cycle.toml"
    text = CYCLE_FILE.read_text(encoding="utf-8")
    line = 'no_orders_before_close = "2m"'
    assert line in text
    fingerprints = []
    for value in (10, 0):
        says.write_text(
            text.replace(line, f"{line}\nearlier_close_may_cost_per_mille = {value}"), encoding="utf-8"
        )
        cycle = Cycle.read(says)
        assert cycle.windows.payment.earlier_close_may_cost_per_mille == value
        fingerprints.append(cycle.fingerprint)
    assert fingerprints[0] == CYCLE.fingerprint
    assert fingerprints[1] != CYCLE.fingerprint


@pytest.mark.parametrize(
    ("at", "until"),
    [
        (datetime(2024, 2, 9, 10, tzinfo=BEIJING), datetime(2024, 2, 13, tzinfo=BEIJING)),
        (datetime(2024, 2, 9, 0, tzinfo=BEIJING), datetime(2024, 2, 13, tzinfo=BEIJING)),
        (datetime(2024, 2, 9, 15, 59, 59, tzinfo=UTC), datetime(2024, 2, 13, tzinfo=BEIJING)),
        (datetime(2024, 2, 9, 16, tzinfo=UTC), datetime(2024, 2, 14, tzinfo=BEIJING)),
    ],
)
def test_whoever_is_revived_may_pay_to_the_end_of_the_third_day_in_leshan(
    at: datetime, until: datetime
) -> None:
    assert close_of_a_revival(at, BEIJING) == until


def test_a_desk_closes_as_announced_until_somebody_moves_it() -> None:
    moved = Close(LATER, LATER, CLOSES)
    closes = Closes.of(CYCLE.windows.payment, ["ebian", "jingyan"], {"ebian": moved})
    assert [closes.at_site(site).closes_at for site in ("ebian", "jingyan", None)] == [LATER, CLOSES, CLOSES]
    assert [close.closes_at for close in closes.in_force()] == [CLOSES, LATER]
    everywhere = Closes.of(CYCLE.windows.payment, ["ebian", "jingyan"], {"ebian": moved, "jingyan": moved})
    assert everywhere.at_site(None) == moved
    assert everywhere.in_force() == [moved]
    assert set(closes.of_scope("ebian")) == {"ebian"}
    assert set(closes.of_scope(None)) == {"ebian", "jingyan"}
    assert grace(CYCLE.windows.payment) == timedelta(0)


@pytest.mark.parametrize("status", list(Status))
def test_a_later_close_makes_whoever_owed_owe_until_then_and_nobody_else(status: Status) -> None:
    before = replace(OWES, status=status)
    if status not in MAY_MOVE:
        with pytest.raises(NotAllowed):
            before.move(LATER, LATER)
        return
    after = before.move(LATER, LATER)
    assert (after.status, after.version, after.closes_at, after.told_closes_at) == (
        Status.AWAITING,
        4,
        LATER,
        LATER,
    )


def test_an_earlier_close_moves_only_who_still_awaits() -> None:
    sooner = CLOSES - timedelta(days=1)
    assert OWES.move(sooner, sooner).closes_at == sooner
    for status in (Status.HELD, Status.EXPIRED):
        with pytest.raises(NotAllowed):
            replace(OWES, status=status).move(sooner, sooner)

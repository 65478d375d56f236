"""What may happen to a case, and from which moment to which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cycle import Cycle
from contracts.reasons import ReasonCode
from contracts.refusals import Code, Refused
from services.confirmation.domain import (
    NEXT,
    Action,
    AlreadyConfirmed,
    Case,
    FormNotNewer,
    Mark,
    NotExpected,
    State,
    require_reasons,
    states_that_allow,
)
from tests.unit.confirmation.cases import (
    DURING,
    TINY,
    case,
    check,
    desk,
    form,
    leshan,
    moment,
    refusal,
)

LATER = moment("2023-12-20 09:00")
LEVELS = ("desk", "site", "district")
DATED = [site.id for site in leshan().sites if not site.undated]


# --- form and papers


def test_confirming_counts_one_level_and_says_one_fact() -> None:
    confirmed = case(version=4).confirmed(DURING, desk("shizhong"), check(), leshan())
    assert (confirmed.state, confirmed.passed, confirmed.version) == (State.CONFIRMED, 1, 5)


def test_confirming_again_on_the_same_form_is_neither_a_refusal_nor_a_fact() -> None:
    for state in (State.CONFIRMED, State.APPROVED):
        with pytest.raises(AlreadyConfirmed):
            case(state).confirmed(DURING, desk("shizhong"), check(), leshan())


def test_the_window_is_asked_before_the_state_and_the_state_before_the_form() -> None:
    over = moment("2023-12-14 12:00")
    for state in State:
        assert refusal(lambda s: case(s).confirmed(over, desk("shizhong"), check(9), leshan()), state) is (
            Code.WINDOW_CLOSED
        )
    for state in (State.WITHDRAWN, State.LAPSED, State.REJECTED):
        assert refusal(lambda s: case(s).confirmed(DURING, desk("shizhong"), check(9), leshan()), state) is (
            Code.NOT_ALLOWED
        )
    papers = check(9, identity_seen=False)
    for state in (State.PRE_REGISTERED, State.RETURNED, State.CONFIRMED, State.APPROVED):
        assert refusal(lambda s: case(s).confirmed(DURING, desk("shizhong"), papers, leshan()), state) is (
            Code.FORM_OUTDATED
        )


@pytest.mark.parametrize("shown", [1, 3])
def test_only_the_latest_form_is_confirmed(shown: int) -> None:
    waiting = case(form=form(version=2))
    with pytest.raises(Refused) as refused:
        waiting.confirmed(DURING, desk("shizhong"), check(shown), leshan())
    assert (refused.value.code, refused.value.hints["form_version"]) == (Code.FORM_OUTDATED, 2)
    assert waiting.confirmed(DURING, desk("shizhong"), check(2), leshan()).state is State.CONFIRMED


def papers_refused(cycle: Cycle | None = None, **changed: object) -> list[str]:
    with pytest.raises(Refused) as refused:
        case().confirmed(DURING, desk("shizhong"), check(**changed), cycle or leshan())  # type: ignore[arg-type]  # by name
    assert refused.value.code is Code.DOCUMENTS_MISSING
    return [error.field for error in refused.value.fields]


def test_identity_stamp_and_papers_must_have_been_seen() -> None:
    assert papers_refused(identity_seen=False) == ["identity_seen"]
    assert papers_refused(stamped=False) == ["stamped"]
    assert papers_refused(identity_seen=False, stamped=False) == ["identity_seen", "stamped"]


@pytest.mark.parametrize("document", leshan().documents, ids=lambda d: str(d.id))
def test_a_paper_that_the_desk_calls_missing_stops_the_confirmation(document: object) -> None:
    name = document.id  # type: ignore[attr-defined]  # a parameter
    assert papers_refused(documents={name: Mark.MISSING}) == [f"documents.{name}"]


@pytest.mark.parametrize("document", leshan().documents, ids=lambda d: str(d.id))
def test_what_everybody_must_bring_cannot_be_waived_and_the_rest_can(document: object) -> None:
    name, needed = document.id, document.needed  # type: ignore[attr-defined]  # a parameter
    if needed:
        assert papers_refused(documents={name: Mark.NOT_NEEDED}) == [f"documents.{name}"]
    else:
        waived = check(documents={name: Mark.NOT_NEEDED})
        assert case().confirmed(DURING, desk("shizhong"), waived, leshan()).state is State.CONFIRMED


def test_a_needed_paper_that_is_not_marked_was_not_seen() -> None:
    unmarked = replace(check(), documents={})
    with pytest.raises(Refused) as refused:
        case().confirmed(DURING, desk("shizhong"), unmarked, leshan())
    assert [f.field for f in refused.value.fields] == [
        f"documents.{d.id}" for d in leshan().documents if d.needed
    ]


def test_a_paper_that_is_not_on_the_checklist_is_a_mistake() -> None:
    strange = check(documents={"horoscope": Mark.SEEN})
    assert refusal(lambda: case().confirmed(DURING, desk("shizhong"), strange, leshan())) is Code.INVALID


# --- review


def test_levels_approve_in_their_order_and_the_last_one_opens_payment() -> None:
    one = case(State.CONFIRMED, version=1)
    two = one.approved(LATER, "site", leshan())
    assert (two.state, two.passed, two.version) == (State.CONFIRMED, 2, 2)
    three = two.approved(LATER, "district", leshan())
    # “reviewed” and “approved” are two facts
    assert (three.state, three.passed, three.version) == (State.APPROVED, 3, 4)


def test_a_level_out_of_turn_is_refused() -> None:
    assert refusal(lambda: case(State.CONFIRMED).approved(LATER, "district", leshan())) is Code.NOT_ALLOWED
    assert refusal(lambda: case(State.CONFIRMED).approved(LATER, "desk", leshan())) is Code.NOT_ALLOWED
    assert (
        refusal(lambda: case(State.CONFIRMED, passed=2).approved(LATER, "site", leshan())) is Code.NOT_ALLOWED
    )
    assert refusal(lambda: case(State.APPROVED).approved(LATER, "district", leshan())) is Code.NOT_ALLOWED
    assert (
        refusal(lambda: case(State.REJECTED, passed=1).approved(LATER, "site", leshan())) is Code.NOT_ALLOWED
    )
    assert refusal(lambda: case(State.CONFIRMED).approved(LATER, "ministry", leshan())) is Code.NOT_FOUND


@pytest.mark.parametrize("state", [State.PRE_REGISTERED, State.RETURNED, State.LAPSED, State.WITHDRAWN])
def test_nobody_is_approved_unconfirmed(state: State) -> None:
    assert refusal(lambda: case(state).approved(LATER, "site", leshan())) is Code.NOT_CONFIRMED


def test_nobody_is_approved_after_payment_closed() -> None:
    closes = moment("2024-02-09")
    ready = case(State.CONFIRMED, passed=2)
    assert ready.approved(closes - TINY, "district", leshan()).state is State.APPROVED
    for state in State:  # the window is asked before the state
        assert refusal(lambda s: case(s).approved(closes, "district", leshan()), state) is Code.WINDOW_CLOSED


def reject(one: Case, level: str, at: datetime = DURING) -> Case:
    return one.rejected(at, desk("shizhong"), level, leshan())


def send_back(one: Case, level: str, at: datetime = DURING, until: datetime | None = None) -> Case:
    return one.returned(at, desk("shizhong"), level, until, leshan())


@pytest.mark.parametrize("act", [reject, send_back])
@pytest.mark.parametrize(
    ("state", "passed", "levels"),
    [
        (State.PRE_REGISTERED, 0, {"desk"}),
        (State.RETURNED, 0, {"desk"}),
        (State.CONFIRMED, 1, {"desk", "site"}),
        (State.CONFIRMED, 2, {"site", "district"}),
        (State.APPROVED, 3, {"site", "district"}),
        (State.LAPSED, 0, set()),
        (State.WITHDRAWN, 0, set()),
    ],
)
def test_each_level_returns_and_rejects_from_its_turn_on(
    act: Callable[[Case, str], Case], state: State, passed: int, levels: set[str]
) -> None:
    one = case(state, passed=passed, version=7)
    for level in LEVELS:
        if level in levels:
            after = act(one, level)
            assert after.state is (State.REJECTED if act is reject else State.RETURNED)
            assert after.version == 8
        else:
            assert refusal(lambda level: act(one, level), level) is Code.NOT_ALLOWED


@pytest.mark.parametrize(
    ("passed", "levels"), [(0, {"desk"}), (1, {"site"}), (2, {"site", "district"}), (3, {"site", "district"})]
)
def test_a_rejection_is_taken_back_by_returning_the_case_and_by_nothing_else(
    passed: int, levels: set[str]
) -> None:
    rejected = case(State.REJECTED, passed=passed)
    for level in LEVELS:
        assert refusal(lambda level: reject(rejected, level), level) is Code.NOT_ALLOWED
        assert refusal(lambda level: rejected.approved(LATER, level, leshan()), level) in (
            Code.NOT_ALLOWED,
            Code.NOT_CONFIRMED,
        )
        if level in levels:
            back = send_back(rejected, level)
            assert (back.state, back.passed) == (State.RETURNED, 0)
        else:
            assert refusal(lambda level: send_back(rejected, level), level) is Code.NOT_ALLOWED


@pytest.mark.parametrize("state", [State.APPROVED, State.REJECTED])
def test_an_approval_is_not_returned_once_money_may_have_moved(state: State) -> None:
    """Rejecting is the way then: it gives the money back."""
    opens, closes = moment("2024-01-29"), moment("2024-02-09")
    approved = case(state, passed=3)
    assert send_back(approved, "district", opens - TINY, closes).state is State.RETURNED
    assert refusal(lambda: send_back(approved, "district", opens, closes)) is Code.NOT_ALLOWED
    never_approved = case(State.CONFIRMED, passed=2)
    assert send_back(never_approved, "district", opens, closes).state is State.RETURNED


def test_a_return_starts_everything_again() -> None:
    until = moment("2023-12-25")
    back = send_back(case(State.CONFIRMED, passed=2, version=2), "district", LATER, until)
    assert (back.state, back.passed, back.fix_until, back.version) == (State.RETURNED, 0, until, 3)
    again = back.confirmed(moment("2023-12-24"), desk("shizhong"), check(), leshan())
    assert (again.state, again.passed, again.fix_until) == (State.CONFIRMED, 1, None)
    assert refusal(lambda: again.approved(moment("2023-12-24"), "district", leshan())) is Code.NOT_ALLOWED


def test_a_return_gives_time() -> None:
    confirmed = case(State.CONFIRMED)
    assert refusal(lambda: send_back(confirmed, "site", LATER, LATER)) is Code.INVALID
    assert send_back(confirmed, "site", LATER, LATER + TINY).fix_until == LATER + TINY
    # after the desk's last day there is no time unless it is named
    assert refusal(lambda: send_back(confirmed, "site", moment("2023-12-14 12:00"))) is Code.INVALID
    assert send_back(confirmed, "site", moment("2023-12-14 12:00") - TINY).state is State.RETURNED


@pytest.mark.parametrize("state", [State.PRE_REGISTERED, State.RETURNED])
def test_whose_time_is_over_has_lapsed_even_before_the_job_says_so(state: State) -> None:
    over = moment("2023-12-14 12:00")
    assert refusal(lambda: send_back(case(state), "desk", over, LATER)) is Code.NOT_ALLOWED
    assert refusal(lambda: reject(case(state), "desk", over)) is Code.NOT_ALLOWED


def test_a_return_or_rejection_says_why() -> None:
    require_reasons((ReasonCode.YEARS,), None)
    require_reasons((ReasonCode.OTHER,), "缺少带教证明")
    with pytest.raises(Refused):
        require_reasons((), "缺少带教证明")
    for nothing in (None, "", "  "):
        with pytest.raises(Refused) as refused:
            require_reasons((ReasonCode.YEARS, ReasonCode.OTHER), nothing)
        assert [f.field for f in refused.value.fields] == ["note"]


# --- what candidates did


def test_an_amendment_moves_the_case_to_the_newer_form() -> None:
    newer = form("wutongqiao", 2, specialty_code="301", level="intermediate", subjects=(3, 4))
    for state in (State.PRE_REGISTERED, State.RETURNED):
        amended = case(state, version=3).amended(newer)
        assert (amended.form, amended.state, amended.version) == (newer, state, 3)


def test_an_amendment_leaves_the_time_of_a_return_alone() -> None:
    until = moment("2023-12-22")
    assert case(State.RETURNED, fix_until=until).amended(form(version=2)).fix_until == until


@pytest.mark.parametrize("state", [State.CONFIRMED, State.APPROVED])
def test_an_amendment_that_comes_after_a_confirmation_undoes_it(state: State) -> None:
    amended = case(state, version=3).amended(form(version=2))
    assert (amended.state, amended.passed, amended.version) == (State.RETURNED, 0, 4)


@pytest.mark.parametrize("state", [State.LAPSED, State.REJECTED, State.WITHDRAWN])
def test_an_amendment_does_not_bring_back_what_is_over(state: State) -> None:
    amended = case(state, version=3).amended(form("wutongqiao", 2))
    assert (amended.state, amended.form.site_id, amended.version) == (state, "wutongqiao", 3)


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_form_is_never_put_over_a_newer_one(version: int) -> None:
    with pytest.raises(FormNotNewer):
        case(form=form(version=2)).amended(form(version=version))


def test_a_withdrawal_ends_whatever_there_was_once() -> None:
    for state in set(State) - {State.WITHDRAWN}:
        withdrawn = case(state, version=3).withdrawn()
        assert (withdrawn.state, withdrawn.version) == (State.WITHDRAWN, 3)
    with pytest.raises(NotExpected):
        case(State.WITHDRAWN).withdrawn()


# --- the table


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(NEXT) == set(State)
    reached = {State.PRE_REGISTERED}
    while more := {to for state in reached for to in NEXT[state].values()} - reached:
        reached |= more
    assert reached == set(State)


def test_only_who_waits_for_a_desk_can_lapse() -> None:
    assert set(states_that_allow(Action.LAPSE)) == {State.PRE_REGISTERED, State.RETURNED}
    for state in set(State) - {State.PRE_REGISTERED, State.RETURNED}:
        assert refusal(lambda s: case(s).lapsed(LATER, desk("shizhong")), state) is Code.NOT_ALLOWED


ACTS: dict[Action, Callable[[Case, datetime], Case]] = {
    Action.CONFIRM: lambda c, at: c.confirmed(at, desk("shizhong"), check(c.form.form_version), leshan()),
    Action.RETURN: lambda c, at: send_back(
        c, LEVELS[c.passed] if c.passed < 3 else "district", at, at + TINY
    ),
    Action.APPROVE: lambda c, at: c.approved(at, "site", leshan()),
    Action.APPROVE_LAST: lambda c, at: c.approved(at, "district", leshan()),
    Action.REJECT: lambda c, at: reject(c, LEVELS[c.passed] if c.passed < 3 else "district", at),
    Action.LAPSE: lambda c, at: c.lapsed(at, desk("shizhong")),
    Action.AMEND: lambda c, _: c.amended(form(version=c.form.form_version + 1)),
    Action.WITHDRAW: lambda c, _: c.withdrawn(),
}


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Action)), st.timedeltas(timedelta(0), timedelta(days=3))), max_size=30
    )
)
def test_whatever_is_tried_the_table_is_kept_and_no_version_is_skipped(
    tries: list[tuple[Action, timedelta]],
) -> None:
    now, at = case(), moment("2023-12-07")
    for action, passing in tries:
        at += passing
        before = now
        try:
            now = ACTS[action](before, at)
        except (Refused, AlreadyConfirmed, NotExpected):
            continue
        assert now.state is NEXT[before.state][action]
        assert now.version - before.version in (0, 1, 2)
        said = now.state is not before.state or now.passed != before.passed
        if action in (Action.AMEND, Action.WITHDRAW) and not (action is Action.AMEND and said):
            assert now.version == before.version, "registration says that itself"
        else:
            assert now.version > before.version
        assert (now.state in (State.CONFIRMED, State.APPROVED)) <= (now.passed > 0)
        assert (now.state is State.APPROVED) <= (now.passed == 3)

"""A registration's case at its desk and before its reviewers: what may happen to it, and when.

Plain Python: no clock, no database, no Kafka. Whoever asks brings the moment. It knows no person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NoReturn, Self
from uuid import UUID

from contracts.cycle import Cycle, Document, Window
from contracts.reasons import ReasonCode
from contracts.refusals import Code, FieldError, Refused


class State(StrEnum):
    """Where a case stands. `passed` of the case says how far a confirmed one has come."""

    PRE_REGISTERED = "pre-registered"
    RETURNED = "returned"
    CONFIRMED = "confirmed"
    APPROVED = "approved"
    REJECTED = "rejected"
    LAPSED = "lapsed"
    WITHDRAWN = "withdrawn"


class Action(StrEnum):
    """What can happen to a case."""

    CONFIRM = "confirm"
    RETURN = "return"
    APPROVE = "approve"
    APPROVE_LAST = "approve-last"
    REJECT = "reject"
    LAPSE = "lapse"
    AMEND = "amend"
    WITHDRAW = "withdraw"


# What is not here is not allowed. Amending and withdrawing are the candidate's, decided and accepted by registration
# before this service hears of them: they follow even where they come after a decision that overtook them, and an
# amendment undoes what was confirmed or approved on the older form.
NEXT: Final[Mapping[State, Mapping[Action, State]]] = {
    State.PRE_REGISTERED: {
        Action.CONFIRM: State.CONFIRMED,
        Action.RETURN: State.RETURNED,
        Action.REJECT: State.REJECTED,
        Action.LAPSE: State.LAPSED,
        Action.AMEND: State.PRE_REGISTERED,
        Action.WITHDRAW: State.WITHDRAWN,
    },
    State.RETURNED: {
        Action.CONFIRM: State.CONFIRMED,
        Action.RETURN: State.RETURNED,
        Action.REJECT: State.REJECTED,
        Action.LAPSE: State.LAPSED,
        Action.AMEND: State.RETURNED,
        Action.WITHDRAW: State.WITHDRAWN,
    },
    State.CONFIRMED: {
        Action.RETURN: State.RETURNED,
        Action.APPROVE: State.CONFIRMED,
        Action.APPROVE_LAST: State.APPROVED,
        Action.REJECT: State.REJECTED,
        Action.AMEND: State.RETURNED,
        Action.WITHDRAW: State.WITHDRAWN,
    },
    State.APPROVED: {
        Action.RETURN: State.RETURNED,
        Action.REJECT: State.REJECTED,
        Action.AMEND: State.RETURNED,
        Action.WITHDRAW: State.WITHDRAWN,
    },
    State.REJECTED: {
        Action.RETURN: State.RETURNED,
        Action.AMEND: State.REJECTED,
        Action.WITHDRAW: State.WITHDRAWN,
    },
    State.LAPSED: {Action.AMEND: State.LAPSED, Action.WITHDRAW: State.WITHDRAWN},
    State.WITHDRAWN: {Action.AMEND: State.WITHDRAWN},
}


def states_that_allow(action: Action) -> tuple[State, ...]:
    """The states from which `action` leads on: set-based statements take their predicate from here."""
    return tuple(state for state, ways in NEXT.items() if action in ways)


class Mark(StrEnum):
    """What the desk says about one document of the checklist."""

    SEEN = "seen"
    MISSING = "missing"
    NOT_NEEDED = "not-needed"


class AlreadyConfirmed(Exception):
    """Asked to confirm what is confirmed on the same form: no refusal, and nothing new either."""


class FormNotNewer(Exception):
    """An amendment whose form is not newer than the one known. Order per registration was broken: people must look."""


class NotExpected(Exception):
    """A fact about a registration that its case has no way to follow. People must look."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A desk as it stands now: the times of the cycle file, or those the office set over them."""

    site_id: str
    window: Window | None  # none: “以单位人事科通知为准”, and nobody has named the days yet
    closes_at: datetime  # the first moment at which whoever was not confirmed there lapses

    @classmethod
    def of(cls, cycle: Cycle, site_id: str, set_window: Window | None) -> Self:
        """The desk of the cycle file, with the window the office set, if it did."""
        window = set_window or cycle.site(site_id).window
        return cls(site_id, window, window.closes if window else cycle.windows.confirmation.closes)


@dataclass(frozen=True, slots=True)
class AtDesk:
    """Whom another window of a desk concerns."""

    waiting: int  # who is told
    by_the_close: int  # who of them has no time of their own, given with a return
    all_of_them: int  # who registered there and is still in it, confirmed or not

    def costs_too_much(self, per_mille: int) -> bool:
        """Whether an earlier close would take the announced time from more than a close may cost."""
        return self.by_the_close * 1000 > self.all_of_them * per_mille


@dataclass(frozen=True, slots=True)
class PaymentClose:
    """Until when payment is open for a desk's people, and until when they are told it is."""

    closes_at: datetime
    told_closes_at: datetime


@dataclass(frozen=True, slots=True)
class Form:
    """What a candidate applied for, as printed on one version of the form."""

    site_id: str
    specialty_code: str
    level: str
    subjects: tuple[int, ...]
    form_version: int


@dataclass(frozen=True, slots=True)
class DeskCheck:
    """What a desk saw of the person and the papers."""

    form_version: int
    identity_seen: bool
    stamped: bool
    documents: Mapping[str, Mark]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One registration. Each method returns the case as it is afterwards, or raises; nothing is done silently."""

    registration_id: UUID
    cycle_id: str
    form: Form
    returning: bool
    state: State = State.PRE_REGISTERED
    passed: int = 0  # review levels passed, in the cycle's order; the desk's confirmation is the first
    fix_until: datetime | None = None  # the end of a return, instead of the desk's close
    version: int = 0  # facts said about this registration so far

    def deadline(self, desk: Desk) -> datetime:
        """The first moment at which this case can no longer be confirmed."""
        return self.fix_until or desk.closes_at

    def is_overdue(self, at: datetime, desk: Desk) -> bool:
        """Whether it must lapse. 现场确认窗口结束仍未确认的，视为未确认。"""
        return Action.LAPSE in NEXT[self.state] and at >= self.deadline(desk)

    def confirmed(self, at: datetime, desk: Desk, check: DeskCheck, cycle: Cycle) -> Self:
        """The desk saw person and papers. Window first, then state, then form and papers."""
        self._require_open_desk(at, desk)
        if self.state in (State.CONFIRMED, State.APPROVED) and check.form_version == self.form.form_version:
            raise AlreadyConfirmed
        if self.is_overdue(at, desk):
            raise Refused(Code.NOT_ALLOWED, "该报名的补正期限已过，已作逾期未确认处理，不能再确认。")
        if self.state not in (*states_that_allow(Action.CONFIRM), State.CONFIRMED, State.APPROVED):
            self._refuse("不能现场确认")
        if check.form_version != self.form.form_version:
            raise Refused(
                Code.FORM_OUTDATED,
                f"申报表不是最新版本（最新为第{self.form.form_version}版），请重新打印、盖章后再确认。",
                hints={"form_version": self.form.form_version},
            )
        _require_papers(check, cycle.documents)
        # The desk is the first level, and the last one where a cycle has no other.
        last = len(cycle.review_levels) == 1
        return replace(
            self._to(Action.CONFIRM),
            state=State.APPROVED if last else State.CONFIRMED,
            passed=1,
            fix_until=None,
            version=self.version + (2 if last else 1),
        )

    def returned(
        self, at: datetime, desk: Desk, level: str, fix_until: datetime | None, cycle: Cycle
    ) -> Self:
        """Sent back: the desk must confirm it again, and every level starts again.

        It is also how a decision, be it a yes or a no, is taken back with a reason: until money may have moved.
        """
        self._require_turn(at, desk, level, cycle, Action.RETURN)
        if self.passed == len(cycle.review_levels) and at >= cycle.windows.payment.opens:
            raise Refused(
                Code.NOT_ALLOWED,
                "该考生已审核通过且缴费已经开始，不能再退回；不符合条件的，请作审核不通过处理，已缴费用将退还。",
                hints={"state": self.state.value},
            )
        if (fix_until or desk.closes_at) <= at:
            raise Refused(
                Code.INVALID,
                "退回后的补正期限必须晚于现在；报名点的确认时间已结束的，须写明补正期限。",
                (FieldError("fix_until", "必须晚于现在"),),
            )
        return replace(self._to(Action.RETURN), passed=0, fix_until=fix_until, version=self.version + 1)

    def approved(
        self, at: datetime, level: str, cycle: Cycle, payment_closes_at: datetime | None = None
    ) -> Self:
        """This level found the candidate qualified; after the last level the candidate may pay.

        `payment_closes_at`: the close of payment that the office has set since, if it has.
        """
        if at >= (payment_closes_at or cycle.windows.payment.closes):
            raise Refused(
                Code.WINDOW_CLOSED, "缴费时间已结束，不能再审核通过；如需继续，请先由考试办公室延长缴费时间。"
            )
        if self.state not in (State.CONFIRMED, State.APPROVED, State.REJECTED):
            raise not_confirmed()
        place = _place(level, cycle)
        if self.state is not State.CONFIRMED or self.passed != place:
            self._refuse("不能由这一级审核通过")
        last = place == len(cycle.review_levels) - 1
        moved = self._to(Action.APPROVE_LAST if last else Action.APPROVE)
        return replace(moved, passed=place + 1, version=self.version + (2 if last else 1))

    def rejected(self, at: datetime, desk: Desk, level: str, cycle: Cycle) -> Self:
        """Found not qualified: by a level in its turn, or by one that thinks again, also after approval."""
        self._require_turn(at, desk, level, cycle, Action.REJECT)
        return replace(self._to(Action.REJECT), version=self.version + 1)

    def lapsed(self, at: datetime, desk: Desk) -> Self:
        """Nobody confirmed it until its deadline."""
        if Action.LAPSE not in NEXT[self.state]:
            self._refuse("不会逾期")
        if at < self.deadline(desk):
            raise Refused(Code.NOT_ALLOWED, "现场确认期限未到，不能作逾期处理。")
        return replace(self._to(Action.LAPSE), version=self.version + 1)

    def amended(self, form: Form) -> Self:
        """The candidate saved a newer form. One that overtook its own confirmation undoes it."""
        if form.form_version <= self.form.form_version:
            raise FormNotNewer(f"form {form.form_version} is not newer than {self.form.form_version}")
        if Action.AMEND not in NEXT[self.state]:
            raise NotExpected(f"an amendment of a case that is {self.state}")
        undone = self.state in (State.CONFIRMED, State.APPROVED)
        return replace(
            self._to(Action.AMEND),
            form=form,
            passed=0 if undone else self.passed,
            version=self.version + undone,
        )

    def withdrawn(self) -> Self:
        """The candidate withdrew."""
        if Action.WITHDRAW not in NEXT[self.state]:
            raise NotExpected(f"a withdrawal of a case that is {self.state}")
        return self._to(Action.WITHDRAW)

    def told_new_window(self) -> Self:
        """Its desk's window was moved: nothing changes but that the candidate is told."""
        return replace(self, version=self.version + 1)

    def _to(self, action: Action) -> Self:
        return replace(self, state=NEXT[self.state][action])

    def _require_open_desk(self, at: datetime, desk: Desk) -> None:
        if desk.window is None:
            raise Refused(
                Code.DESK_UNDATED, "该报名点的现场确认时间以单位人事科通知为准，目前尚未公布，请等待通知。"
            )
        if desk.window.not_yet_open(at):
            raise Refused(
                Code.WINDOW_NOT_OPEN,
                "该报名点的现场确认尚未开始，请在公布的时间内办理。",
                hints={"opens_at": desk.window.opens.isoformat()},
            )
        # A return may give time beyond the desk's last day. One that gives less ends the case, not the desk's window.
        given = self.fix_until if self.state is State.RETURNED and self.fix_until else desk.closes_at
        if at >= max(given, desk.closes_at):
            raise Refused(
                Code.WINDOW_CLOSED,
                "该考生的现场确认期限已过，不能再确认。",
                hints={"closed_at": max(given, desk.closes_at).isoformat()},
            )
        # After the desk's own last day a return keeps no hours; on the days before it the desk does.
        if not desk.window.is_open(at) and not desk.window.has_closed(at):
            raise Refused(Code.WINDOW_NOT_OPEN, "现在不在该报名点的办理时间内，请在公布的时间内办理。")

    def _require_turn(self, at: datetime, desk: Desk, level: str, cycle: Cycle, action: Action) -> None:
        """The desk decides until the next level has, every other level from the one before it on: also about what it,
        or a later level, decided before. A rejection of one whom the desk had confirmed may be another level's.
        """
        place = _place(level, cycle)
        allowed = action in NEXT[self.state] and not self.is_overdue(at, desk)
        if place == 0:
            allowed = allowed and self.passed <= (0 if self.state is State.REJECTED else 1)
        else:
            allowed = allowed and self.passed >= place
        if not allowed:
            self._refuse("不能由这一级作此决定")

    def _refuse(self, what: str) -> NoReturn:
        raise Refused(
            Code.NOT_ALLOWED,
            f"该报名目前的状态是“{_STATE_TEXT[self.state]}”，{what}，请刷新后再试。",
            hints={"state": self.state.value},
        )


def require_reasons(codes: Sequence[ReasonCode], note: str | None) -> None:
    """A return or a rejection says why; 其他 says it in words."""
    if not codes:
        raise Refused(Code.INVALID, "退回或不通过必须注明原因。", (FieldError("reason_codes", "至少一项"),))
    if ReasonCode.OTHER in codes and not (note and note.strip()):
        raise Refused(
            Code.INVALID, "原因为“其他”时必须写明说明。", (FieldError("note", "原因为“其他”时必填"),)
        )


def not_confirmed() -> Refused:
    """What a reviewer hears about somebody whom no desk has confirmed."""
    return Refused(Code.NOT_CONFIRMED, "该报名尚未通过现场确认，不能审核通过。")


def _place(level: str, cycle: Cycle) -> int:
    for place, known in enumerate(cycle.review_levels):
        if known.id == level:
            return place
    raise Refused(Code.NOT_FOUND, "没有这一级审核。")


def _require_papers(check: DeskCheck, documents: Sequence[Document]) -> None:
    """The person, the employer's stamp, and every document the desk does not call unneeded must have been seen."""
    known = {document.id: document for document in documents}
    unknown = [
        FieldError(f"documents.{i}", "核对清单中没有这一项") for i in check.documents if i not in known
    ]
    if unknown:
        raise Refused(Code.INVALID, "提交的核对清单与本次考试的清单不一致，请刷新后重填。", tuple(unknown))
    missing = []
    if not check.identity_seen:
        missing.append(FieldError("identity_seen", "未核验本人身份"))
    if not check.stamped:
        missing.append(FieldError("stamped", "申报表或复印件未加盖单位公章"))
    for document in documents:
        mark = check.documents.get(document.id, Mark.MISSING if document.needed else Mark.NOT_NEEDED)
        # “missing” is the desk's word that this person needs it; “not-needed” cannot waive what everybody must bring.
        if mark is Mark.MISSING or (document.needed and mark is not Mark.SEEN):
            missing.append(FieldError(f"documents.{document.id}", f"缺少{document.name}"))
    if missing:
        lacks = "；".join(error.reason for error in missing)
        raise Refused(Code.DOCUMENTS_MISSING, f"不能确认：{lacks}。请备齐后再来。", tuple(missing))


_STATE_TEXT: Final[Mapping[State, str]] = {
    State.PRE_REGISTERED: "已预报名，待现场确认",
    State.RETURNED: "已退回，待补正",
    State.CONFIRMED: "已现场确认，待审核",
    State.APPROVED: "审核通过",
    State.REJECTED: "审核不通过",
    State.LAPSED: "逾期未确认",
    State.WITHDRAWN: "已撤回",
}

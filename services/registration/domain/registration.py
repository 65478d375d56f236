"""What a registration is, in which state it stands, and what its candidate may still do.

The later stages are other services' decisions; here they are a view, and only as a view do they bind the candidate.
"""

from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

from contracts.cycle import Cycle
from contracts.refusals import Code, Refused
from services.registration.domain.desks import Desk, Desks
from services.registration.domain.form import Choice, Person


class Confirmation(StrEnum):
    """What the desk and the review last said."""

    OPEN = "open"
    RETURNED = "returned"
    CONFIRMED = "confirmed"
    APPROVED = "approved"
    REJECTED = "rejected"
    LAPSED = "lapsed"


class Payment(StrEnum):
    NONE = "none"
    AWAITING = "awaiting"
    PAID = "paid"
    EXPIRED = "expired"


class State(StrEnum):
    PRE_REGISTERED = "pre-registered"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    APPROVED = "approved"
    PAID = "paid"
    EXPIRED = "expired"

    @property
    def text(self) -> str:
        return _STATES[self]


_STATES: Final = {
    State.PRE_REGISTERED: "已预报名，待现场确认",
    State.WITHDRAWN: "已撤回",
    State.LAPSED: "未在规定时间现场确认，报名已失效",
    State.CONFIRMED: "已现场确认，待资格审核",
    State.REJECTED: "资格审核不通过",
    State.APPROVED: "资格审核通过，待缴费",
    State.PAID: "已缴费",
    State.EXPIRED: "未按规定时间缴费，视为自动放弃考试",
}


class Act(StrEnum):
    """What a candidate can do to a registration they have."""

    AMEND = "amend"
    WITHDRAW = "withdraw"


# The whole table: from which state which act leads where. What is not here is refused.
NEXT: Final[Mapping[tuple[State, Act], State]] = {
    (State.PRE_REGISTERED, Act.AMEND): State.PRE_REGISTERED,
    (State.PRE_REGISTERED, Act.WITHDRAW): State.WITHDRAWN,
}

# Nothing more comes of these: who it is of may be deleted when they ask for it (个人信息保护法 第四十七条).
ERASABLE: Final = frozenset({State.WITHDRAWN, State.LAPSED, State.REJECTED, State.EXPIRED})
# A payment that was in time may be heard of, or two people may decide, so long after the close; then the place comes back.
MAY_COME_BACK_FOR: Final = timedelta(days=30)

# While one of these holds, the person cannot register again in the same cycle.
FREEING: Final = frozenset({State.WITHDRAWN, State.LAPSED})

_PAID_OR_FORFEITED: Final = {
    Payment.NONE: State.APPROVED,
    Payment.AWAITING: State.APPROVED,
    Payment.PAID: State.PAID,
    Payment.EXPIRED: State.EXPIRED,
}
_CONFIRMATIONS: Final = {
    Confirmation.OPEN: State.PRE_REGISTERED,
    Confirmation.RETURNED: State.PRE_REGISTERED,
    Confirmation.CONFIRMED: State.CONFIRMED,
    Confirmation.REJECTED: State.REJECTED,
    Confirmation.LAPSED: State.LAPSED,
}


def combined(withdrawn: bool, confirmation: Confirmation, payment: Payment) -> State:
    """One word for where a registration stands.

    Streams of two services may overtake each other: a payment that is known before its approval counts already.
    """
    if withdrawn:
        return State.WITHDRAWN
    if confirmation in (Confirmation.REJECTED, Confirmation.LAPSED):
        return _CONFIRMATIONS[confirmation]
    if confirmation is Confirmation.APPROVED or payment in (Payment.PAID, Payment.EXPIRED):
        return _PAID_OR_FORFEITED[payment]
    return _CONFIRMATIONS[confirmation]


@dataclass(frozen=True, slots=True)
class Registration:
    id: UUID
    number: str
    choice: Choice
    form_version: int
    version: int  # of the registration in this service: the sequence of its last event
    withdrawn: bool
    confirmation: Confirmation
    payment: Payment
    fix_until: datetime | None
    payment_closes_at: datetime | None = None
    erased: bool = False  # who it is of is not known any more

    @classmethod
    def new(cls, registration_id: UUID, number: str, choice: Choice) -> Self:
        return cls(registration_id, number, choice, 1, 1, False, Confirmation.OPEN, Payment.NONE, None)

    @property
    def state(self) -> State:
        return combined(self.withdrawn, self.confirmation, self.payment)

    def deadline(self, desks: Desks, cycle: Cycle) -> datetime:
        """The first moment at which this candidate can no longer be confirmed: the desk's end, or 补正期限."""
        if self.confirmation is Confirmation.RETURNED and self.fix_until is not None:
            return self.fix_until
        return desks.desk(self.choice.site_id).ends_at(cycle)

    def may_amend(self, desks: Desks, cycle: Cycle, at: datetime) -> None:
        """Raises Refused: the window before the state.

        A return that gives less time than the desk ends the case, not the desk's window: from its last moment on the
        candidate has lapsed, whether or not confirmation's word of it has come.
        """
        deadline = self.deadline(desks, cycle)
        if at >= max(deadline, desks.desk(self.choice.site_id).ends_at(cycle)):
            raise Refused(
                Code.WINDOW_CLOSED,
                f"您的现场确认（补正）时间已经结束，报名信息不能再修改。如有疑问请致电考点 {cycle.contact_phone}。",
            )
        self._may(Act.AMEND)
        if at >= deadline:
            raise _not_allowed(State.LAPSED, Act.AMEND)

    def amended(self, choice: Choice, desks: Desks, at: datetime, facts: int) -> Self:
        """After a save: a new form version; `facts` is how many events it takes to say what changed.

        「考生如在打印申报表后对个人报考信息进行了修改，须重新打印并盖章。」
        """
        self._may(Act.AMEND)
        if choice.site_id != self.choice.site_id:
            desks.refuse_dead_end(choice.site_id, at)
        return replace(self, choice=choice, form_version=self.form_version + 1, version=self.version + facts)

    def withdraw(self, desks: Desks, cycle: Cycle, at: datetime) -> Self:
        """Until confirmed. Whoever missed the last moment has lapsed already, even if nobody has said so yet."""
        self._may(Act.WITHDRAW)
        if at >= self.deadline(desks, cycle):
            raise _not_allowed(State.LAPSED, Act.WITHDRAW)
        return replace(self, withdrawn=True, version=self.version + 1)

    def erase(self, cycle: Cycle, at: datetime) -> Self:
        """Its person asks to be forgotten. Raises Refused while anything may still come of it.

        Somebody whose registration still counts as theirs is known by their paper until nobody can register any more.
        """
        if self.erased:
            raise Refused(Code.NOT_FOUND, "这份报名的个人信息已经删除。")
        state = self.state
        if state not in ERASABLE:
            raise Refused(
                Code.NOT_ALLOWED,
                f"当前状态为“{state.text}”，报名仍在办理，不能删除个人信息。",
                hints={"state": state.value},
            )
        if state not in FREEING and not cycle.windows.pre_registration.has_closed(at):
            raise Refused(Code.NOT_ALLOWED, "网上预报名结束前不能删除这份报名的个人信息。")
        if (
            state is State.EXPIRED
            and self.payment_closes_at is not None
            and at < self.payment_closes_at + MAY_COME_BACK_FOR
        ):
            raise Refused(
                Code.NOT_ALLOWED,
                "缴费截止后三十日内仍可能恢复报名，期满后才能删除个人信息。",
                hints={"from": (self.payment_closes_at + MAY_COME_BACK_FOR).isoformat()},
            )
        return replace(self, erased=True, version=self.version + 1)

    def _may(self, act: Act) -> None:
        if (self.state, act) not in NEXT:
            raise _not_allowed(self.state, act)


def _not_allowed(state: State, act: Act) -> Refused:
    what = "不能再修改报名信息" if act is Act.AMEND else "不能撤回报名"
    todo = {
        State.CONFIRMED: "如信息有误，请联系现场确认的报名点更正。",
        State.APPROVED: "如不参加考试，不缴费即可。"
        if act is Act.WITHDRAW
        else "如信息有误，请联系报名点更正。",
        State.PAID: "如信息有误，请联系报名点更正。" if act is Act.AMEND else "缴费后不予退费。",
    }.get(state, "")
    return Refused(
        Code.NOT_ALLOWED, f"当前状态为“{state.text}”，{what}。{todo}", hints={"state": state.value}
    )


def refuse_outside_window(cycle: Cycle, at: datetime) -> None:
    """「2023年12月1-14日期间，考生可登录…进行网上预报名。」"""
    window = cycle.windows.pre_registration
    if window.is_open(at):
        return
    if window.has_closed(at):
        raise Refused(Code.WINDOW_CLOSED, "网上预报名时间已经结束，不能再提交报名。")
    raise Refused(
        Code.WINDOW_NOT_OPEN,
        "网上预报名尚未开放，请在规定的时间内提交。",
        hints={"opens": min(opens for opens, _ in window.spans if opens > at).isoformat()},
    )


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save gives the candidate to go on with."""

    registration: Registration
    desk: Desk
    form_code: str


@dataclass(frozen=True, slots=True, repr=False)
class View:
    """A registration with its person and all that is known of its later stages."""

    registration: Registration
    person: Person
    form_code: str
    pre_registered_at: datetime
    saved_at: datetime
    remarks: tuple[str, ...]
    failing: tuple[str, ...]  # channels whose messages do not arrive: sms, email
    decisions: Mapping[str, Mapping[str, object]]
    amount_fen: int | None
    payment_opens_at: datetime | None
    payment_closes_at: datetime | None
    paid_at: datetime | None


def already_registered(cycle: Cycle) -> Refused:
    return Refused(
        Code.ALREADY_REGISTERED,
        "该证件号码在本次考试中已有有效报名，不能重复报名。如需改报，请先撤回原报名；"
        f"如非本人操作，请致电考点 {cycle.contact_phone}。",
    )


def form_code(number: str, form_version: int, digest: bytes) -> str:
    """Printed on the form as text and QR code: a desk can see that the version was not filled in by hand.

    `digest` is a keyed hash of number and version; forty bits of it are short to type and long to guess.
    """
    return f"{number}-{form_version}-{b32encode(digest[:5]).decode()}"

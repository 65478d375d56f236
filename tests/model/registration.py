"""One registration as the rules see it: from the form to the desk, the reviewers and the fee."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.model import notice
from tests.model.notice import (
    CONFIRMATION,
    LAPSING_AT_ONCE,
    LEVELS,
    NO_ORDERS_BEFORE_CLOSE,
    ORDER_LIFE,
    PAYMENT,
)


class No(Exception):
    """Refused, with the code that says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Desks:
    """The desks as the office has set them so far."""

    hours: dict[str, tuple[datetime, datetime] | None] = field(default_factory=lambda: dict(notice.DESKS))

    payment: dict[str, datetime] = field(default_factory=lambda: dict.fromkeys(notice.DESKS, PAYMENT[1]))
    """When payment closes for the people of each desk."""

    def payment_closes(self, site: str | None) -> datetime:
        """Of nobody's desk: what holds at every one."""
        return min(self.payment.values()) if site is None else self.payment[site]

    def closes(self, site: str) -> datetime:
        """An undated desk that is never given a window ends with the overall one."""
        hours = self.hours[site]
        return CONFIRMATION[1] if hours is None else hours[1]


@dataclass
class Order:
    made_at: datetime
    ends_at: datetime
    amount_fen: int
    channel: str = "wechat"
    closed: bool = False
    let_go: bool = False
    """For another, or because nothing is owed. Alipay does not know a code that nobody has opened, so it stays payable."""
    paid_at: datetime | None = None
    heard_at: datetime | None = None
    """When the system will have learnt of the payment."""
    went_back: bool = False

    def give_up(self) -> None:
        self.let_go = True
        self.closed = self.closed or self.channel != "alipay"

    def lapses(self, at: datetime) -> bool:
        return self.let_go and not self.closed and self.paid_at is None and at < self.ends_at

    def is_open(self, at: datetime) -> bool:
        """To the system: not closed, not over, and no payment heard of."""
        return (
            not self.let_go
            and not self.closed
            and at < self.ends_at
            and (self.heard_at is None or self.heard_at > at)
        )


@dataclass
class Registration:
    desks: Desks
    site: str
    specialty: str
    subjects: list[int]
    made_at: datetime
    state: str = "pre-registered"
    form: int = 1
    passed: int = 0
    fix_until: datetime | None = None
    rejected_by_desk: bool = False
    """Rejected before any desk had confirmed it."""
    money: str | None = None
    orders: list[Order] = field(default_factory=list)
    told: list[tuple[str, datetime, datetime | None]] = field(default_factory=list)
    """(occasion, when it became true, until when it is of use)"""
    paid_by: Order | None = None
    reminded: set[datetime] = field(default_factory=set)
    pays_until: datetime | None = None
    """The own close of payment, once anything was owed."""
    pays_since: datetime = PAYMENT[0]
    """When that close was set: reminders of it lie after."""

    def tell(self, occasion: str, at: datetime, deadline: datetime | None = None) -> None:
        self.told.append((occasion, at, deadline))

    @property
    def is_waiting_for_the_desk(self) -> bool:
        return self.state in ("pre-registered", "returned")

    def deadline(self) -> datetime:
        """Until when the desk may confirm: after a return the date it names, else the desk's close."""
        if self.state == "returned" and self.fix_until is not None:
            return self.fix_until
        return self.desks.closes(self.site)

    # The candidate

    def amend(self, at: datetime, changed: dict[str, Any]) -> None:
        if at >= self.deadline():
            raise No("window-closed")
        if not self.is_waiting_for_the_desk:
            raise No("not-allowed")
        site = changed.get("site", self.site)
        if site != self.site and at >= self.desks.closes(site):
            raise No("desk-closed")
        self.site = site
        self.specialty = changed.get("specialty", self.specialty)
        self.subjects = changed.get("subjects", self.subjects)
        self.form += 1
        self.tell("amended", at, self.deadline())

    def withdraw(self, at: datetime) -> None:
        if not self.is_waiting_for_the_desk or at >= self.deadline():
            raise No("not-allowed")
        self.state = "withdrawn"
        opens, closes = notice.PRE_REGISTRATION
        self.tell("withdrawn", at, closes if opens <= at < closes else None)

    # The desk

    def confirm(self, at: datetime, desk: str, form: int | None, complete: bool) -> None:
        if desk != self.site:
            raise No("other-site")
        hours = self.desks.hours[self.site]
        if hours is None:
            raise No("desk-undated")
        if at < hours[0]:
            raise No("window-not-open")
        if at >= self.deadline():
            raise No("window-closed")
        form = self.form if form is None else form
        if self.state in ("confirmed", "approved") and form == self.form:
            return
        if self.state in ("withdrawn", "lapsed", "rejected"):
            raise No("not-allowed")
        if form != self.form:
            raise No("form-outdated")
        if not complete:
            raise No("documents-missing")
        self.state, self.passed, self.fix_until = "confirmed", 0, None
        self.tell("confirmed", at)

    def send_back(self, at: datetime, level: str, desk: str, fix_until: datetime | None) -> None:
        self._check_turn(at, level, desk, ("approved", "rejected"))
        if level == "desk" and self.state == "confirmed" and self.passed > 0:
            raise No("not-allowed")
        if self.passed == len(LEVELS) and at >= PAYMENT[0]:
            # "A decision can be undone with a reason until money moved": before the opening none can have.
            raise No("not-allowed")
        if (fix_until or self.desks.closes(self.site)) <= at:
            raise No("invalid")
        self.state, self.passed, self.fix_until, self.rejected_by_desk = "returned", 0, fix_until, False
        self._owe_nothing()
        self.tell("returned", at, self.deadline())

    def reject(self, at: datetime, level: str, desk: str) -> None:
        self._check_turn(at, level, desk, ("approved",))
        self.rejected_by_desk = self.is_waiting_for_the_desk
        self.state = "rejected"
        self._owe_nothing()
        self.tell("rejected", at)
        # What was paid is known, or shows when the order is closed at the gateway.
        for order in self.orders:
            if order.paid_at is not None:
                self._give_back(order, at)

    def _owe_nothing(self) -> None:
        if self.money is not None:
            self.money = "cancelled"
            for order in self.orders:
                if order.paid_at is None:
                    order.give_up()

    def _check_turn(self, at: datetime, level: str, desk: str, decided: tuple[str, ...]) -> None:
        """Whose turn it is: a level decides after the one before it, and may think again about what is `decided`."""
        if level == "desk":
            if desk != self.site:
                raise No("other-site")
            waiting = self.is_waiting_for_the_desk and at < self.deadline()
            undoes = "rejected" in decided and self.state == "rejected" and self.rejected_by_desk
            if not waiting and not (self.state == "confirmed" and self.passed == 0) and not undoes:
                raise No("not-allowed")
        elif (
            self.state not in ("confirmed", *decided)
            or self.passed < LEVELS.index(level)
            or self.rejected_by_desk
        ):
            raise No("not-allowed")

    # Reviewers

    def approve(self, at: datetime, level: str) -> None:
        if at >= self.desks.payment_closes(self.site):
            raise No("window-closed")
        if self.state in ("pre-registered", "returned", "lapsed", "withdrawn"):
            raise No("not-confirmed")
        if self.state != "confirmed" or LEVELS[self.passed] != level:
            raise No("not-allowed")
        self.passed += 1
        if self.passed == len(LEVELS):
            self.state, self.money = "approved", "awaiting"
            self.pays_until = self.desks.payment_closes(self.site)
            self.tell("approved", at, self.pays_until)
            self.tell("due", at, self.pays_until)

    def lapse(self, at: datetime) -> None:
        """不确认即失效: nobody was seen at the desk until the deadline."""
        self.state = "lapsed"
        # Whoever may still pre-register again must hear of it in time.
        opens, closes = notice.PRE_REGISTRATION
        self.tell("lapsed", at, closes if opens <= at < closes else None)

    # Money

    @property
    def fee_fen(self) -> int:
        return notice.fee_fen(self.specialty, self.subjects)

    @property
    def closes_at(self) -> datetime:
        """The close that an order is asked about: one's own; where nothing is awaited, the desk's if it is later."""
        if self.pays_until is None:
            return self.desks.payment_closes(None)
        if self.money == "awaiting":
            return self.pays_until
        return max(self.pays_until, self.desks.payment_closes(self.site))

    def move_close(self, at: datetime, closes: datetime) -> None:
        """Two people of the office have put the close off: whoever owes is told, a forfeiture is taken back."""
        if self.pays_until is None or self.pays_until >= closes or self.money not in ("awaiting", "expired"):
            return
        self.tell("payment-window-moved" if self.money == "awaiting" else "reinstated", at, closes)
        self.money, self.pays_until, self.pays_since = "awaiting", closes, at

    def revive(self, at: datetime, closes: datetime) -> None:
        """Two people of the office have lifted the forfeiture: it can be nothing else."""
        if self.money == "expired":
            self.tell("reinstated", at, closes)
            self.money, self.pays_until, self.pays_since = "awaiting", closes, at

    def order(self, at: datetime, channel: str) -> None:
        if at >= self.closes_at:
            raise No("window-closed")
        if at >= self.closes_at - NO_ORDERS_BEFORE_CLOSE:
            raise No("too-late-to-order")
        if at < PAYMENT[0]:
            raise No("window-not-open")
        if self.money in (None, "cancelled"):
            raise No("not-approved")
        for order in self.orders:
            if order.paid_at is not None and not order.closed:
                # Closing it at the gateway shows that it was paid, whether or not a callback had come.
                self.hear(order, at)
                raise No("already-paid")
        for order in self.orders:
            order.give_up()
        if channel == "alipay" and sum(order.lapses(at) for order in self.orders) >= LAPSING_AT_ONCE:
            raise No("not-allowed")
        self.orders.append(Order(at, min(at + ORDER_LIFE, self.closes_at), self.fee_fen, channel))

    def pay(self, at: datetime, which: int, calls_after: float | None) -> None:
        try:
            order = self.orders[which]
        except IndexError:
            raise No("gateway-refused") from None
        if order.closed or order.paid_at is not None or at >= order.ends_at:
            raise No("gateway-refused")
        order.paid_at = at
        order.heard_at = (
            order.ends_at if calls_after is None else min(order.ends_at, at + timedelta(seconds=calls_after))
        )

    def hear(self, order: Order, at: datetime) -> None:
        order.heard_at = at if order.heard_at is None else min(at, order.heard_at)
        if self.money in ("awaiting", "expired"):
            self.money, self.paid_by = "paid", order
            self.tell("paid", order.heard_at)
        elif self.money == "cancelled" or order is not self.paid_by:
            self._give_back(order, order.heard_at)

    def _give_back(self, order: Order, at: datetime) -> None:
        if not order.went_back:
            order.went_back = True
            self.tell("refunded", at)

    def hear_what_is_due(self, at: datetime) -> None:
        for order in self.orders:
            if order.heard_at is not None and order.heard_at <= at:
                self.hear(order, order.heard_at)

    def close(self, at: datetime) -> None:
        """未按规定时间完成网上缴费的，视为自动放弃考试。 The gateway is asked first: no callback proves nothing."""
        for order in self.orders:
            if order.paid_at is not None and order.paid_at < at:
                self.hear(order, at)
        if self.money == "awaiting":
            self.money = "expired"
            self.tell("expired", at)

    def remind(self, at: datetime) -> None:
        if self.money == "awaiting" and not any(order.is_open(at) for order in self.orders):
            self.tell("closing-soon", at, self.pays_until)

    # What becomes of it

    @property
    def outcome(self) -> str:
        if self.state == "approved":
            return {"awaiting": "approved", "paid": "paid", "expired": "expired"}[self.money or "awaiting"]
        return "pre-registered" if self.state == "returned" else self.state

    @property
    def paid_fen(self) -> int:
        return sum(order.amount_fen for order in self.orders if order.paid_at is not None)

    @property
    def refunded_fen(self) -> int:
        return sum(order.amount_fen for order in self.orders if order.went_back)

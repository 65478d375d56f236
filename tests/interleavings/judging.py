"""The reference model: what the gateways' books and the closes say must have become of each registration.

It is told nothing by the service but what the service keeps; what is true comes from the gateways' own books.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from deploy.simulators.order_book import TradeState
from deploy.simulators.refund_book import RefundStatus
from tests.interleavings.stories import Candidate
from tests.interleavings.town import Town
from tests.support.plays import Violation

FEE: Final = 20_000
# (state, what was said) → the state after it. Anything else is a transition that does not exist.
_NEXT: Final = {
    ("", "due"): "awaiting",
    ("awaiting", "paid"): "paid",
    ("awaiting", "expired"): "expired",
    ("awaiting", "window-moved"): "awaiting",
    ("expired", "reinstated"): "awaiting",
}
_DECIDED: Final = """
select d.closes_at, d.site_id, d.registration_id from decisions d join verdicts v using (decision_id)
where v.word = 'approved' and v.decided_by <> d.asked_by
"""
_REFUND_IS: Final = {"asked": "refund under way", "refused": "refund refused", "done": "refund done"}
_OBLIGATIONS: Final = """
select registration_id, status, version, closes_at, expired_at, proof_id is not null as proven,
       exists (select from orders r where r.registration_id = o.registration_id
               and r.status in ('creating', 'open', 'unknown', 'lapsing')) as undecided
from obligations o
"""


class Payment(NamedTuple):
    """One payment, as a gateway's book has it."""

    channel: str
    order_no: str
    transaction_id: str
    fen: int
    currency: str
    paid_at: datetime


@dataclass
class _Seen:
    """What was seen of one registration so far."""

    status: str = ""
    was: str = ""
    """Its row's state at the last look: held says nothing."""
    version: int = 0
    closes: list[datetime] = field(default_factory=list)
    """Every close that was in force for it, one after the other."""
    received: dict[str, Any] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    back: dict[str, str] = field(default_factory=dict)
    """Transaction → why it goes back."""
    returned: set[str] = field(default_factory=set)

    def close_is(self, closes_at: datetime) -> None:
        if closes_at not in self.closes[-1:]:
            self.closes.append(closes_at)


class Judge:
    def __init__(self, town: Town, candidates: Sequence[Candidate], reached: Counter[str]) -> None:
        self.town, self.reached = town, reached
        self._of = {one.registration_id: one for one in candidates}
        self._seen = {one.registration_id: _Seen() for one in candidates}
        self._entry = self._event = 0
        self._refunds: set[tuple[str, str]] = set()
        self._waiting: set[UUID] = set()
        """Decisions that somebody asked for and nobody has decided."""
        self._paid: set[str] = set()

    async def look(self) -> None:
        """What holds at every moment."""
        fetch, now = self.town.superuser.fetch, self.town.now
        rows = {row["registration_id"]: row for row in await fetch(_OBLIGATIONS)}
        before = {one: max(len(seen.closes) - 1, 0) for one, seen in self._seen.items()}
        await self._read_events(now, rows, await self._put_off(now))
        decided = await fetch(_DECIDED)
        for one, row in rows.items():
            seen, candidate = self._seen[one], self._of[one]
            seen.close_is(row["closes_at"])
            candidate.closes_at = row["closes_at"]
            mine = {self.town.cycle.windows.payment.closes}
            mine |= {
                decision["closes_at"]
                for decision in decided
                if decision["registration_id"] in (None, one)
                and decision["site_id"] in (None, candidate.site)
            }
            if not mine.issuperset(seen.closes):
                self._broken("I3", candidate, "its close moved, and no two people decided that")
        await self._read_ledger({one: self._seen[one].closes[first:] for one, first in before.items()})
        await self._read_refunds()
        payments = self.payments()
        for one, row in rows.items():
            self._check(self._of[one], self._seen[one], row, payments.get(one, []))

    def payments(self) -> Mapping[UUID, Sequence[Payment]]:
        found: dict[UUID, list[Payment]] = {}
        for candidate in self._of.values():
            for number in candidate.orders:
                gateway = self.town.gateway_of(number)
                order = gateway.book.find(number)
                if order is not None and order.state is TradeState.SUCCESS and order.paid_at is not None:
                    found.setdefault(candidate.registration_id, []).append(
                        Payment(
                            gateway.name,
                            number,
                            order.transaction_id,
                            order.amount_fen,
                            order.currency,
                            order.paid_at,
                        )
                    )
        return found

    async def _put_off(self, now: datetime) -> list[Any]:
        """Later closes that have waited for the second person since the last look."""
        asked = await self.town.superuser.fetch(
            "select d.decision_id, d.site_id, d.closes_at from decisions d "
            "where d.kind = 'extend-payment' and not d.earlier and d.closes_at > $1 "
            "and not exists (select from verdicts v where v.decision_id = d.decision_id)",
            now,
        )
        waited = [row for row in asked if row["decision_id"] in self._waiting]
        self._waiting = {row["decision_id"] for row in asked}
        return waited

    async def _read_events(self, now: datetime, rows: Mapping[UUID, Any], put_off: Sequence[Any]) -> None:
        said = await self.town.superuser.fetch(
            "select id, key, type, sequence, payload::json ->> 'cause' as cause, "
            "(payload::json ->> 'closes_at')::timestamptz as closes_at from outbox where id > $1 order by key, sequence",
            self._event,
        )
        last: dict[UUID, tuple[str, str]] = {}
        for row in said:
            self._event = max(self._event, row["id"])
            word = row["type"].rpartition("payment.")[2].partition(".")[0]
            if row["key"].startswith(self.town.cycle.id):  # of the cycle or of a desk
                self.reached[f"said {word}"] += 1
                continue
            one = UUID(row["key"])
            candidate, seen = self._of[one], self._seen[one]
            candidate.log.append(f"{now:%m-%d %H:%M:%S}     said {word} {row['cause'] or ''}")
            if row["sequence"] != seen.version + 1:
                self._broken("I3", candidate, f"version {row['sequence']} after {seen.version}")
            seen.version = row["sequence"]
            if last.get(one) == ("reinstated", "paid-in-time") and word != "paid":
                self._broken("I10", candidate, f"{word} after a reinstatement for a payment")
            last[one] = (word, row["cause"])
            self.reached[f"said {word}{' ' + row['cause'] if row['cause'] else ''}"] += 1
            if word == "refunded":
                continue
            following = _NEXT.get((seen.status, word))
            if following is None:
                self._broken("I3", candidate, f"{word} said of whoever is {seen.status}")
            if row["closes_at"] is not None:
                seen.close_is(row["closes_at"])
            if word == "expired" and now < row["closes_at"]:
                self._broken("I7", candidate, "forfeited before the close")
            if word == "expired" and any(
                one["site_id"] in (None, candidate.site) and one["closes_at"] > row["closes_at"]
                for one in put_off
            ):
                self._broken("I7", candidate, "forfeited while a later close is being decided about")
            seen.status = str(following)
        for one, (word, cause) in last.items():
            if (word, cause) == ("reinstated", "paid-in-time"):
                self._broken("I10", self._of[one], "reinstated for a payment and not paid")
        for one, row in rows.items():
            if row["version"] != self._seen[one].version:
                self._broken("I3", self._of[one], f"version {row['version']}, said {self._seen[one].version}")

    async def _read_ledger(self, closes: Mapping[UUID, Sequence[datetime]]) -> None:
        """`closes`: those that were in force since the last look."""
        entries = await self.town.superuser.fetch(
            "select entry_id, kind, registration_id, order_no, transaction_id, amount_fen, currency, paid_at, cause from ledger "
            "where entry_id > $1 order by entry_id",
            self._entry,
        )
        for row in entries:
            self._entry = row["entry_id"]
            one, number = row["registration_id"], row["transaction_id"]
            candidate, seen = self._of[one], self._seen[one]
            match row["kind"]:
                case "received":
                    seen.received[number] = row
                case "fee":
                    if row["paid_at"] >= max(closes[one]):
                        self._broken("I7", candidate, f"what was paid at {row['paid_at']} is a fee")
                    if (row["amount_fen"], row["currency"]) != (FEE, "CNY"):
                        self._broken("I1", candidate, f"{row['amount_fen']} {row['currency']} is a fee")
                    seen.kept.add(number)
                case "fee-taken-back":
                    seen.kept.discard(number)
                case "refund-due":
                    seen.back[number] = row["cause"]
                    self.reached[f"goes back: {row['cause']}"] += 1
                    self._check_cause(candidate, seen, row, closes[one])
                case "refunded":
                    if self._given_back(row["order_no"]) != row["amount_fen"]:
                        self._broken("I1", candidate, f"{row['order_no']} is said to have gone back")
                    seen.returned.add(number)
            if len(seen.kept) > 1:
                self._broken("I1", candidate, "two fees")

    async def _read_refunds(self) -> None:
        rows = await self.town.superuser.fetch("select refund_no, status from refunds where status <> 'due'")
        for row in rows:
            if (found := (row["refund_no"], row["status"])) not in self._refunds:
                self._refunds.add(found)
                self.reached[_REFUND_IS[row["status"]]] += 1

    def _check_cause(self, candidate: Candidate, seen: _Seen, row: Any, closes: Sequence[datetime]) -> None:
        """Money goes back for a reason that the books know."""
        in_time, right = row["paid_at"] < min(closes), row["amount_fen"] == FEE
        why = {
            "wrong-amount": not right,
            "paid-late": right and not in_time,
            "paid-twice": right and len(seen.received) > 1,
            "rejected": candidate.rejected,
        }
        if not why.get(row["cause"], False):
            self._broken(
                "I1", candidate, f"{row['amount_fen']} of {row['paid_at']} goes back: {row['cause']}"
            )
        if right and row["paid_at"] == closes[-1]:
            self.reached["paid at the very instant of the close"] += 1

    def _check(self, candidate: Candidate, seen: _Seen, row: Any, payments: Sequence[Payment]) -> None:
        status = row["status"]
        if status != seen.was and "held" in (status, seen.was):
            after = {"paid": "held, then paid", "expired": "held, then forfeited"}
            self.reached[after.get(status, "held" if status == "held" else f"held, then {status}")] += 1
        seen.was = status
        if status == "cancelled":
            if not candidate.rejected:
                self._broken("I3", candidate, "cancelled, and nobody rejected it")
            return
        if seen.status != ("awaiting" if status == "held" else status):
            self._broken("I2", candidate, f"is {status}, said to be {seen.status}")
        if (status == "paid") != (len(seen.kept) == 1):
            self._broken("I2", candidate, f"is {status} with {len(seen.kept)} fees")
        if status != "expired":
            return
        if not row["proven"] or self.town.now < row["closes_at"] or row["expired_at"] < row["closes_at"]:
            self._broken("I7", candidate, "forfeited early or without proof")
        if row["undecided"]:
            self._broken("I7", candidate, "forfeited while an order may be paid")
        lost = [
            one
            for one in payments
            if one.paid_at < row["closes_at"]
            and (one.fen, one.currency) == (FEE, "CNY")
            and one.transaction_id not in seen.back
            and one.order_no not in candidate.behind
        ]
        if lost:
            self._broken("I7", candidate, f"forfeited, and paid in time: {lost[0].order_no}")

    async def judge(self) -> None:
        """At rest: every fen, and every place."""
        await self.look()
        payments = self.payments()
        rows = {row["registration_id"]: row for row in await self.town.superuser.fetch(_OBLIGATIONS)}
        paid = await self.town.superuser.fetch("select order_no from orders where status = 'paid'")
        self._paid = {row["order_no"] for row in paid}
        for one, seen in self._seen.items():
            candidate, row, mine = self._of[one], rows[one], payments.get(one, [])
            self.reached[f"ends {row['status']}"] += 1
            if {p.transaction_id for p in mine} != set(seen.received):
                self._broken("I1", candidate, "book and gateway disagree about what was paid")
            for payment in mine:
                self._settled(candidate, seen, payment)
            kept = [p for p in mine if p.transaction_id in seen.kept]
            expected = "cancelled" if candidate.rejected else "paid" if kept else "expired"
            if row["status"] != expected or row["undecided"]:
                self._broken("I2", candidate, f"ends {row['status']} and not {expected}")
            if candidate.rejected and kept:
                self._broken("I1", candidate, "rejected, and the fee is kept")

    def _settled(self, candidate: Candidate, seen: _Seen, payment: Payment) -> None:
        number = payment.transaction_id
        if payment.order_no not in self._paid:
            self._broken("I1", candidate, f"{payment.order_no} was paid, and our order says otherwise")
        booked = seen.received[number]
        if (booked["amount_fen"], booked["paid_at"]) != (payment.fen, payment.paid_at):
            self._broken("I1", candidate, f"{payment.order_no} was booked as another payment")
        if (number in seen.kept) == (number in seen.back):
            self._broken("I1", candidate, f"{payment.order_no} is neither a fee nor due back, or both")
        given = self._given_back(payment.order_no)
        due = payment.fen if number in seen.back else 0
        if given != due or (number in seen.returned) != (due > 0):
            self._broken("I1", candidate, f"{payment.order_no}: {given} fen went back of {due}")

    def _given_back(self, order_no: str) -> int:
        """What by now has gone back of an order, by its gateway's book, in fen."""
        return sum(
            refund.amount_fen
            for refund in self.town.gateway_of(order_no).refunds.of_order(order_no)
            if refund.status(self.town.now) is RefundStatus.SUCCESS
        )

    def _broken(self, invariant: str, candidate: Candidate, what: str) -> None:
        story = "\n    ".join(candidate.log)
        raise Violation(f"{invariant}: run {candidate.number}: {what}\n    {story}")

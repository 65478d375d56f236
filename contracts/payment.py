"""What the payment service says happened: fee, payment, forfeiture, and the close of the window."""

from datetime import date
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from contracts.event import (
    Count,
    CycleEvent,
    Fen,
    FenSum,
    Moment,
    OrderNo,
    Part,
    RegistrationEvent,
    Sha256,
    SiteEvent,
)
from contracts.reasons import (
    BreakClosing,
    BreakKind,
    Channel,
    ExpiryCause,
    RefundCause,
    ReinstatementCause,
    WindowReason,
)

TOPIC = "exam.payment"
SOURCE = "/services/payment"

Currency = Literal["CNY"]
Seconds = Annotated[int, Field(strict=True, ge=60, le=31 * 86_400)]


class PaymentFact(RegistrationEvent):
    topic: ClassVar[str] = TOPIC
    source: ClassVar[str] = SOURCE


class Due(PaymentFact):
    """When: an approved registration's fee was fixed.
    What became true: the candidate owes `amount_fen`, payable in [opens_at, closes_at).
    Who reacts: registration's view; notification.
    """

    type: ClassVar[str] = "kaowu.payment.due.v1"

    amount_fen: Fen
    currency: Currency
    opens_at: Moment
    closes_at: Moment


class ClosingSoon(PaymentFact):
    """When: a reminder's moment came and the fee was still unpaid, with no payment under way.
    What became true: `offset` seconds or less are left until `closes_at`.
    Who reacts: notification.
    """

    type: ClassVar[str] = "kaowu.payment.closing-soon.v1"

    amount_fen: Fen
    closes_at: Moment
    offset: Seconds


class Paid(PaymentFact):
    """When: the gateway's word for a payment in time and of the right amount was accepted.
    What became true: paid as of the gateway's `paid_at`; the registration can no longer be forfeited.
    Who reacts: registration's view; notification; later the exam's arrangement.
    """

    type: ClassVar[str] = "kaowu.payment.paid.v1"

    amount_fen: Fen
    paid_at: Moment
    channel: Channel
    order_no: OrderNo


class Expired(PaymentFact):
    """When: the payment window had closed and the gateway denied a payment in time, or no order ever existed.
    What became true: the registration is forfeited (视为自动放弃考试); the evidence is `proof_id`.
    Who reacts: registration's view; notification.
    """

    type: ClassVar[str] = "kaowu.payment.expired.v1"

    closes_at: Moment
    cause: ExpiryCause
    proof_id: UUID


class Reinstated(PaymentFact):
    """When: a forfeiture turned out wrong or was lifted.
    What became true: the registration is alive again, paid or payable until `closes_at`.
    Who reacts: registration's view; notification.
    """

    type: ClassVar[str] = "kaowu.payment.reinstated.v1"

    cause: ReinstatementCause
    closes_at: Moment


class Refunded(PaymentFact):
    """When: the gateway confirmed a refund.
    What became true: `amount_fen` went back to the payer.
    Who reacts: notification.
    """

    type: ClassVar[str] = "kaowu.payment.refunded.v1"

    amount_fen: Fen
    cause: RefundCause
    refund_no: OrderNo


class MovedCounts(Part):
    awaiting: Count
    reinstated: Count


class WindowMoved(PaymentFact):
    """When: two people of the office moved the close of the payment window; said once per registration.
    What became true: this candidate may pay until `closes_at`; `counts` says how many the same move touched.
    Who reacts: notification.
    """

    type: ClassVar[str] = "kaowu.payment.window-moved.v1"

    closes_at: Moment
    reason_code: WindowReason
    counts: MovedCounts


class SiteWindowSet(SiteEvent):
    """When: two people of the office moved the close of payment for a desk, alone or with all others.
    What became true: payment closes for this desk at `closes_at` (people are told `told_closes_at`), whatever the cycle
    file says; each registration whose own close moves is said by itself.
    Who reacts: confirmation (until when the last level may approve).
    """

    topic: ClassVar[str] = TOPIC
    source: ClassVar[str] = SOURCE
    type: ClassVar[str] = "kaowu.payment.site-window-set.v1"

    closes_at: Moment
    told_closes_at: Moment
    reason_code: WindowReason


class ClosedCounts(Part):
    paid: Count
    expired: Count
    held: Count
    undecided: Count | None = None


class ClosedSums(Part):
    received: FenSum
    due: FenSum
    held: FenSum
    refunds_due: FenSum = 0


class WindowClosed(CycleEvent):
    """When: the sweep after the close left nobody awaiting.
    What became true: everyone who owed is paid, expired or held; `proof_root` fixes the evidence of the
    `proofs` forfeitures.
    Who reacts: operations.
    """

    topic: ClassVar[str] = TOPIC
    source: ClassVar[str] = SOURCE
    type: ClassVar[str] = "kaowu.payment.window-closed.v1"

    closes_at: Moment
    closed_at: Moment
    counts: ClosedCounts
    sums_fen: ClosedSums
    proof_root: Sha256
    proofs: Count


class ProofsPublished(CycleEvent):
    """When: people were forfeited by a close after it was published: held until the gateway answered, or approved late.
    What became true: `proof_root` fixes the evidence of these `proofs` forfeitures, which no root before it covers;
    `expired_fen` is what they owed together, `proofs_before` how many all roots of the cycle before it cover.
    Who reacts: operations.
    """

    topic: ClassVar[str] = TOPIC
    source: ClassVar[str] = SOURCE
    type: ClassVar[str] = "kaowu.payment.proofs-published.v1"

    proof_root: Sha256
    proofs: Count
    proofs_before: Count
    expired_fen: FenSum


class ReconciledCounts(Part):
    lines: Count
    matched: Count
    explained: Count


class ReconciledSums(Part):
    billed: FenSum
    booked: FenSum


class Reconciled(CycleEvent):
    """When: a gateway's bill of one day was compared with our book.
    What became true: every line is matched, explained, or one of the `breaks` on a list.
    Who reacts: operations.
    """

    topic: ClassVar[str] = TOPIC
    source: ClassVar[str] = SOURCE
    type: ClassVar[str] = "kaowu.payment.reconciled.v1"

    channel: Channel
    date: date
    counts: ReconciledCounts
    sums_fen: ReconciledSums
    breaks: Count


class BreakFound(CycleEvent):
    """When: comparing a gateway's bill of one day with our book and the registration's state found a difference.
    What became true: `break_id` stands on the list until a person closes it; `billed_fen` is what the bill says,
    `booked_fen` what our book says, each absent where it says nothing.
    Who reacts: operations.
    """

    topic: ClassVar[str] = TOPIC
    source: ClassVar[str] = SOURCE
    type: ClassVar[str] = "kaowu.payment.break-found.v1"

    break_id: UUID
    kind: BreakKind
    channel: Channel
    date: date
    billed_fen: FenSum | None = None
    booked_fen: FenSum | None = None


class BreakClosed(CycleEvent):
    """When: a person of the office closed a break, with a reason.
    What became true: it is on no list of open breaks any more; it is never opened again, a new one is found instead.
    Who reacts: operations.
    """

    topic: ClassVar[str] = TOPIC
    source: ClassVar[str] = SOURCE
    type: ClassVar[str] = "kaowu.payment.break-closed.v1"

    break_id: UUID
    reason_code: BreakClosing

"""What the confirmation service says happened: desk, qualification review, and the desks' windows."""

from typing import Annotated, ClassVar

from pydantic import Field

from contracts.event import (
    ExamLevel,
    Moment,
    RegistrationEvent,
    ReviewLevel,
    SiteEvent,
    SiteId,
    SpecialtyCode,
    Subjects,
    Version,
)
from contracts.reasons import Decision, ReasonCode, WindowReason

ReasonCodes = Annotated[tuple[ReasonCode, ...], Field(min_length=1)]


class ConfirmationFact(RegistrationEvent):
    topic: ClassVar[str] = "exam.confirmation"
    source: ClassVar[str] = "/services/confirmation"


class Confirmed(ConfirmationFact):
    """When: a desk saw the person, the latest stamped form and the documents.
    What became true: confirmed at the desk, waiting for review; the candidate can no longer edit.
    Who reacts: registration's view; notification.
    """

    type: ClassVar[str] = "kaowu.confirmation.confirmed.v1"

    site_id: SiteId
    form_version: Version
    desk: SiteId


class Returned(ConfirmationFact):
    """When: a desk or a reviewer sent the registration back, or an amendment overtook a confirmation.
    What became true: the candidate may edit until `fix_until` (none: until the desk's window ends)
    and must be confirmed again.
    Who reacts: registration (editable again); notification tells what is wrong and until when.
    """

    type: ClassVar[str] = "kaowu.confirmation.returned.v1"

    level: ReviewLevel
    reason_codes: ReasonCodes
    fix_until: Moment | None


class Reviewed(ConfirmationFact):
    """When: a review level decided, whatever it decided.
    What became true: this level's decision is known; no level but the last opens anything.
    Who reacts: registration's view.
    """

    type: ClassVar[str] = "kaowu.confirmation.reviewed.v1"

    level: ReviewLevel
    decision: Decision


class Approved(ConfirmationFact):
    """When: the last review level approved.
    What became true: the candidate may pay; `level` is the specialty's exam level, which sets the fee; `told_closes_at`:
    until when, as people are told, where the office has moved it.
    Who reacts: payment opens an obligation; registration's view; notification.
    """

    type: ClassVar[str] = "kaowu.confirmation.approved.v1"

    level: ExamLevel
    subjects: Subjects
    specialty_code: SpecialtyCode
    site_id: SiteId | None = None
    told_closes_at: Moment | None = None


class Rejected(ConfirmationFact):
    """When: a desk or a reviewer rejected, in turn or after approval.
    What became true: the registration is over; what was paid goes back.
    Who reacts: payment (closes open orders, refunds); registration's view; notification.
    """

    type: ClassVar[str] = "kaowu.confirmation.rejected.v1"

    level: ReviewLevel
    reason_codes: ReasonCodes


class Lapsed(ConfirmationFact):
    """When: the last moment to be confirmed at the desk passed.
    What became true: the registration is over, unconfirmed.
    Who reacts: registration's view; notification.
    """

    type: ClassVar[str] = "kaowu.confirmation.lapsed.v1"

    site_id: SiteId
    closed_at: Moment


class WindowMoved(ConfirmationFact):
    """When: the office set or moved the window of the candidate's desk.
    What became true: this candidate can be confirmed from `opens_at` (none: unchanged) until `closes_at`.
    Who reacts: notification.
    """

    type: ClassVar[str] = "kaowu.confirmation.window-moved.v1"

    site_id: SiteId
    opens_at: Moment | None
    closes_at: Moment
    reason_code: WindowReason


class DeskWindowSet(SiteEvent):
    """When: the office set or moved a desk's window.
    What became true: the desk confirms in [opens_at, closes_at), whatever the cycle file says.
    Who reacts: registration (dead-end guard); notification (the desk's hours in messages).
    """

    topic: ClassVar[str] = "exam.confirmation"
    source: ClassVar[str] = "/services/confirmation"
    type: ClassVar[str] = "kaowu.confirmation.desk-window-set.v1"

    opens_at: Moment
    closes_at: Moment
    reason_code: WindowReason

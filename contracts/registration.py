"""What the registration service says happened: pre-registration and everything a candidate changes."""

from typing import Annotated, ClassVar

from pydantic import Field

from contracts.event import ExamLevel, RegistrationEvent, SiteId, SpecialtyCode, Subjects, Version
from contracts.reasons import ChangedField, WithdrawalReason


class RegistrationFact(RegistrationEvent):
    topic: ClassVar[str] = "exam.registration"
    source: ClassVar[str] = "/services/registration"


class PreRegistered(RegistrationFact):
    """When: a candidate's pre-registration was accepted.
    What became true: a registration exists, with form version 1 and a place at a desk.
    Who reacts: confirmation opens a case; notification fetches the contact and tells the desk and its
    last hour.
    """

    type: ClassVar[str] = "kaowu.registration.pre-registered.v1"

    site_id: SiteId
    specialty_code: SpecialtyCode
    level: ExamLevel
    subjects: Subjects
    form_version: Version
    returning: bool


class Amended(RegistrationFact):
    """When: a candidate saved a change before being confirmed.
    What became true: every earlier form is void; `changed` names fields, never values.
    Who reacts: confirmation (old form void, perhaps another desk); notification.
    """

    type: ClassVar[str] = "kaowu.registration.amended.v1"

    form_version: Version
    changed: Annotated[tuple[ChangedField, ...], Field(min_length=1)]
    site_id: SiteId
    specialty_code: SpecialtyCode
    level: ExamLevel
    subjects: Subjects


class ContactChanged(RegistrationFact):
    """When: a candidate's phone or email was changed.
    What became true: the contact kept elsewhere is out of date.
    Who reacts: notification fetches the new contact.
    """

    type: ClassVar[str] = "kaowu.registration.contact-changed.v1"


class Erased(RegistrationFact):
    """When: the office deleted who a registration is of, because that person asked for it and nothing needs it any more.
    What became true: registration knows no name, paper, phone, mail, employer or photo of it; that it was, and how it ended,
    stays.
    Who reacts: notification forgets how to reach them and what it wrote to them.
    """

    type: ClassVar[str] = "kaowu.registration.erased.v1"


class Withdrawn(RegistrationFact):
    """When: a candidate withdrew before being confirmed.
    What became true: the registration is over; the person may pre-register again while the windows are open.
    Who reacts: confirmation closes the case; payment opens nothing; notification.
    """

    type: ClassVar[str] = "kaowu.registration.withdrawn.v1"

    reason_code: WithdrawalReason

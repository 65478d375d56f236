"""What people are shown. Personal data is masked here, for everybody: the candidate knows it, others need not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from contracts.cycle import Cycle
from services.registration.domain import people
from services.registration.domain.desks import Desk, Desks
from services.registration.domain.form import REMARKS, Person
from services.registration.domain.registration import Registration, Saved, View


def saved(one: Saved) -> dict[str, Any]:
    """After a save: what is printed on the form, and where to go with it."""
    return standing(one.registration) | {
        "form_version": one.registration.form_version,
        "form_code": one.form_code,
        "site": site(one.desk),
    }


def standing(registration: Registration) -> dict[str, Any]:
    return {
        "registration_id": str(registration.id),
        "number": registration.number,
        "state": registration.state.value,
        "state_text": registration.state.text,
        "sequence": registration.version,
    }


def site(desk: Desk) -> dict[str, Any]:
    """The desk with its hours; an undated one says who will name them."""
    return {
        "id": desk.site.id,
        "name": desk.site.name,
        "place": desk.site.place,
        "phone": desk.site.phone,
        "opens": _moment(desk.hours.opens) if desk.hours else None,
        "closes": _moment(desk.hours.closes) if desk.hours else None,
        "note": None if desk.hours else _undated(desk),
    }


def _undated(desk: Desk) -> str:
    note = desk.site.undated_note or "以单位人事科通知为准"
    return f"该报名点的现场确认时间尚未确定（{note}），请留意所在单位人事部门的通知。"


def full(view: View, desks: Desks, cycle: Cycle) -> dict[str, Any]:
    """Everything a candidate's own page shows."""
    registration = view.registration
    choice = registration.choice
    specialty = cycle.specialty(choice.specialty_code)
    return standing(registration) | {
        "form_version": registration.form_version,
        "form_code": view.form_code,
        "pre_registered_at": _moment(view.pre_registered_at),
        "saved_at": _moment(view.saved_at),
        "person": person(view.person),
        "contact_to_fix": list(view.failing),
        "remarks": [{"code": code, "text": REMARKS.get(code, code)} for code in view.remarks],
        "site": site(desks.desk(choice.site_id)),
        "specialty": {"code": specialty.code, "name": specialty.name, "level": choice.level}
        | {"level_name": cycle.level(choice.level).name},
        "subjects": [{"number": number, "name": cycle.subject(number).name} for number in choice.subjects],
        "returning": choice.returning,
        "stages": stages(view, desks, cycle),
    }


def stages(view: View, desks: Desks, cycle: Cycle) -> dict[str, Any]:
    """Each stage's own word, none of them final for another: a green light at the desk is not the end."""
    registration = view.registration
    return {
        "confirmation": {
            "state": registration.confirmation.value,
            "fix_until": _moment(registration.fix_until),
            "deadline": _moment(registration.deadline(desks, cycle)),
        },
        "levels": {level.id: view.decisions.get(level.id) for level in cycle.review_levels},
        "payment": {
            "state": registration.payment.value,
            "amount_fen": view.amount_fen,
            "opens_at": _moment(view.payment_opens_at),
            "closes_at": _moment(view.payment_closes_at),
            "paid_at": _moment(view.paid_at),
        },
    }


def line(view: View) -> dict[str, Any]:
    """A line of the office's list."""
    registration = view.registration
    choice = registration.choice
    return standing(registration) | {
        "name": people.masked_name(view.person.name),
        "site_id": choice.site_id,
        "specialty_code": choice.specialty_code,
        "subjects": list(choice.subjects),
        "form_version": registration.form_version,
        "contact_to_fix": list(view.failing),
    }


def person(who: Person) -> dict[str, Any]:
    return {
        "name": people.masked_name(who.name),
        "id_type": who.id_type.value,
        "id_type_name": people.PAPER_NAMES[who.id_type],
        "id_number": people.masked_number(who.id_number),
        "phone": people.masked_phone(who.phone),
        "email": people.masked_email(who.email),
        "employer": who.employer,
        "employer_code": who.employer_code,
    }


def contacts(found: Sequence[tuple[UUID, str, str | None, str | None]]) -> dict[str, Any]:
    """The one answer that is not masked: for the service that writes to these people."""
    return {
        "contacts": [
            {"registration_id": str(registration_id), "number": number, "phone": phone, "email": email}
            for registration_id, number, phone, email in found
        ]
    }


def contacts_to_fix(found: Sequence[tuple[UUID, str, tuple[str, ...]]]) -> dict[str, Any]:
    return {
        "items": [
            {"registration_id": str(registration_id), "number": number, "contact_to_fix": list(failing)}
            for registration_id, number, failing in found
        ]
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()

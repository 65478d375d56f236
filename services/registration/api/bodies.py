"""What people send. A field that cannot be read is named like one that is wrong, and the others are still checked."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.reasons import WithdrawalReason
from contracts.refusals import Code, Refused
from services.chassis.http import invalid
from services.registration.domain.form import Typed


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FormBody(_Strict):
    """The form, whole (pre-register) or in part (amend). Whether a field may be missing is the domain's word."""

    name: str | None = None
    id_type: str | None = None
    id_number: str | None = None
    phone: str | None = None
    email: str | None = None
    employer: str | None = None
    employer_code: str | None = None
    site_id: str | None = None
    specialty_code: str | None = None
    subjects: list[int] | None = None
    returning: bool | None = None
    photo: str | None = None


class WithdrawBody(_Strict):
    reason: Annotated[WithdrawalReason, Field(strict=False)] = WithdrawalReason.PERSONAL


class ContactsBody(BaseModel):
    registration_ids: Annotated[list[UUID], Field(max_length=500)]


def read_form(body: bytes) -> tuple[Typed, frozenset[str], dict[str, str]]:
    """What was typed, the names of the fields that were sent, and those of them that cannot be read, with the reason."""
    sent = read_object(body)
    unreadable: dict[str, str] = {}
    try:
        form = FormBody.model_validate(sent)
    except ValidationError as error:
        for found in error.errors(include_input=False, include_url=False):
            unreadable.setdefault(str(found["loc"][0]), invalid([found]).fields[0].reason + "。")
        form = FormBody.model_validate(
            {name: value for name, value in sent.items() if name not in unreadable}
        )
    typed = Typed(**{name: getattr(form, name) for name in FormBody.model_fields})
    return typed, frozenset(sent), unreadable


def read_withdrawal(body: bytes) -> WithdrawalReason:
    try:
        return WithdrawBody.model_validate(read_object(body) if body.strip() else {}).reason
    except ValidationError as error:
        raise invalid(error.errors(include_input=False, include_url=False)) from None


def read_object(body: bytes) -> dict[str, Any]:
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        sent = None
    if not isinstance(sent, dict):
        raise Refused(Code.INVALID, "提交的内容不是有效的 JSON 对象，请检查后重新提交。")
    return sent

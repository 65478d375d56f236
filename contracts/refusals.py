"""How every service says no: a code, a Chinese sentence of what is wrong and what to do, the fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_NOTHING: Mapping[str, Json] = MappingProxyType({})


class Code(StrEnum):
    """What is wrong, for programs. Published: the people who call the routes match on these."""

    WINDOW_NOT_OPEN = "window-not-open"
    WINDOW_CLOSED = "window-closed"
    DESK_CLOSED = "desk-closed"
    DESK_UNDATED = "desk-undated"
    ALREADY_REGISTERED = "already-registered"
    FORM_OUTDATED = "form-outdated"
    DOCUMENTS_MISSING = "documents-missing"
    OTHER_SITE = "other-site"
    NOT_CONFIRMED = "not-confirmed"
    NOT_APPROVED = "not-approved"
    ALREADY_PAID = "already-paid"
    TOO_LATE_TO_ORDER = "too-late-to-order"
    INVALID = "invalid"
    GATEWAY_REFUSED = "gateway-refused"
    NOT_ALLOWED = "not-allowed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    IDEMPOTENCY_CONFLICT = "idempotency-conflict"
    TOO_LARGE = "too-large"
    TOO_SOON = "too-soon"
    UNAVAILABLE = "unavailable"

    @property
    def status(self) -> int:
        """The HTTP status that goes with it; a rule of the office that says no is 409."""
        return _STATUS.get(self, 409)


_STATUS = {
    Code.INVALID: 422,
    Code.DOCUMENTS_MISSING: 422,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.OTHER_SITE: 403,
    Code.NOT_FOUND: 404,
    Code.TOO_LARGE: 413,
    Code.TOO_SOON: 429,
    Code.GATEWAY_REFUSED: 502,
    Code.UNAVAILABLE: 503,
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of the request, and in Chinese what is wrong with it. Never the value."""

    field: str
    reason: str


class Refused(Exception):
    """Said no. The message is for the person: what is wrong, what to do."""

    def __init__(
        self,
        code: Code,
        message: str,
        fields: tuple[FieldError, ...] = (),
        hints: Mapping[str, Json] = _NOTHING,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = fields
        self.hints = hints

    @property
    def status(self) -> int:
        return self.code.status

    def __repr__(self) -> str:
        return f"Refused({self.code.value!r})"

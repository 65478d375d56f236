"""What led to what: the chain that every event carries."""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    from contracts.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Cause:
    """The chain's id, the id of the event or command that came just before, and the trace it belongs to."""

    correlation_id: str
    causation_id: str | None
    traceparent: str | None

    @classmethod
    def fresh(cls, causation_id: str | None = None) -> Cause:
        """The beginning of a chain: a person's request, or a moment that passed."""
        correlation = uuid7()
        return cls(str(correlation), causation_id, new_traceparent(correlation))

    @classmethod
    def of(cls, envelope: Envelope) -> Cause:
        """The chain goes on: what happens next was caused by this event."""
        return cls(envelope.correlation_id, str(envelope.event_id), envelope.traceparent)


def new_traceparent(trace: UUID) -> str:
    """A W3C trace context whose trace id is the given one."""
    return f"00-{trace.hex}-{secrets.token_hex(8)}-01"


_current: ContextVar[Cause | None] = ContextVar("cause", default=None)


def current_cause() -> Cause:
    """The cause bound to this unit of work, or the beginning of a new chain."""
    return _current.get() or Cause.fresh()


def bind_cause(cause: Cause) -> None:
    """Everything in this task from here on was led to by `cause`."""
    _current.set(cause)

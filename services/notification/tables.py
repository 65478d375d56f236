"""What notification keeps: whom it tells, what it tells them, and the desks' hours. The migrations hold the same."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from contracts.reasons import Carrier
from services.chassis.db import make_base
from services.chassis.tables import add_plumbing
from services.notification.domain.life import Standing, State
from services.notification.domain.occasions import Occasion

if TYPE_CHECKING:  # a class made by a function is no base class to a type checker
    from sqlmodel import SQLModel as Base
else:
    Base = make_base()
add_plumbing(Base.metadata)

__all__ = [
    "Base",
    "Call",
    "Desk",
    "EarlyReceipt",
    "Message",
    "Recipient",
    "SmsDay",
    "SmsLeft",
    "SmsProvider",
]

_MOMENT = DateTime(timezone=True)
WAITING = (State.CREATED, State.SENDING)  # a moment of theirs may come due
FAILED = (State.UNDELIVERED, State.EXPIRED)  # nobody was told, for a reason


def one_of(column: str, values: Iterable[str]) -> str:
    """An SQL condition that the column holds one of these words."""
    listed = ", ".join(f"'{value}'" for value in sorted(values))
    return f"{column} in ({listed})"


class Recipient(Base, table=True):
    """One registration as somebody to be told. Locked before its messages change."""

    __tablename__: ClassVar[Any] = "recipients"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("standing", Standing), name="standing"),
        CheckConstraint("contact_known <= contact_wanted", name="contact"),
        # One channel may be unknown to registration; a contact that is known has at least its number's tail.
        CheckConstraint("contact_known = 0 or tail is not null", name="known"),
        Index(
            "ix_recipients_wanted",
            "contact_try_at",
            postgresql_where=text("contact_known < contact_wanted"),
        ),
        Index("ix_recipients_site", "site_id"),
    )

    registration_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    cycle_id: str = Field(sa_column=Column(Text, nullable=False))
    site_id: str | None = Field(sa_column=Column(Text))
    confirm_by: datetime | None = Field(sa_column=Column(_MOMENT))  # set by a return
    standing: str = Field(sa_column=Column(Text, nullable=False, server_default=text("'none'")))
    # Number of the last event about this registration on our own topic.
    version: int = Field(sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    tail: str | None = Field(sa_column=Column(Text))  # last four of the registration number
    phone: bytes | None = Field(sa_column=Column(LargeBinary))  # encrypted, as is the next
    email: bytes | None = Field(sa_column=Column(LargeBinary))
    # How often the contact was said to be new, and the count at which what is kept was fetched.
    contact_wanted: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("1")))
    contact_known: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    contact_tries: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    contact_try_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    contact_at: datetime | None = Field(sa_column=Column(_MOMENT))  # when what is kept was fetched
    # Asked for by whom it is about: what was kept of their contact is gone and is not fetched again.
    erased_at: datetime | None = Field(sa_column=Column(_MOMENT))
    language: str = Field(sa_column=Column(Text, nullable=False, server_default=text("'zh'")))
    pay_by: datetime | None = Field(
        sa_column=Column(_MOMENT)
    )  # the close of payment that counts for them, as told


class Message(Base, table=True):
    """One thing told to one person through one channel. Its id is the reference that carriers know it by."""

    __tablename__: ClassVar[Any] = "messages"
    __table_args__: ClassVar[Any] = (
        # Once per registration, occasion, instance of it, and channel: whatever is delivered twice upstream.
        UniqueConstraint("registration_id", "occasion", "instance", "channel"),
        CheckConstraint(one_of("occasion", Occasion), name="occasion"),
        CheckConstraint(one_of("channel", Carrier), name="channel"),
        CheckConstraint(one_of("state", State), name="state"),
        CheckConstraint(f"{one_of('state', WAITING)} or due_at is null", name="only_the_waiting_are_due"),
        CheckConstraint(
            "state <> 'sending' or (due_at is not null and body is not null)", name="text_on_record"
        ),
        CheckConstraint(
            f"({one_of('state', FAILED)}) = (reason_code is not null)", name="undelivered_for_a_reason"
        ),
        Index("ix_messages_due", "channel", "due_at", postgresql_where=text(one_of("state", WAITING))),
        Index(
            "ix_messages_urgent",
            "channel",
            "priority",
            "due_at",
            postgresql_where=text(one_of("state", WAITING)),
        ),
        Index("ix_messages_silent", "asks", "state_at", postgresql_where=text("state = 'accepted'")),
        Index("ix_messages_call", "call_at", postgresql_where=text("call_at is not null")),
        Index("ix_messages_serial", "provider_ref", postgresql_where=text("provider = 'tencent'")),
        Index(
            "ix_messages_ask",
            "state_at",
            postgresql_where=text("ask_since is not null and state = 'accepted'"),
        ),
        Index("ix_messages_failed", "message_id", postgresql_where=text(one_of("state", FAILED))),
        Index(
            "ix_messages_reminders",
            "deadline_at",
            postgresql_where=text(f"occasion = '{Occasion.CLOSING_SOON}'"),
        ),
    )

    message_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    registration_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    occasion: str = Field(sa_column=Column(Text, nullable=False))
    variant: str = Field(sa_column=Column(Text, nullable=False))
    instance: str = Field(sa_column=Column(Text, nullable=False))  # emitting service and sequence: payment-7
    channel: str = Field(sa_column=Column(Text, nullable=False))
    state: str = Field(sa_column=Column(Text, nullable=False))
    facts: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    deadline_at: datetime | None = Field(sa_column=Column(_MOMENT))
    created_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    state_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    not_before: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    # Next try, or end of the lease while sending; null while the contact is awaited, and at the end.
    due_at: datetime | None = Field(sa_column=Column(_MOMENT))
    claims: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    tries: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    # Tries whose outcome was never learned: at most so many copies too many.
    ambiguous: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    template_version: int = Field(sa_column=Column(Integer, nullable=False))
    subject: str | None = Field(sa_column=Column(Text))
    body: str | None = Field(sa_column=Column(Text))  # as it was sent
    parts: int | None = Field(sa_column=Column(Integer))
    provider_ref: str | None = Field(sa_column=Column(Text))
    carrier_code: str | None = Field(sa_column=Column(Text))  # the last no, in the carrier's words
    reason_code: str | None = Field(sa_column=Column(Text))  # why undelivered or expired, in ours
    correlation_id: str = Field(sa_column=Column(Text, nullable=False))
    caused_by: UUID = Field(sa_column=Column(Uuid, nullable=False))  # the event that is told
    # After a restore: since then the carrier may have got it, or have had more to say of it, without our knowing.
    ask_since: datetime | None = Field(sa_column=Column(_MOMENT))
    provider: str | None = Field(
        sa_column=Column(Text)
    )  # which of the channel's carriers took it, or has it now
    language: str | None = Field(sa_column=Column(Text))  # of the text on record
    priority: int = Field(sa_column=Column(SmallInteger, nullable=False, server_default=text("1")))
    # How often the carrier was asked what became of it, because no receipt came.
    asks: int = Field(sa_column=Column(SmallInteger, nullable=False, server_default=text("0")))
    # When somebody is to look whether the person was told, by whatever channel, or must be called; of an SMS only.
    call_at: datetime | None = Field(sa_column=Column(_MOMENT))


class Call(Base, table=True):
    """Somebody whom neither SMS nor email told in time: the desk calls them. Once per registration and matter."""

    __tablename__: ClassVar[Any] = "calls"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("registration_id", "matter"),
        CheckConstraint("closed_at is null or outcome is not null", name="closed_with_an_outcome"),
        Index("ix_calls_open", "site_id", "call_id", postgresql_where=text("closed_at is null")),
        Index("ix_calls_open_of", "registration_id", postgresql_where=text("closed_at is null")),
    )

    call_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    registration_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    site_id: str | None = Field(sa_column=Column(Text))  # whose desk; none: the office's
    occasion: str = Field(sa_column=Column(Text, nullable=False))
    matter: str = Field(sa_column=Column(Text, nullable=False))  # what it is about: a close, or one fact
    message_id: UUID = Field(sa_column=Column(Uuid, nullable=False))  # the SMS that did not tell them
    reason_code: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    call_by: datetime | None = Field(sa_column=Column(_MOMENT))  # after this it would come too late
    attempts: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    opened_at: datetime | None = Field(
        sa_column=Column(_MOMENT)
    )  # when somebody last saw the number, and who
    opened_by: str | None = Field(sa_column=Column(Text))
    outcome: str | None = Field(sa_column=Column(Text))
    closed_at: datetime | None = Field(sa_column=Column(_MOMENT))
    closed_by: str | None = Field(sa_column=Column(Text))


class Desk(Base, table=True):
    """Hours of a desk that the office set since the cycle was written."""

    __tablename__: ClassVar[Any] = "desks"

    cycle_id: str = Field(sa_column=Column(Text, primary_key=True))
    site_id: str = Field(sa_column=Column(Text, primary_key=True))
    opens_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    closes_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))


class SmsProvider(Base, table=True):
    """A carrier of SMS as every process knows it: since it fell at `fell_at`, the share it has, and what came of all tries."""

    __tablename__: ClassVar[Any] = "sms_providers"

    name: str = Field(sa_column=Column(Text, primary_key=True))
    share: float = Field(sa_column=Column(Double, nullable=False))
    fell_at: datetime | None = Field(sa_column=Column(_MOMENT))
    paused_until: datetime | None = Field(sa_column=Column(_MOMENT))
    strikes: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    why: str | None = Field(sa_column=Column(Text))  # what it answered when it fell
    tries: int = Field(sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    failed: int = Field(sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    slow: int = Field(sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    rose_at: datetime | None = Field(sa_column=Column(_MOMENT))


class SmsLeft(Base, table=True):
    """An SMS that left, or may have, within the longest window of a limit. Its number is a keyed index."""

    __tablename__: ClassVar[Any] = "sms_left"
    __table_args__: ClassVar[Any] = (Index("ix_sms_left_at", "at"),)

    number: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    at: datetime = Field(sa_column=Column(_MOMENT, primary_key=True))
    message_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    provider: str = Field(sa_column=Column(Text, nullable=False))
    template: str = Field(sa_column=Column(Text, nullable=False))
    text: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class SmsDay(Base, table=True):
    """How many parts left on one day of the office's calendar."""

    __tablename__: ClassVar[Any] = "sms_days"

    day: date = Field(sa_column=Column(Date, primary_key=True))
    parts: int = Field(sa_column=Column(BigInteger, nullable=False))


class EarlyReceipt(Base, table=True):
    """A receipt that names a message by the carrier's number, heard before that number was on record here."""

    __tablename__: ClassVar[Any] = "early_receipts"

    provider: str = Field(sa_column=Column(Text, primary_key=True))
    provider_ref: str = Field(sa_column=Column(Text, primary_key=True))
    delivered: bool = Field(sa_column=Column(Boolean, nullable=False))
    code: str = Field(sa_column=Column(Text, nullable=False))
    at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class Restore(Base, table=True):
    """This database was put back to how it was at `since`. Events with smaller ids had been said by then."""

    __tablename__: ClassVar[Any] = "restores"

    since: datetime = Field(sa_column=Column(_MOMENT, primary_key=True))
    restore_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))

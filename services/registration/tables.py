"""What this service keeps: registrations (no personal data), the people behind them and their photos (encrypted),
and the desks' windows as the office set them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field

from services.chassis.db import make_base
from services.chassis.tables import add_plumbing
from services.registration.domain.people import Paper
from services.registration.domain.registration import Confirmation, Payment

if TYPE_CHECKING:  # a class made by a function is no base class to a type checker
    from sqlmodel import SQLModel as Base
else:
    Base = make_base()
add_plumbing(Base.metadata)

__all__ = ["Base", "DeskWindowRow", "PersonRow", "PhotoRow", "RegistrationRow"]

_MOMENT = DateTime(timezone=True)
_ACTIVE = "withdrawn_at is null and confirmation <> 'lapsed'"


def _one_of(column: str, values: type[Confirmation | Payment | Paper]) -> str:
    return f"{column} in ({', '.join(repr(value.value) for value in values)})"


class RegistrationRow(Base, table=True):
    """One pre-registration and how far it has come. Locked before anything is decided about it."""

    __tablename__: ClassVar[Any] = "registrations"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("number ~ '^[0-9]{12}$'", name="number"),
        CheckConstraint("form_version > 0", name="form_version"),
        CheckConstraint("version >= form_version", name="version"),
        CheckConstraint(
            "(withdrawn_at is null) = (withdrawal_reason is null)", name="withdrawn_for_a_reason"
        ),
        CheckConstraint(_one_of("confirmation", Confirmation), name="confirmation"),
        CheckConstraint(_one_of("payment", Payment), name="payment"),
        # One person, one active registration per cycle: held here, whatever the code does.
        Index(
            "uq_registrations_active_identity",
            "cycle_id",
            "identity_index",
            unique=True,
            postgresql_where=text("active"),
        ),
        Index(
            "ix_registrations_contact_to_fix",
            "site_id",
            "id",
            postgresql_where=text("phone_failed_at is not null or email_failed_at is not null"),
        ),
    )

    id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    cycle_id: str = Field(sa_column=Column(Text, nullable=False))
    number: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    account: str = Field(sa_column=Column(Text, nullable=False))
    identity_index: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    active: bool = Field(sa_column=Column(Boolean, Computed(_ACTIVE, persisted=True)))
    site_id: str = Field(sa_column=Column(Text, nullable=False))
    specialty_code: str = Field(sa_column=Column(Text, nullable=False))
    level: str = Field(sa_column=Column(Text, nullable=False))
    subjects: list[int] = Field(sa_column=Column(ARRAY(SmallInteger), nullable=False))
    is_returning: bool = Field(sa_column=Column(Boolean, nullable=False))
    form_version: int = Field(sa_column=Column(Integer, nullable=False))
    version: int = Field(sa_column=Column(Integer, nullable=False))
    pre_registered_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    saved_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    contact_saved_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    withdrawn_at: datetime | None = Field(sa_column=Column(_MOMENT))
    withdrawal_reason: str | None = Field(sa_column=Column(Text))
    remarks: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))

    # Views of the later stages. Each stream's own sequence says whether an event is newer than what is known.
    confirmation: str = Field(sa_column=Column(Text, nullable=False, server_default=text("'open'")))
    confirmation_sequence: int = Field(sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    fix_until: datetime | None = Field(sa_column=Column(_MOMENT))
    decisions: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False, server_default=text("'{}'")))
    payment: str = Field(sa_column=Column(Text, nullable=False, server_default=text("'none'")))
    payment_sequence: int = Field(sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    amount_fen: int | None = Field(sa_column=Column(Integer))
    payment_opens_at: datetime | None = Field(sa_column=Column(_MOMENT))
    payment_closes_at: datetime | None = Field(sa_column=Column(_MOMENT))
    paid_at: datetime | None = Field(sa_column=Column(_MOMENT))
    phone_failed_at: datetime | None = Field(sa_column=Column(_MOMENT))
    email_failed_at: datetime | None = Field(sa_column=Column(_MOMENT))
    # Its person asked to be forgotten: who it is of is not known any more.
    erased_at: datetime | None = Field(sa_column=Column(_MOMENT))


class PersonRow(Base, table=True):
    """Who it is. Every value but the kind of paper is encrypted for this row."""

    __tablename__: ClassVar[Any] = "people"
    __table_args__: ClassVar[Any] = (CheckConstraint(_one_of("id_type", Paper), name="id_type"),)

    registration_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("registrations.id"), primary_key=True))
    id_type: str = Field(sa_column=Column(Text, nullable=False))
    id_number: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    name: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    phone: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    email: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    employer: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    employer_code: bytes | None = Field(sa_column=Column(LargeBinary))


class PhotoRow(Base, table=True):
    """The photo, encrypted. A table of its own: nothing that lists registrations should ever read past it."""

    __tablename__: ClassVar[Any] = "photos"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("width > 0 and height > 0 and byte_size > 0", name="size"),
    )

    registration_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("registrations.id"), primary_key=True))
    jpeg: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    byte_size: int = Field(sa_column=Column(Integer, nullable=False))
    width: int = Field(sa_column=Column(Integer, nullable=False))
    height: int = Field(sa_column=Column(Integer, nullable=False))
    saved_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class DeskWindowRow(Base, table=True):
    """A desk's window as the office set it, in place of the cycle file's."""

    __tablename__: ClassVar[Any] = "desk_windows"
    __table_args__: ClassVar[Any] = (CheckConstraint("opens_at < closes_at", name="window"),)

    cycle_id: str = Field(sa_column=Column(Text, primary_key=True))
    site_id: str = Field(sa_column=Column(Text, primary_key=True))
    opens_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    closes_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    reason_code: str = Field(sa_column=Column(Text, nullable=False))
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))

"""The gateways' bills by day, what comparing them came to, and breaks. Only ever added to, but for what is waited for."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlmodel import Field

from contracts.reasons import BreakKind
from services.payment.tables.owing import MOMENT, Base, one_of


class CycleVersion(Base, table=True):
    """How many events were said of a whole cycle. Locked before one is added."""

    __tablename__: ClassVar[Any] = "cycle_versions"

    cycle_id: str = Field(sa_column=Column(Text, primary_key=True))
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))


class BillRow(Base, table=True):
    """A gateway's bill of one day, the file encrypted because it may name payers; without one: it says there is none."""

    __tablename__: ClassVar[Any] = "bills"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(
            "(digest is null) = (raw is null) and (digest is not null or lines = 0)", name="none_is_empty"
        ),
    )

    bill_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    day: date = Field(sa_column=Column(Date, nullable=False))
    digest: bytes | None = Field(sa_column=Column(LargeBinary))
    raw: bytes | None = Field(sa_column=Column(LargeBinary))
    lines: int = Field(sa_column=Column(Integer, nullable=False))
    fetched_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))


class BillLineRow(Base, table=True):
    """One line. Written before its bill's own row: what has none was cut short and counts for nothing."""

    __tablename__: ClassVar[Any] = "bill_lines"
    __table_args__: ClassVar[Any] = (
        Index(None, "transaction_id"),
        Index(None, "refund_no", postgresql_where=text("refund_no is not null")),
    )

    bill_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    line_no: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    order_no: str = Field(sa_column=Column(Text, nullable=False))
    transaction_id: str = Field(sa_column=Column(Text, nullable=False))
    refund_no: str | None = Field(sa_column=Column(Text))
    amount_fen: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = Field(sa_column=Column(MOMENT, nullable=False))


class Reconciliation(Base, table=True):
    """One comparison of a day; the latest of a day says which bill is in force."""

    __tablename__: ClassVar[Any] = "reconciliations"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(
            "matched >= 0 and explained >= 0 and matched + explained <= lines", name="every_line"
        ),
        Index(None, "channel", "day"),
    )

    number: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    day: date = Field(sa_column=Column(Date, nullable=False))
    bill_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("bills.bill_id"), nullable=False))
    at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    changed: bool = Field(sa_column=Column(Boolean, nullable=False))
    lines: int = Field(sa_column=Column(Integer, nullable=False))
    matched: int = Field(sa_column=Column(Integer, nullable=False))
    explained: int = Field(sa_column=Column(Integer, nullable=False))
    breaks: int = Field(sa_column=Column(Integer, nullable=False))
    billed_fen: int = Field(sa_column=Column(BigInteger, nullable=False))
    billed_back_fen: int = Field(sa_column=Column(BigInteger, nullable=False))
    booked_fen: int = Field(sa_column=Column(BigInteger, nullable=False))


class ExplanationRow(Base, table=True):
    """Why a difference is no break."""

    __tablename__: ClassVar[Any] = "explanations"

    bill_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("bills.bill_id"), primary_key=True))
    subject: str = Field(sa_column=Column(Text, primary_key=True))
    reason: str = Field(sa_column=Column(Text, primary_key=True))
    line_no: int | None = Field(sa_column=Column(Integer))
    order_no: str = Field(sa_column=Column(Text, nullable=False))
    amount_fen: int = Field(sa_column=Column(BigInteger, nullable=False))
    found_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))


class BreakRow(Base, table=True):
    """A difference that nothing explains. Never changed; a person closes it."""

    __tablename__: ClassVar[Any] = "breaks"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("kind", BreakKind), name="kind"),
        UniqueConstraint("bill_id", "kind", "subject"),
        UniqueConstraint("number"),
    )

    number: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    break_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    bill_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("bills.bill_id"), nullable=False))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    day: date = Field(sa_column=Column(Date, nullable=False))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    subject: str = Field(sa_column=Column(Text, nullable=False))
    line_no: int | None = Field(sa_column=Column(Integer))
    order_no: str = Field(sa_column=Column(Text, nullable=False))
    transaction_id: str = Field(sa_column=Column(Text, nullable=False))
    refund_no: str | None = Field(sa_column=Column(Text))
    registration_id: UUID | None = Field(sa_column=Column(Uuid))
    state: str | None = Field(sa_column=Column(Text))
    billed_fen: int | None = Field(sa_column=Column(BigInteger))
    booked_fen: int | None = Field(sa_column=Column(BigInteger))
    found_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))


class BreakClosingRow(Base, table=True):
    """Who closed a break, and why."""

    __tablename__: ClassVar[Any] = "break_closings"

    break_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("breaks.break_id"), primary_key=True))
    closed_by: str = Field(sa_column=Column(Text, nullable=False))
    closed_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    reason_code: str = Field(sa_column=Column(Text, nullable=False))
    # Free text may say anything about a person: encrypted, bound to this row, never on a topic.
    reason: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class BillWait(Base, table=True):
    """A day that is waited for, or whose bill somebody wants fetched again; gone once it is here."""

    __tablename__: ClassVar[Any] = "bill_waits"

    channel: str = Field(sa_column=Column(Text, primary_key=True))
    day: date = Field(sa_column=Column(Date, primary_key=True))
    since: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    attempts: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    ask_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    code: str = Field(sa_column=Column(Text, nullable=False))
    again: bool = Field(sa_column=Column(Boolean, nullable=False, server_default=text("false")))

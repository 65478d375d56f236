"""What a close came to: one proof for each who was forfeited, and the roots that were published over them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from services.payment.tables.owing import MOMENT, Base


class Proof(Base, table=True):
    """Why one registration was forfeited; `leaf` is a leaf of the one tree over it whose root is published.

    Whoever is approved again, and the news is late, falls by the same close once more.
    """

    __tablename__: ClassVar[Any] = "proofs"
    __table_args__: ClassVar[Any] = (
        Index("ix_proofs_closes_at_registration_id", "closes_at", "registration_id"),
    )

    number: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    proof_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    registration_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    closes_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    expired_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    amount_fen: int = Field(sa_column=Column(Integer, nullable=False))
    rule: str = Field(sa_column=Column(Text, nullable=False))
    orders: str = Field(sa_column=Column(Text, nullable=False))
    leaf: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class Closing(Base, table=True):
    """One close of the window: begun, stopped by the guard or not, and what it came to."""

    __tablename__: ClassVar[Any] = "closings"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("(closed_at is null) = (proof_root is null)", name="closed_with_root"),
        CheckConstraint("(closed_at is null) = (sequence is null)", name="closed_said_once"),
    )

    cycle_id: str = Field(sa_column=Column(Text, primary_key=True))
    closes_at: datetime = Field(sa_column=Column(MOMENT, primary_key=True))
    fingerprint: str = Field(sa_column=Column(Text, nullable=False))
    begun_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    guard: str | None = Field(sa_column=Column(Text))  # what the clocks disagreed about; null when they agree
    guard_stops: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    closed_at: datetime | None = Field(sa_column=Column(MOMENT))
    sequence: int | None = Field(sa_column=Column(Integer))  # of the cycle's own events on the topic
    counts: dict[str, int] | None = Field(sa_column=Column(JSONB(none_as_null=True)))
    sums_fen: dict[str, int] | None = Field(sa_column=Column(JSONB(none_as_null=True)))
    proof_root: bytes | None = Field(sa_column=Column(LargeBinary))
    proofs: int | None = Field(sa_column=Column(BigInteger))
    last_proof: int | None = Field(sa_column=Column(BigInteger))  # the root covers proofs up to this number


class LaterRoot(Base, table=True):
    """The published root of the forfeitures that came after their close was: of those numbered above `after_proof`, up to
    `last_proof`, whose own close's root does not cover them.
    """

    __tablename__: ClassVar[Any] = "later_roots"
    __table_args__: ClassVar[Any] = (CheckConstraint("proofs > 0 and after_proof < last_proof", name="some"),)

    cycle_id: str = Field(sa_column=Column(Text, primary_key=True))
    # Of the cycle's own events on the topic.
    sequence: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    after_proof: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_proof: int = Field(sa_column=Column(BigInteger, nullable=False))
    published_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    proof_root: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    proofs: int = Field(sa_column=Column(BigInteger, nullable=False))
    expired_fen: int = Field(sa_column=Column(BigInteger, nullable=False))

"""What this service keeps: cases, every decision about them, and the desks' windows that the office set."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field

from services.chassis.db import make_base
from services.chassis.tables import add_plumbing

if TYPE_CHECKING:  # a class made by a function is no base class to a type checker
    from sqlmodel import SQLModel as Base
else:
    Base = make_base()
add_plumbing(Base.metadata)

__all__ = [
    "Base",
    "CaseRow",
    "DecisionRow",
    "DeskWindowAskRow",
    "DeskWindowChangeRow",
    "DeskWindowRow",
    "DeskWindowVerdictRow",
    "PaymentCloseRow",
]

_MOMENT = DateTime(timezone=True)


class CaseRow(Base, table=True):
    """Where one registration stands. Locked before anything is decided about it."""

    __tablename__: ClassVar[Any] = "cases"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(
            "state in ('pre-registered', 'returned', 'confirmed', 'approved', 'rejected', 'lapsed', 'withdrawn')",
            name="state",
        ),
        CheckConstraint("form_version > 0", name="form_version"),
        CheckConstraint("version >= 0", name="version"),
        CheckConstraint("(state in ('confirmed', 'approved')) <= (passed > 0)", name="passed_when_confirmed"),
        CheckConstraint("cardinality(subjects) > 0", name="subjects"),
        # A desk looks at its own list; the sweep and the office look at what is undecided.
        Index(None, "site_id", "registration_id"),
        Index(
            "ix_cases_unconfirmed",
            "site_id",
            "registration_id",
            postgresql_where=text("state in ('pre-registered', 'returned')"),
        ),
        Index("ix_cases_fix_until", "fix_until", postgresql_where=text("state = 'returned'")),
        Index("ix_cases_in_review", "registration_id", postgresql_where=text("state = 'confirmed'")),
    )

    registration_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    cycle_id: str = Field(sa_column=Column(Text, nullable=False))
    site_id: str = Field(sa_column=Column(Text, nullable=False))
    specialty_code: str = Field(sa_column=Column(Text, nullable=False))
    level: str = Field(sa_column=Column(Text, nullable=False))
    subjects: list[int] = Field(sa_column=Column(ARRAY(SmallInteger), nullable=False))
    form_version: int = Field(sa_column=Column(Integer, nullable=False))
    is_returning: bool = Field(nullable=False)
    state: str = Field(sa_column=Column(Text, nullable=False))
    passed: int = Field(sa_column=Column(SmallInteger, nullable=False))
    fix_until: datetime | None = Field(sa_column=Column(_MOMENT))
    version: int = Field(sa_column=Column(BigInteger, nullable=False))
    opened_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    changed_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class DecisionRow(Base, table=True):
    """One decision about a case: who, at which level, why, when. Rows are added, never changed."""

    __tablename__: ClassVar[Any] = "decisions"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(
            "kind in ('confirmed', 'returned', 'approved', 'rejected', 'lapsed')",
            name="kind",
        ),
        CheckConstraint(
            "(kind in ('returned', 'rejected')) = (cardinality(reason_codes) > 0)",
            name="reason_when_sent_away",
        ),
        Index(None, "registration_id", "version", unique=True),
    )

    decision_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    registration_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    version: int = Field(sa_column=Column(BigInteger, nullable=False))  # of the case after it
    kind: str = Field(sa_column=Column(Text, nullable=False))
    level: str = Field(sa_column=Column(Text, nullable=False))
    actor_kind: str = Field(sa_column=Column(Text, nullable=False))
    actor: str = Field(sa_column=Column(Text, nullable=False))
    reason_codes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    # Free text may say anything about a person: encrypted, bound to this row, never on a topic.
    note: bytes | None = Field(sa_column=Column(LargeBinary))
    fix_until: datetime | None = Field(sa_column=Column(_MOMENT))
    form_version: int = Field(sa_column=Column(Integer, nullable=False))
    documents: dict[str, str] | None = Field(sa_column=Column(JSONB(none_as_null=True)))
    at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class DeskWindowRow(Base, table=True):
    """The window that the office set for a desk, over the cycle file. One row per desk: the one in force."""

    __tablename__: ClassVar[Any] = "desk_windows"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("opens_at < closes_at", name="opens_before_it_closes"),
        CheckConstraint("version > 0", name="version"),
    )

    site_id: str = Field(sa_column=Column(Text, primary_key=True))
    cycle_id: str = Field(sa_column=Column(Text, nullable=False))
    opens_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    closes_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    version: int = Field(sa_column=Column(BigInteger, nullable=False))
    set_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class DeskWindowChangeRow(Base, table=True):
    """Every window that was ever set for a desk, with who and why. Rows are added, never changed."""

    __tablename__: ClassVar[Any] = "desk_window_changes"

    site_id: str = Field(sa_column=Column(Text, primary_key=True))
    version: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    opens_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    closes_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    reason_code: str = Field(sa_column=Column(Text, nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    actor: str = Field(sa_column=Column(Text, nullable=False))
    at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class DeskWindowAskRow(Base, table=True):
    """Another window of a dated desk, as one person of the office asked for it. Rows are added, never changed."""

    __tablename__: ClassVar[Any] = "desk_window_asks"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("opens_at < closes_at", name="opens_before_it_closes"),
        UniqueConstraint("ask_id", "asked_by"),
    )

    ask_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    site_id: str = Field(sa_column=Column(Text, nullable=False))
    opens_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    closes_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    reason_code: str = Field(sa_column=Column(Text, nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    waiting: int = Field(sa_column=Column(Integer, nullable=False))
    asked_by: str = Field(sa_column=Column(Text, nullable=False))
    asked_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class DeskWindowVerdictRow(Base, table=True):
    """What another person said to it. Rows are added, never changed."""

    __tablename__: ClassVar[Any] = "desk_window_verdicts"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("word in ('approved', 'rejected')", name="word"),
        # Nobody decides alone, whatever the code does.
        CheckConstraint("asked_by <> decided_by", name="two_people"),
        ForeignKeyConstraint(
            ["ask_id", "asked_by"], ["desk_window_asks.ask_id", "desk_window_asks.asked_by"]
        ),
    )

    ask_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    word: str = Field(sa_column=Column(Text, nullable=False))
    asked_by: str = Field(sa_column=Column(Text, nullable=False))
    decided_by: str = Field(sa_column=Column(Text, nullable=False))
    decided_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))


class PaymentCloseRow(Base, table=True):
    """Until when payment is open for a desk, as payment says it; only where the office has moved it."""

    __tablename__: ClassVar[Any] = "payment_closes"

    site_id: str = Field(sa_column=Column(Text, primary_key=True))
    cycle_id: str = Field(sa_column=Column(Text, nullable=False))
    closes_at: datetime = Field(sa_column=Column(_MOMENT, nullable=False))
    # None: written by a process of the version before, which knows the enforced one only.
    told_closes_at: datetime | None = Field(sa_column=Column(_MOMENT))
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))

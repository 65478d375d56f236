"""What this service keeps: obligations, orders, the gateway's answers, the ledger, and what each close left behind.

`answers`, `ledger` and `proofs` are only ever added to; the database refuses anything else (migration 0001).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
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
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from services.chassis.db import make_base
from services.chassis.tables import add_plumbing
from services.payment.domain.book import ACCOUNTS, GATEWAY, Posting, RefundStatus
from services.payment.domain.decision import Kind, Word
from services.payment.domain.obligation import Cancellation, Status, sources_of
from services.payment.domain.order import UNDECIDED, UNDER_WAY, OrderStatus

if TYPE_CHECKING:  # a class made by a function is no base class to a type checker

    class Base(SQLModel):
        """As make_base() makes it."""
else:
    Base = make_base()
add_plumbing(Base.metadata)

MOMENT = DateTime(timezone=True)


def one_of(column: str, values: Iterable[StrEnum]) -> str:
    listed = ", ".join(f"'{value}'" for value in sorted(values))
    return f"{column} in ({listed})"


def _accounts(side: int) -> str:
    """`book.ACCOUNTS` as the database reads it."""
    cases = (
        f"when '{kind}' then "
        + (f"'{GATEWAY}:' || channel" if sides[side] == GATEWAY else f"'{sides[side]}'")
        for kind, sides in ACCOUNTS.items()
    )
    return f"case kind {' '.join(cases)} end"


class ObligationRow(Base, table=True):
    """What one approved registration owes. Locked before anything is decided about it."""

    __tablename__: ClassVar[Any] = "obligations"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("status", Status), name="status"),
        CheckConstraint("amount_fen > 0", name="amount"),
        CheckConstraint("opens_at < closes_at", name="window"),
        CheckConstraint("version > 0", name="version"),
        CheckConstraint(
            "status <> 'paid' or (paid_at is not null and paid_at < closes_at)", name="paid_in_time"
        ),
        # Nobody is forfeited without proof, and nobody before the close.
        CheckConstraint(
            "status <> 'expired' or (proof_id is not null and expired_at is not null and expired_at >= closes_at)",
            name="expired_with_proof",
        ),
        CheckConstraint(
            "(status = 'cancelled') = (cancelled_for is not null)", name="cancelled_for_a_reason"
        ),
        CheckConstraint(
            f"cancelled_for is null or {one_of('cancelled_for', Cancellation)}", name="cancelled_for"
        ),
        # What a close looks at: a million rows of them shrink to none while it sweeps.
        Index(
            "ix_obligations_owed",
            "closes_at",
            "registration_id",
            postgresql_where=text(one_of("status", sources_of(Status.EXPIRED))),
        ),
        Index("ix_obligations_held", "registration_id", postgresql_where=text("status = 'held'")),
    )

    registration_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    cycle_id: str = Field(sa_column=Column(Text, nullable=False))
    status: str = Field(sa_column=Column(Text, nullable=False))
    version: int = Field(sa_column=Column(Integer, nullable=False))
    amount_fen: int = Field(sa_column=Column(Integer, nullable=False))
    currency: str = Field(sa_column=Column(Text, nullable=False))
    opens_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    closes_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    told_closes_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    # Unknown of whoever was approved before revision 0005.
    site_id: str | None = Field(sa_column=Column(Text))
    due_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    changed_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    paid_at: datetime | None = Field(sa_column=Column(MOMENT))
    expired_at: datetime | None = Field(sa_column=Column(MOMENT))
    proof_id: UUID | None = Field(sa_column=Column(Uuid))
    cancelled_for: str | None = Field(sa_column=Column(Text))


class Answer(Base, table=True):
    """What a gateway said about an order, as it signed it: encrypted, because it may name the payer."""

    __tablename__: ClassVar[Any] = "answers"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("kind in ('notice', 'query', 'refund')", name="kind"),
        Index(None, "order_no"),
    )

    answer_id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    order_no: str = Field(sa_column=Column(Text, nullable=False))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    state: str = Field(sa_column=Column(Text, nullable=False))
    at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # SHA-256 of the signed bytes
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    signature: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))


class OrderRow(Base, table=True):
    """One try to pay at a gateway. `creating` is committed before the gateway is asked, so none is ever forgotten."""

    __tablename__: ClassVar[Any] = "orders"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("status", OrderStatus), name="status"),
        CheckConstraint("amount_fen > 0", name="amount"),
        # Unpaid only by the gateway's own word.
        CheckConstraint("status <> 'closed' or answer_id is not null", name="closed_with_answer"),
        CheckConstraint("status <> 'failed' or refusal is not null", name="failed_with_refusal"),
        Index(
            "uq_orders_one_undecided",
            "registration_id",
            unique=True,
            postgresql_where=text(one_of("status", UNDER_WAY)),
        ),
        Index("ix_orders_ask_at", "ask_at", postgresql_where=text(one_of("status", UNDECIDED))),
        Index(None, "registration_id"),
    )

    order_no: str = Field(sa_column=Column(Text, primary_key=True))
    registration_id: UUID = Field(
        sa_column=Column(Uuid, ForeignKey("obligations.registration_id"), nullable=False)
    )
    channel: str = Field(sa_column=Column(Text, nullable=False))
    amount_fen: int = Field(sa_column=Column(Integer, nullable=False))
    currency: str = Field(sa_column=Column(Text, nullable=False))
    status: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    expires_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    code_url: str | None = Field(sa_column=Column(Text))
    refusal: str | None = Field(sa_column=Column(Text))  # the gateway's own code
    ask_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    attempts: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    decided_at: datetime | None = Field(sa_column=Column(MOMENT))
    answer_id: int | None = Field(sa_column=Column(BigInteger, ForeignKey("answers.answer_id")))


class LedgerRow(Base, table=True):
    """The book of double entry: each posting moves its amount from account `credit` to account `debit`.

    Every total is a sum over these, and none is kept anywhere else.
    """

    __tablename__: ClassVar[Any] = "ledger"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("kind", Posting), name="kind"),
        CheckConstraint("amount_fen > 0", name="amount"),
        CheckConstraint("(kind = 'refund-due') = (cause is not null)", name="refund_has_cause"),
        CheckConstraint("kind <> 'refunded' or answer_id is not null", name="refunded_by_the_gateway"),
        UniqueConstraint("channel", "transaction_id", "kind"),
        Index(None, "registration_id"),
        Index("ix_ledger_refund_due", "entry_id", postgresql_where=text("kind = 'refund-due'")),
    )

    entry_id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    registration_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    order_no: str = Field(sa_column=Column(Text, ForeignKey("orders.order_no"), nullable=False))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    transaction_id: str = Field(sa_column=Column(Text, nullable=False))
    amount_fen: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str = Field(sa_column=Column(Text, nullable=False))
    paid_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    recorded_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    cause: str | None = Field(sa_column=Column(Text))
    answer_id: int | None = Field(sa_column=Column(BigInteger, ForeignKey("answers.answer_id")))
    debit: str | None = Field(sa_column=Column(Text, Computed(_accounts(0), persisted=False)))
    credit: str | None = Field(sa_column=Column(Text, Computed(_accounts(1), persisted=False)))


class RefundRow(Base, table=True):
    """How far giving one payment back has come. Made from the ledger; the ledger's own rows say what is true of money."""

    __tablename__: ClassVar[Any] = "refunds"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("status", RefundStatus), name="status"),
        CheckConstraint("amount_fen > 0", name="amount"),
        CheckConstraint("(status = 'done') = (decided_at is not null)", name="done_once"),
        UniqueConstraint("channel", "transaction_id"),
        Index("ix_refunds_ask_at", "ask_at", postgresql_where=text("status <> 'done'")),
    )

    refund_no: str = Field(sa_column=Column(Text, primary_key=True))
    channel: str = Field(sa_column=Column(Text, nullable=False))
    transaction_id: str = Field(sa_column=Column(Text, nullable=False))
    order_no: str = Field(sa_column=Column(Text, ForeignKey("orders.order_no"), nullable=False))
    registration_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    amount_fen: int = Field(sa_column=Column(BigInteger, nullable=False))
    cause: str = Field(sa_column=Column(Text, nullable=False))
    status: str = Field(sa_column=Column(Text, nullable=False))
    due_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    ask_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    attempts: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    code: str | None = Field(sa_column=Column(Text))  # the gateway's own word for why not
    decided_at: datetime | None = Field(sa_column=Column(MOMENT))


class ReminderRun(Base, table=True):
    """A reminder's moment that is done with: sent to everyone it concerned, or overtaken by a later one."""

    __tablename__: ClassVar[Any] = "reminder_runs"

    cycle_id: str = Field(sa_column=Column(Text, primary_key=True))
    told_closes_at: datetime = Field(sa_column=Column(MOMENT, primary_key=True))
    offset_seconds: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    skipped: bool = Field(sa_column=Column(Boolean, nullable=False))
    at: datetime = Field(sa_column=Column(MOMENT, nullable=False))


class Reminder(Base, table=True):
    """Who was reminded, so that a run cut short goes on where it was and nobody is told twice."""

    __tablename__: ClassVar[Any] = "reminders"

    registration_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    told_closes_at: datetime = Field(sa_column=Column(MOMENT, primary_key=True))
    offset_seconds: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    at: datetime = Field(sa_column=Column(MOMENT, nullable=False))


class Recovery(Base, table=True):
    """A restore, and how far asking for what is younger than its backup has come. While one is open nobody is forfeited."""

    __tablename__: ClassVar[Any] = "recoveries"
    __table_args__: ClassVar[Any] = (
        Index(
            "uq_recoveries_one_open", text("(1)"), unique=True, postgresql_where=text("finished_at is null")
        ),
    )

    recovery_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    backup_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    begun_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    finished_at: datetime | None = Field(sa_column=Column(MOMENT))
    # The second round, where a gateway does not remember: what could still be opened in the first has ended.
    again: bool = Field(sa_column=Column(Boolean, nullable=False, server_default=text("false")))
    # Registrations up to this one are asked about; null: none yet.
    asked_up_to: UUID | None = Field(sa_column=Column(Uuid))
    asked: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    found: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))
    booked: int = Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))


class WindowRow(Base, table=True):
    """The close of a desk's payment window that two people set, over the cycle file. One row per desk: the one in force."""

    __tablename__: ClassVar[Any] = "windows"
    __table_args__: ClassVar[Any] = (
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("told_closes_at <= closes_at", name="told"),
    )

    site_id: str = Field(sa_column=Column(Text, primary_key=True))
    cycle_id: str = Field(sa_column=Column(Text, nullable=False))
    closes_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    told_closes_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    version: int = Field(sa_column=Column(BigInteger, nullable=False))
    set_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))


class DecisionRow(Base, table=True):
    """What one person of the office asked for. Rows are added, never changed; so are the two that follow."""

    __tablename__: ClassVar[Any] = "decisions"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("kind", Kind), name="kind"),
        CheckConstraint("(kind = 'revive') = (registration_id is not null)", name="scope"),
        CheckConstraint("told_closes_at <= closes_at", name="told"),
        CheckConstraint("asked_at < closes_at", name="ahead"),
        UniqueConstraint("decision_id", "asked_by"),
    )

    decision_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    site_id: str | None = Field(sa_column=Column(Text))
    registration_id: UUID | None = Field(sa_column=Column(Uuid))
    closes_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    told_closes_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    earlier: bool = Field(sa_column=Column(Boolean, nullable=False))
    reason_code: str = Field(sa_column=Column(Text, nullable=False))
    # Free text may say anything about a person: encrypted, bound to this row, never on a topic.
    reason: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    asked_by: str = Field(sa_column=Column(Text, nullable=False))
    asked_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    figures: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))


class VerdictRow(Base, table=True):
    """What another person said to it."""

    __tablename__: ClassVar[Any] = "verdicts"
    __table_args__: ClassVar[Any] = (
        CheckConstraint(one_of("word", Word), name="word"),
        # Nobody decides alone, whatever the code does.
        CheckConstraint("asked_by <> decided_by", name="two_people"),
        ForeignKeyConstraint(["decision_id", "asked_by"], ["decisions.decision_id", "decisions.asked_by"]),
    )

    decision_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    word: str = Field(sa_column=Column(Text, nullable=False))
    asked_by: str = Field(sa_column=Column(Text, nullable=False))
    decided_by: str = Field(sa_column=Column(Text, nullable=False))
    decided_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    note: bytes | None = Field(sa_column=Column(LargeBinary))
    figures: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))


class CarriedOut(Base, table=True):
    """It is done to everybody it concerned."""

    __tablename__: ClassVar[Any] = "carried_out"

    decision_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("verdicts.decision_id"), primary_key=True))
    done_at: datetime = Field(sa_column=Column(MOMENT, nullable=False))
    moved: int = Field(sa_column=Column(Integer, nullable=False))
    reinstated: int = Field(sa_column=Column(Integer, nullable=False))

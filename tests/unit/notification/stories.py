"""One example of every event that is told, under every variant: what the snapshot and service tests are made from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from contracts import confirmation, payment, registration
from contracts.cycle import Cycle
from contracts.reasons import (
    ChangedField,
    Channel,
    ExpiryCause,
    ReasonCode,
    RefundCause,
    ReinstatementCause,
    WindowReason,
    WithdrawalReason,
)
from services.notification.domain import told
from services.notification.domain.told import Desks, Hours, Told

CYCLE = Cycle.read(Path(__file__).parents[3] / "deploy/cycles/2024-health-leshan.toml")
ID = UUID("018c0000-0000-7000-8000-000000000001")
PROOF = UUID("018c0000-0000-7000-8000-00000000ffff")
DESKS = Desks(CYCLE, {})
BEFORE_CLOSE = datetime(2023, 12, 12, 4, tzinfo=UTC)
AFTER_CLOSE = datetime(2023, 12, 16, 4, tzinfo=UTC)
CLOSE = CYCLE.windows.payment.closes


def pre_registered(site: str = "shizhong") -> registration.PreRegistered:
    return registration.PreRegistered(
        cycle_id=CYCLE.id,
        registration_id=ID,
        site_id=site,
        specialty_code="203",
        level="junior",
        subjects=(1, 2, 3, 4),
        form_version=1,
        returning=False,
    )


def amended(site: str = "shizhong") -> registration.Amended:
    return registration.Amended(
        cycle_id=CYCLE.id,
        registration_id=ID,
        site_id=site,
        specialty_code="203",
        level="junior",
        subjects=(1, 2, 3, 4),
        form_version=2,
        changed=(ChangedField.SITE_ID,),
    )


def returned(fix_until: datetime | None, *reasons: ReasonCode) -> confirmation.Returned:
    return confirmation.Returned(
        cycle_id=CYCLE.id,
        registration_id=ID,
        level="site",
        reason_codes=reasons or (ReasonCode.DOCUMENTS, ReasonCode.PHOTO),
        fix_until=fix_until,
    )


def window_moved(opens_at: datetime | None) -> confirmation.WindowMoved:
    return confirmation.WindowMoved(
        cycle_id=CYCLE.id,
        registration_id=ID,
        site_id="municipal",
        opens_at=opens_at,
        closes_at=datetime(2023, 12, 15, 10, tzinfo=UTC),
        reason_code=WindowReason.ANNOUNCED,
    )


def reinstated(cause: ReinstatementCause) -> payment.Reinstated:
    return payment.Reinstated(
        cycle_id=CYCLE.id, registration_id=ID, cause=cause, closes_at=CLOSE + timedelta(days=2)
    )


def all_told() -> Iterator[tuple[str, Told]]:
    """(name of the golden file, what is told)."""
    yield "pre-registered", told.pre_registered(pre_registered(), DESKS, CYCLE)
    yield "pre-registered.undated", told.pre_registered(pre_registered("municipal"), DESKS, CYCLE)
    named = Desks(
        CYCLE, {"municipal": Hours(BEFORE_CLOSE + timedelta(hours=20), BEFORE_CLOSE + timedelta(days=2))}
    )
    yield "pre-registered.named-later", told.pre_registered(pre_registered("municipal"), named, CYCLE)
    yield "amended", told.amended(amended("jiajiang"), DESKS, CYCLE, None)
    yield "amended.after-return", told.amended(amended(), DESKS, CYCLE, BEFORE_CLOSE + timedelta(minutes=30))
    yield "amended.undated", told.amended(amended("municipal"), DESKS, CYCLE, None)
    withdrawn = registration.Withdrawn(
        cycle_id=CYCLE.id, registration_id=ID, reason_code=WithdrawalReason.PERSONAL
    )
    yield "withdrawn", told.withdrawn(withdrawn, AFTER_CLOSE, CYCLE)
    yield "withdrawn.again", told.withdrawn(withdrawn, BEFORE_CLOSE, CYCLE)
    yield (
        "confirmed",
        told.confirmed(
            confirmation.Confirmed(
                cycle_id=CYCLE.id, registration_id=ID, site_id="emeishan", form_version=2, desk="emeishan"
            ),
            CYCLE,
        ),
    )
    yield "returned", told.returned(returned(None), "shizhong", DESKS)
    yield "returned.until", told.returned(returned(BEFORE_CLOSE, *ReasonCode), None, DESKS)
    yield (
        "approved",
        told.approved(
            confirmation.Approved(
                cycle_id=CYCLE.id, registration_id=ID, level="junior", subjects=(1,), specialty_code="203"
            ),
            CYCLE,
        ),
    )
    yield (
        "rejected",
        told.rejected(
            confirmation.Rejected(
                cycle_id=CYCLE.id,
                registration_id=ID,
                level="district",
                reason_codes=(ReasonCode.YEARS, ReasonCode.EDUCATION),
            )
        ),
    )
    ebian = confirmation.Lapsed(
        cycle_id=CYCLE.id,
        registration_id=ID,
        site_id="ebian",
        closed_at=datetime(2023, 12, 12, 16, tzinfo=UTC),
    )
    yield "lapsed", told.lapsed(ebian, AFTER_CLOSE, CYCLE)
    yield "lapsed.again", told.lapsed(ebian, ebian.closed_at, CYCLE)
    yield (
        "desk-window-moved",
        told.desk_window_moved(window_moved(datetime(2023, 12, 13, 1, tzinfo=UTC))),
    )
    yield "desk-window-moved.close", told.desk_window_moved(window_moved(None))
    yield (
        "due",
        told.due(
            payment.Due(
                cycle_id=CYCLE.id,
                registration_id=ID,
                amount_fen=28_000,
                currency="CNY",
                opens_at=CYCLE.windows.payment.opens,
                closes_at=CLOSE,
            ),
            CYCLE,
        ),
    )
    for offset in CYCLE.windows.payment.reminders:
        seconds = int(offset.total_seconds())
        soon = payment.ClosingSoon(
            cycle_id=CYCLE.id, registration_id=ID, amount_fen=20_000, closes_at=CLOSE, offset=seconds
        )
        yield f"closing-soon.{seconds // 3600}h", told.closing_soon(soon, CYCLE)
    yield (
        "paid",
        told.paid(
            payment.Paid(
                cycle_id=CYCLE.id,
                registration_id=ID,
                amount_fen=28_000,
                paid_at=CLOSE - timedelta(microseconds=1),
                channel=Channel.WECHAT,
                order_no="20240130K00000000001",
            )
        ),
    )
    yield (
        "expired",
        told.expired(
            payment.Expired(
                cycle_id=CYCLE.id,
                registration_id=ID,
                closes_at=CLOSE,
                cause=ExpiryCause.UNPAID,
                proof_id=PROOF,
            ),
            CYCLE,
        ),
    )
    for cause in ReinstatementCause:
        yield f"reinstated.{cause}", told.reinstated(reinstated(cause), CYCLE)
    for reason in RefundCause:
        refunded = payment.Refunded(
            cycle_id=CYCLE.id,
            registration_id=ID,
            amount_fen=28_000,
            cause=reason,
            refund_no="20240209R00000000001",
        )
        yield f"refunded.{reason}", told.refunded(refunded)
    moved = payment.WindowMoved(
        cycle_id=CYCLE.id,
        registration_id=ID,
        closes_at=CLOSE + timedelta(days=2),
        reason_code=WindowReason.OUTAGE,
        counts=payment.MovedCounts(awaiting=3, reinstated=0),
    )
    yield "payment-window-moved", told.payment_window_moved(moved, CYCLE)

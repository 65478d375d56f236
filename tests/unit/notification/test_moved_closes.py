"""What candidates read of a payment window that two people have moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from contracts import confirmation, payment
from contracts.cycle import Cycle
from services.notification.domain import told

CYCLE = Cycle.read(Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml")
ONE = UUID(int=1)
MOVED = datetime(2024, 2, 10, 16, tzinfo=UTC)


def test_whoever_is_approved_after_it_moved_reads_the_new_close() -> None:
    event = confirmation.Approved(
        cycle_id=CYCLE.id,
        registration_id=ONE,
        level="junior",
        subjects=(1, 2),
        specialty_code="203",
        told_closes_at=MOVED,
    )
    said = told.approved(event, CYCLE)
    assert (said.facts["closes_at"], said.deadline) == (MOVED.isoformat(), MOVED)
    announced = told.approved(event.model_copy(update={"told_closes_at": None}), CYCLE)
    assert announced.deadline == CYCLE.windows.payment.told_closes


def test_whoever_falls_at_a_close_with_a_grace_reads_the_one_that_was_told() -> None:
    window = CYCLE.windows.payment
    grace = timedelta(minutes=10)
    lenient = CYCLE.model_copy(
        update={
            "windows": CYCLE.windows.model_copy(
                update={"payment": window.model_copy(update={"told": window.closes - grace})}
            )
        }
    )
    for closes_at in (window.closes, MOVED):
        event = payment.Expired(
            cycle_id=CYCLE.id, registration_id=ONE, closes_at=closes_at, cause="unpaid", proof_id=ONE
        )
        said = told.expired(event, lenient).facts["closed_at"]
        assert datetime.fromisoformat(str(said)) == closes_at - grace

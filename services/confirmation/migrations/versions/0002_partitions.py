"""Outbox and inbox are partitioned by time. Nothing is copied; version n-1 goes on working on what it makes."""

from alembic import op

from services.chassis import migrations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrations.partition_events(op)


def downgrade() -> None:
    """The tables stay as they are: the version before works on them, and upgrading again finds every step done."""

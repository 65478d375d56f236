"""What was asked after a restore; while one is open nobody is forfeited."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table recoveries (
            recovery_id uuid not null,
            backup_at timestamptz not null,
            begun_at timestamptz not null,
            finished_at timestamptz,
            asked_up_to uuid,
            asked integer not null default 0,
            found integer not null default 0,
            booked integer not null default 0,
            constraint pk_recoveries primary key (recovery_id)
        )
        """
    )
    op.execute("create unique index uq_recoveries_one_open on recoveries ((1)) where finished_at is null")


def downgrade() -> None:
    op.execute("drop table recoveries")

"""Until when payment is open for a desk, where the office has moved it: the last level may approve until then."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table payment_closes (
            site_id text not null,
            cycle_id text not null,
            closes_at timestamptz not null,
            sequence bigint not null,
            constraint pk_payment_closes primary key (site_id)
        )
        """
    )


def downgrade() -> None:
    op.execute("drop table payment_closes")

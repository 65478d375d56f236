"""Since when it is not known any more who a registration is of."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table registrations add column erased_at timestamptz")


def downgrade() -> None:
    """The column stays: the version before does not read it, and who was forgotten must stay forgotten."""

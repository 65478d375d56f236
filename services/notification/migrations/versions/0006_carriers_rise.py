"""When a fallen carrier's share was last raised: it rises by what it answers, step by step, and no longer as time passes."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table sms_providers add column rose_at timestamptz")


def downgrade() -> None:
    raise RuntimeError("what was told cannot be untold: restore a backup instead")

"""When this database was put back to an earlier moment: what was said before then, and is heard after, may have been told."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table restores (
            since timestamptz primary key,
            restore_id uuid not null,
            at timestamptz not null
        )
        """
    )


def downgrade() -> None:
    raise RuntimeError("what was told cannot be untold: restore a backup instead")

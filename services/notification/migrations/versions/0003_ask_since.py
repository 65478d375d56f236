"""After a restore: which messages a carrier may have without our knowing."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table messages add column ask_since timestamptz")
    op.execute(
        "create index ix_messages_ask on messages (state_at) where ask_since is not null and state = 'accepted'"
    )


def downgrade() -> None:
    op.execute("alter table messages drop column ask_since")

"""Indexes for what the office reads: who was told by nothing, the last-day reminders of a close, and one desk's people.

None for the funnel: it counts every message, 0.4 s of a million, and an index would be written at each of a message's steps.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXES = (
    "create index ix_messages_failed on messages (message_id) where state in ('expired', 'undelivered')",
    "create index ix_messages_reminders on messages (deadline_at) where occasion = 'closing-soon'",
    "create index ix_recipients_site on recipients (site_id)",
)


def upgrade() -> None:
    for statement in INDEXES:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("what was told cannot be untold: restore a backup instead")

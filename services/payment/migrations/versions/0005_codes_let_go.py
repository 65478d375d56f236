"""Codes that were let go before anybody opened them, and what they ask of a recovery."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table orders drop constraint ck_orders_status")
    op.execute(
        "alter table orders add constraint ck_orders_status "
        "check (status in ('closed', 'creating', 'failed', 'lapsing', 'open', 'paid', 'unknown')) not valid"
    )
    op.execute("alter table orders validate constraint ck_orders_status")
    op.execute("drop index ix_orders_ask_at")
    op.execute(
        "create index ix_orders_ask_at on orders (ask_at) where status in ('creating', 'lapsing', 'open', 'unknown')"
    )
    op.execute("alter table recoveries add column again boolean not null default false")


def downgrade() -> None:
    op.execute("alter table recoveries drop column again")
    op.execute("drop index ix_orders_ask_at")
    op.execute("create index ix_orders_ask_at on orders (ask_at) where status in ('creating', 'open', 'unknown')")
    op.execute("alter table orders drop constraint ck_orders_status")
    op.execute(
        "alter table orders add constraint ck_orders_status "
        "check (status in ('closed', 'creating', 'failed', 'open', 'paid', 'unknown'))"
    )

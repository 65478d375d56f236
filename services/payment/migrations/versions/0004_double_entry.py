"""The ledger becomes a book of double entry, and refunds are carried out.

A posting's accounts follow from its kind and channel, so they are computed when they are read: no row is rewritten, and
what version n-1 writes beside us has its accounts too. The fees that n-1 does not post are completed by the job.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DEBIT = """
    case kind when 'received' then 'gateway:' || channel when 'fee' then 'unjudged' when 'fee-taken-back' then 'fees'
              when 'refund-due' then 'unjudged' when 'refunded' then 'refunds-due' end
"""
CREDIT = """
    case kind when 'received' then 'unjudged' when 'fee' then 'fees' when 'fee-taken-back' then 'unjudged'
              when 'refund-due' then 'refunds-due' when 'refunded' then 'gateway:' || channel end
"""


def upgrade() -> None:
    op.execute("alter table ledger drop constraint ck_ledger_kind")
    op.execute(
        "alter table ledger add constraint ck_ledger_kind "
        "check (kind in ('fee', 'fee-taken-back', 'received', 'refund-due', 'refunded')) not valid"
    )
    op.execute("alter table ledger validate constraint ck_ledger_kind")
    op.execute(
        "alter table ledger add constraint ck_ledger_refunded_by_the_gateway "
        "check (kind <> 'refunded' or answer_id is not null) not valid"
    )
    op.execute("alter table ledger validate constraint ck_ledger_refunded_by_the_gateway")
    op.execute(
        f"alter table ledger add column debit text generated always as ({DEBIT}) virtual, "
        f"add column credit text generated always as ({CREDIT}) virtual"
    )
    op.execute("alter table answers drop constraint ck_answers_kind")
    op.execute(
        "alter table answers add constraint ck_answers_kind check (kind in ('notice', 'query', 'refund')) not valid"
    )
    op.execute("alter table answers validate constraint ck_answers_kind")
    op.execute(
        """
        create table refunds (
            refund_no text not null,
            channel text not null,
            transaction_id text not null,
            order_no text not null,
            registration_id uuid not null,
            amount_fen bigint not null,
            cause text not null,
            status text not null,
            due_at timestamptz not null,
            ask_at timestamptz not null,
            attempts integer default 0 not null,
            code text,
            decided_at timestamptz,
            constraint pk_refunds primary key (refund_no),
            constraint uq_refunds_channel_transaction_id unique (channel, transaction_id),
            constraint ck_refunds_status check (status in ('asked', 'done', 'due', 'refused')),
            constraint ck_refunds_amount check (amount_fen > 0),
            constraint ck_refunds_done_once check ((status = 'done') = (decided_at is not null)),
            constraint fk_refunds_order_no foreign key (order_no) references orders (order_no)
        )
        """
    )
    op.execute("create index ix_ledger_refund_due on ledger (entry_id) where kind = 'refund-due'")
    op.execute("create index ix_refunds_ask_at on refunds (ask_at) where status <> 'done'")


def downgrade() -> None:
    raise RuntimeError("money that went back cannot be unsaid: restore a backup instead")

"""The first shape of payment's tables.

What the gateway said, what money came in and why somebody was forfeited are facts: a trigger refuses to change
or delete them, whoever asks.
"""

from __future__ import annotations

from alembic import op

from services.chassis import migrations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    create table obligations (
        registration_id uuid not null,
        cycle_id text not null,
        status text not null,
        version integer not null,
        amount_fen integer not null,
        currency text not null,
        opens_at timestamptz not null,
        closes_at timestamptz not null,
        told_closes_at timestamptz not null,
        due_at timestamptz not null,
        changed_at timestamptz not null,
        paid_at timestamptz,
        expired_at timestamptz,
        proof_id uuid,
        cancelled_for text,
        constraint pk_obligations primary key (registration_id),
        constraint ck_obligations_status check (status in ('awaiting', 'cancelled', 'expired', 'held', 'paid')),
        constraint ck_obligations_amount check (amount_fen > 0),
        constraint ck_obligations_window check (opens_at < closes_at),
        constraint ck_obligations_version check (version > 0),
        constraint ck_obligations_paid_in_time check (
            status <> 'paid' or (paid_at is not null and paid_at < closes_at)),
        constraint ck_obligations_expired_with_proof check (
            status <> 'expired'
            or (proof_id is not null and expired_at is not null and expired_at >= closes_at)),
        constraint ck_obligations_cancelled_for_a_reason check (
            (status = 'cancelled') = (cancelled_for is not null)),
        constraint ck_obligations_cancelled_for check (
            cancelled_for is null or cancelled_for in ('rejected', 'returned', 'withdrawn'))
    )
    """,
    "create index ix_obligations_held on obligations (registration_id) where status = 'held'",
    """
    create index ix_obligations_owed on obligations (closes_at, registration_id)
    where status in ('awaiting', 'held')
    """,
    """
    create table answers (
        answer_id bigint generated always as identity,
        order_no text not null,
        kind text not null,
        state text not null,
        at timestamptz not null,
        digest bytea not null,
        raw bytea not null,
        signature jsonb not null,
        constraint pk_answers primary key (answer_id),
        constraint ck_answers_kind check (kind in ('query', 'notice'))
    )
    """,
    "create index ix_answers_order_no on answers (order_no)",
    """
    create table orders (
        order_no text not null,
        registration_id uuid not null,
        channel text not null,
        amount_fen integer not null,
        currency text not null,
        status text not null,
        created_at timestamptz not null,
        expires_at timestamptz not null,
        code_url text,
        refusal text,
        ask_at timestamptz not null,
        attempts integer default 0 not null,
        decided_at timestamptz,
        answer_id bigint,
        constraint pk_orders primary key (order_no),
        constraint ck_orders_status check (status in ('closed', 'creating', 'failed', 'open', 'paid', 'unknown')),
        constraint ck_orders_amount check (amount_fen > 0),
        constraint ck_orders_closed_with_answer check (status <> 'closed' or answer_id is not null),
        constraint ck_orders_failed_with_refusal check (status <> 'failed' or refusal is not null),
        constraint fk_orders_registration_id foreign key (registration_id)
            references obligations (registration_id),
        constraint fk_orders_answer_id foreign key (answer_id) references answers (answer_id)
    )
    """,
    "create index ix_orders_ask_at on orders (ask_at) where status in ('creating', 'open', 'unknown')",
    "create index ix_orders_registration_id on orders (registration_id)",
    """
    create unique index uq_orders_one_undecided on orders (registration_id)
    where status in ('creating', 'open', 'unknown')
    """,
    """
    create table ledger (
        entry_id bigint generated always as identity,
        kind text not null,
        registration_id uuid not null,
        order_no text not null,
        channel text not null,
        transaction_id text not null,
        amount_fen bigint not null,
        currency text not null,
        paid_at timestamptz not null,
        recorded_at timestamptz not null,
        cause text,
        answer_id bigint,
        constraint pk_ledger primary key (entry_id),
        constraint ck_ledger_kind check (kind in ('received', 'refund-due')),
        constraint ck_ledger_amount check (amount_fen > 0),
        constraint ck_ledger_refund_has_cause check ((kind = 'refund-due') = (cause is not null)),
        constraint uq_ledger_channel_transaction_id_kind unique (channel, transaction_id, kind),
        constraint fk_ledger_order_no foreign key (order_no) references orders (order_no),
        constraint fk_ledger_answer_id foreign key (answer_id) references answers (answer_id)
    )
    """,
    "create index ix_ledger_registration_id on ledger (registration_id)",
    """
    create table proofs (
        number bigint generated always as identity,
        proof_id uuid not null,
        registration_id uuid not null,
        closes_at timestamptz not null,
        expired_at timestamptz not null,
        amount_fen integer not null,
        rule text not null,
        orders text not null,
        leaf bytea not null,
        constraint pk_proofs primary key (number),
        constraint uq_proofs_closes_at_registration_id unique (closes_at, registration_id)
    )
    """,
    """
    create table closings (
        cycle_id text not null,
        closes_at timestamptz not null,
        fingerprint text not null,
        begun_at timestamptz not null,
        guard text,
        guard_stops integer default 0 not null,
        closed_at timestamptz,
        sequence integer,
        counts jsonb,
        sums_fen jsonb,
        proof_root bytea,
        proofs bigint,
        last_proof bigint,
        constraint pk_closings primary key (cycle_id, closes_at),
        constraint ck_closings_closed_with_root check ((closed_at is null) = (proof_root is null)),
        constraint ck_closings_closed_said_once check ((closed_at is null) = (sequence is null))
    )
    """,
    """
    create table reminder_runs (
        cycle_id text not null,
        told_closes_at timestamptz not null,
        offset_seconds integer not null,
        skipped boolean not null,
        at timestamptz not null,
        constraint pk_reminder_runs primary key (cycle_id, told_closes_at, offset_seconds)
    )
    """,
    """
    create table reminders (
        registration_id uuid not null,
        told_closes_at timestamptz not null,
        offset_seconds integer not null,
        at timestamptz not null,
        constraint pk_reminders primary key (registration_id, told_closes_at, offset_seconds)
    )
    """,
)

ONLY_ADDED_TO = ("answers", "ledger", "proofs")
KEEP_FACTS = """
    create function keep_facts() returns trigger language plpgsql as $$
    begin
        raise exception '% is only ever added to', tg_table_name using errcode = 'restrict_violation';
    end $$
"""

# A close touches every row that is owed: without this the table's dead rows outlive the day.
VACUUM_SOON = """
    alter table obligations set (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0
    )
"""


def upgrade() -> None:
    migrations.create_plumbing_v1(op)
    for statement in TABLES:
        op.execute(statement)
    op.execute(VACUUM_SOON)
    op.execute(KEEP_FACTS)
    for table in ONLY_ADDED_TO:
        op.execute(
            f"create trigger keep_{table} before update or delete on {table} "
            "for each statement execute function keep_facts()"
        )


def downgrade() -> None:
    raise RuntimeError("a close cannot be undone: restore a backup instead")

"""The gateways' bills by day, what comparing them came to, and the breaks that people close.

All of it is only ever added to, but for how long a day has been waited for.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = (
    """
    create table cycle_versions (
        cycle_id text not null,
        sequence bigint not null,
        constraint pk_cycle_versions primary key (cycle_id)
    )
    """,
    """
    create table bills (
        bill_id uuid not null,
        channel text not null,
        day date not null,
        digest bytea,
        raw bytea,
        lines integer not null,
        fetched_at timestamptz not null,
        constraint pk_bills primary key (bill_id),
        constraint ck_bills_none_is_empty check ((digest is null) = (raw is null) and (digest is not null or lines = 0))
    )
    """,
    """
    create table bill_lines (
        bill_id uuid not null,
        line_no integer not null,
        order_no text not null,
        transaction_id text not null,
        refund_no text,
        amount_fen bigint not null,
        at timestamptz not null,
        constraint pk_bill_lines primary key (bill_id, line_no)
    )
    """,
    "create index ix_bill_lines_transaction_id on bill_lines (transaction_id)",
    "create index ix_bill_lines_refund_no on bill_lines (refund_no) where refund_no is not null",
    """
    create table reconciliations (
        number bigint generated always as identity,
        channel text not null,
        day date not null,
        bill_id uuid not null,
        at timestamptz not null,
        changed boolean not null,
        lines integer not null,
        matched integer not null,
        explained integer not null,
        breaks integer not null,
        billed_fen bigint not null,
        billed_back_fen bigint not null,
        booked_fen bigint not null,
        constraint pk_reconciliations primary key (number),
        constraint fk_reconciliations_bill_id foreign key (bill_id) references bills (bill_id),
        constraint ck_reconciliations_every_line check (matched >= 0 and explained >= 0 and matched + explained <= lines)
    )
    """,
    "create index ix_reconciliations_channel_day on reconciliations (channel, day)",
    """
    create table explanations (
        bill_id uuid not null,
        subject text not null,
        reason text not null,
        line_no integer,
        order_no text not null,
        amount_fen bigint not null,
        found_at timestamptz not null,
        constraint pk_explanations primary key (bill_id, subject, reason),
        constraint fk_explanations_bill_id foreign key (bill_id) references bills (bill_id)
    )
    """,
    """
    create table breaks (
        number bigint generated always as identity,
        break_id uuid not null,
        bill_id uuid not null,
        channel text not null,
        day date not null,
        kind text not null,
        subject text not null,
        line_no integer,
        order_no text not null,
        transaction_id text not null,
        refund_no text,
        registration_id uuid,
        state text,
        billed_fen bigint,
        booked_fen bigint,
        found_at timestamptz not null,
        constraint pk_breaks primary key (break_id),
        constraint uq_breaks_bill_id_kind_subject unique (bill_id, kind, subject),
        constraint uq_breaks_number unique (number),
        constraint fk_breaks_bill_id foreign key (bill_id) references bills (bill_id),
        constraint ck_breaks_kind check (kind in (
            'duplicate-line', 'not-in-bill', 'not-in-ledger', 'not-paid-here', 'other-amount', 'other-day', 'other-order',
            'refund-not-in-bill', 'refund-not-in-ledger', 'refund-other-amount', 'unknown-order'))
    )
    """,
    """
    create table break_closings (
        break_id uuid not null,
        closed_by text not null,
        closed_at timestamptz not null,
        reason_code text not null,
        reason bytea not null,
        constraint pk_break_closings primary key (break_id),
        constraint fk_break_closings_break_id foreign key (break_id) references breaks (break_id)
    )
    """,
    """
    create table bill_waits (
        channel text not null,
        day date not null,
        since timestamptz not null,
        attempts integer default 0 not null,
        ask_at timestamptz not null,
        code text not null,
        again boolean default false not null,
        constraint pk_bill_waits primary key (channel, day)
    )
    """,
)
ONLY_ADDED_TO = ("bills", "bill_lines", "reconciliations", "explanations", "breaks", "break_closings")

# What is said of a whole cycle is numbered in one place, also by version n-1, which counts its closes only.
NUMBER_CLOSES = """
    create function number_close() returns trigger language plpgsql as $$
    begin
        if tg_op = 'INSERT' or old.sequence is not null then
            insert into cycle_versions (cycle_id, sequence) values (new.cycle_id, new.sequence)
            on conflict (cycle_id) do update set sequence = greatest(cycle_versions.sequence, excluded.sequence);
        else
            insert into cycle_versions (cycle_id, sequence) values (new.cycle_id, 1)
            on conflict (cycle_id) do update set sequence = cycle_versions.sequence + 1
            returning sequence into new.sequence;
        end if;
        return new;
    end $$
"""


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    # Until now a close was all that was said of a whole cycle.
    op.execute(
        "insert into cycle_versions (cycle_id, sequence) "
        "select cycle_id, max(sequence) from closings where sequence is not null group by cycle_id"
    )
    op.execute(NUMBER_CLOSES)
    op.execute(
        "create trigger number_closings before insert or update of sequence on closings "
        "for each row when (new.sequence is not null) execute function number_close()"
    )
    for table in ONLY_ADDED_TO:
        op.execute(
            f"create trigger keep_{table} before update or delete on {table} "
            "for each statement execute function keep_facts()"
        )


def downgrade() -> None:
    raise RuntimeError("what a gateway said of a day cannot be unsaid: restore a backup instead")

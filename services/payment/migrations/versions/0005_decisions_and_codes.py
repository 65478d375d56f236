"""Decisions of two people: what was asked for, what was said to it, what was done; and the closes in force by desk.

The two people are the database's rule as well: a verdict carries who asked, and whoever asked cannot have said yes.
And codes that were let go before anybody opened them, with what they ask of a recovery.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = (
    """
    create table windows (
        site_id text not null,
        cycle_id text not null,
        closes_at timestamptz not null,
        told_closes_at timestamptz not null,
        version bigint not null,
        set_at timestamptz not null,
        constraint pk_windows primary key (site_id),
        constraint ck_windows_version check (version > 0),
        constraint ck_windows_told check (told_closes_at <= closes_at)
    )
    """,
    """
    create table decisions (
        decision_id uuid not null,
        kind text not null,
        site_id text,
        registration_id uuid,
        closes_at timestamptz not null,
        told_closes_at timestamptz not null,
        earlier boolean not null,
        reason_code text not null,
        reason bytea not null,
        asked_by text not null,
        asked_at timestamptz not null,
        figures jsonb not null,
        constraint pk_decisions primary key (decision_id),
        constraint uq_decisions_decision_id_asked_by unique (decision_id, asked_by),
        constraint ck_decisions_kind check (kind in ('extend-payment', 'revive')),
        constraint ck_decisions_scope check ((kind = 'revive') = (registration_id is not null)),
        constraint ck_decisions_told check (told_closes_at <= closes_at),
        constraint ck_decisions_ahead check (asked_at < closes_at)
    )
    """,
    """
    create table verdicts (
        decision_id uuid not null,
        word text not null,
        asked_by text not null,
        decided_by text not null,
        decided_at timestamptz not null,
        note bytea,
        figures jsonb not null,
        constraint pk_verdicts primary key (decision_id),
        constraint fk_verdicts_decision_id_asked_by foreign key (decision_id, asked_by)
            references decisions (decision_id, asked_by),
        constraint ck_verdicts_word check (word in ('approved', 'rejected')),
        constraint ck_verdicts_two_people check (asked_by <> decided_by)
    )
    """,
    """
    create table carried_out (
        decision_id uuid not null,
        done_at timestamptz not null,
        moved integer not null,
        reinstated integer not null,
        constraint pk_carried_out primary key (decision_id),
        constraint fk_carried_out_decision_id foreign key (decision_id) references verdicts (decision_id)
    )
    """,
)
ONLY_ADDED_TO = ("decisions", "verdicts", "carried_out")


def upgrade() -> None:
    # Unknown of whoever was approved before: a decision about one desk says how many it does not reach.
    op.execute("alter table obligations add column site_id text")
    for statement in TABLES:
        op.execute(statement)
    for table in ONLY_ADDED_TO:
        op.execute(
            f"create trigger keep_{table} before update or delete on {table} "
            "for each statement execute function keep_facts()"
        )
    _codes_let_go()


def _codes_let_go() -> None:
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
    raise RuntimeError("what two people decided cannot be unsaid: restore a backup instead")

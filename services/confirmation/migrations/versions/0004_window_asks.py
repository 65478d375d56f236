"""Another window of a dated desk is asked for by one person of the office and decided by another.

Written so that it finds what is there already: for some commits revision 0003 made these tables as well.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table payment_closes add column if not exists told_closes_at timestamptz")
    # Version n-1, which may write beside us, does not know it.
    op.execute("alter table payment_closes alter column told_closes_at drop not null")
    op.execute(
        """
        create table if not exists desk_window_asks (
            ask_id uuid not null,
            site_id text not null,
            opens_at timestamptz not null,
            closes_at timestamptz not null,
            reason_code text not null,
            reason text not null,
            waiting integer not null,
            asked_by text not null,
            asked_at timestamptz not null,
            constraint pk_desk_window_asks primary key (ask_id),
            constraint uq_desk_window_asks_ask_id_asked_by unique (ask_id, asked_by),
            constraint ck_desk_window_asks_opens_before_it_closes check (opens_at < closes_at)
        )
        """
    )
    op.execute(
        """
        create table if not exists desk_window_verdicts (
            ask_id uuid not null,
            word text not null,
            asked_by text not null,
            decided_by text not null,
            decided_at timestamptz not null,
            constraint pk_desk_window_verdicts primary key (ask_id),
            constraint fk_desk_window_verdicts_ask_id_asked_by foreign key (ask_id, asked_by)
                references desk_window_asks (ask_id, asked_by),
            constraint ck_desk_window_verdicts_word check (word in ('approved', 'rejected')),
            constraint ck_desk_window_verdicts_two_people check (asked_by <> decided_by)
        )
        """
    )
    for table in ("desk_window_asks", "desk_window_verdicts"):
        op.execute(
            f"create or replace trigger {table}_append_only before update or delete or truncate on {table} "
            "for each statement execute function kept_as_it_was()"
        )


def downgrade() -> None:
    raise RuntimeError("what two people decided cannot be unsaid: restore a backup instead")

"""Cases, decisions, desk windows, and the chassis' tables."""

from alembic import op

from services.chassis.migrations import create_plumbing_v1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create table cases (
        registration_id uuid not null,
        cycle_id text not null,
        site_id text not null,
        specialty_code text not null,
        level text not null,
        subjects smallint[] not null,
        form_version integer not null,
        is_returning boolean not null,
        state text not null,
        passed smallint not null,
        fix_until timestamptz,
        version bigint not null,
        opened_at timestamptz not null,
        changed_at timestamptz not null,
        constraint pk_cases primary key (registration_id),
        constraint ck_cases_state check (
            state in ('pre-registered', 'returned', 'confirmed', 'approved', 'rejected', 'lapsed', 'withdrawn')
        ),
        constraint ck_cases_form_version check (form_version > 0),
        constraint ck_cases_version check (version >= 0),
        constraint ck_cases_passed_when_confirmed check ((state in ('confirmed', 'approved')) <= (passed > 0)),
        constraint ck_cases_subjects check (cardinality(subjects) > 0)
    )
    """,
    "create index ix_cases_site_id_registration_id on cases (site_id, registration_id)",
    """
    create index ix_cases_unconfirmed on cases (site_id, registration_id)
    where state in ('pre-registered', 'returned')
    """,
    "create index ix_cases_fix_until on cases (fix_until) where state = 'returned'",
    "create index ix_cases_in_review on cases (registration_id) where state = 'confirmed'",
    """
    create table decisions (
        decision_id uuid not null,
        registration_id uuid not null,
        version bigint not null,
        kind text not null,
        level text not null,
        actor_kind text not null,
        actor text not null,
        reason_codes text[] not null,
        note bytea,
        fix_until timestamptz,
        form_version integer not null,
        documents jsonb,
        at timestamptz not null,
        constraint pk_decisions primary key (decision_id),
        constraint ck_decisions_kind check (kind in ('confirmed', 'returned', 'approved', 'rejected', 'lapsed')),
        constraint ck_decisions_reason_when_sent_away check (
            (kind in ('returned', 'rejected')) = (cardinality(reason_codes) > 0)
        )
    )
    """,
    "create unique index ix_decisions_registration_id_version on decisions (registration_id, version)",
    """
    create table desk_windows (
        site_id text not null,
        cycle_id text not null,
        opens_at timestamptz not null,
        closes_at timestamptz not null,
        version bigint not null,
        set_at timestamptz not null,
        constraint pk_desk_windows primary key (site_id),
        constraint ck_desk_windows_opens_before_it_closes check (opens_at < closes_at),
        constraint ck_desk_windows_version check (version > 0)
    )
    """,
    """
    create table desk_window_changes (
        site_id text not null,
        version bigint not null,
        opens_at timestamptz not null,
        closes_at timestamptz not null,
        reason_code text not null,
        reason text not null,
        actor text not null,
        at timestamptz not null,
        constraint pk_desk_window_changes primary key (site_id, version)
    )
    """,
    # What was decided is never rewritten: the office answers for it years later.
    """
    create function kept_as_it_was() returns trigger language plpgsql as
    $$ begin raise exception '% is append-only', tg_table_name; end $$
    """,
    """
    create trigger decisions_append_only before update or delete or truncate on decisions
    for each statement execute function kept_as_it_was()
    """,
    """
    create trigger desk_window_changes_append_only before update or delete or truncate on desk_window_changes
    for each statement execute function kept_as_it_was()
    """,
)


def upgrade() -> None:
    create_plumbing_v1(op)
    for statement in STATEMENTS:
        op.execute(statement)

"""The first shape of notification's tables."""

from __future__ import annotations

from alembic import op

from services.chassis import migrations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    create table recipients (
        registration_id uuid not null,
        cycle_id text not null,
        site_id text,
        confirm_by timestamptz,
        standing text not null default 'none',
        version bigint not null default 0,
        tail text,
        phone bytea,
        email bytea,
        contact_wanted integer not null default 1,
        contact_known integer not null default 0,
        contact_tries integer not null default 0,
        contact_try_at timestamptz not null,
        constraint pk_recipients primary key (registration_id),
        constraint ck_recipients_standing
            check (standing in ('awaiting', 'cancelled', 'expired', 'none', 'paid')),
        constraint ck_recipients_contact check (contact_known <= contact_wanted),
        constraint ck_recipients_known check (contact_known = 0 or tail is not null)
    )
    """,
    "create index ix_recipients_wanted on recipients (contact_try_at) where contact_known < contact_wanted",
    """
    create table messages (
        message_id uuid not null,
        registration_id uuid not null,
        occasion text not null,
        variant text not null,
        instance text not null,
        channel text not null,
        state text not null,
        facts jsonb not null,
        deadline_at timestamptz,
        created_at timestamptz not null,
        state_at timestamptz not null,
        not_before timestamptz not null,
        due_at timestamptz,
        claims integer not null default 0,
        tries integer not null default 0,
        ambiguous integer not null default 0,
        template_version integer not null,
        subject text,
        body text,
        parts integer,
        provider_ref text,
        carrier_code text,
        reason_code text,
        correlation_id text not null,
        caused_by uuid not null,
        constraint pk_messages primary key (message_id),
        constraint uq_messages_registration_id_occasion_instance_channel
            unique (registration_id, occasion, instance, channel),
        constraint ck_messages_occasion check (occasion in ('amended', 'approved', 'closing-soon', 'confirmed',
            'desk-window-moved', 'due', 'expired', 'lapsed', 'paid', 'payment-window-moved', 'pre-registered',
            'refunded', 'reinstated', 'rejected', 'returned', 'withdrawn')),
        constraint ck_messages_channel check (channel in ('email', 'sms')),
        constraint ck_messages_state
            check (state in ('accepted', 'created', 'delivered', 'sending', 'superseded', 'undelivered')),
        constraint ck_messages_only_the_waiting_are_due
            check (state in ('created', 'sending') or due_at is null),
        constraint ck_messages_text_on_record
            check (state <> 'sending' or (due_at is not null and body is not null)),
        constraint ck_messages_undelivered_for_a_reason
            check ((state = 'undelivered') = (reason_code is not null))
    )
    """,
    "create index ix_messages_due on messages (channel, due_at) where state in ('created', 'sending')",
    """
    create table desks (
        cycle_id text not null,
        site_id text not null,
        opens_at timestamptz not null,
        closes_at timestamptz not null,
        sequence bigint not null,
        constraint pk_desks primary key (cycle_id, site_id)
    )
    """,
)

# Every message is written four times on its way: without this a storm's dead rows outlive the storm.
VACUUM_SOON = """
    alter table messages set (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, autovacuum_vacuum_cost_delay = 0
    )
"""


def upgrade() -> None:
    migrations.create_plumbing_v1(op)
    for statement in TABLES:
        op.execute(statement)
    op.execute(VACUUM_SOON)


def downgrade() -> None:
    raise RuntimeError("what was told cannot be untold: restore a backup instead")

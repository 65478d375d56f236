"""Several carriers and languages, an order by urgency, messages that run out, and the desks' list of people to call.

Version n-1 goes on beside it: it writes rows without the new columns, and never the new state.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = (
    """
    alter table messages
        add column provider text,
        add column language text,
        add column priority smallint not null default 1,
        add column asks smallint not null default 0,
        add column call_at timestamptz
    """,
    """
    alter table recipients
        add column language text not null default 'zh',
        add column pay_by timestamptz,
        add column contact_at timestamptz,
        add column erased_at timestamptz
    """,
)
# Each is wider than what it replaces, so it holds for every row that is there.
WIDER = {
    "state": "state in ('accepted', 'created', 'delivered', 'expired', 'sending', 'superseded', 'undelivered')",
    "undelivered_for_a_reason": "(state in ('expired', 'undelivered')) = (reason_code is not null)",
}
INDEXES = (
    "create index ix_messages_urgent on messages (channel, priority, due_at) where state in ('created', 'sending')",
    "create index ix_messages_silent on messages (asks, state_at) where state = 'accepted'",
    "create index ix_messages_call on messages (call_at) where call_at is not null",
    # The one carrier whose pushed receipts name a message by its own number only.
    "create index ix_messages_serial on messages (provider_ref) where provider = 'tencent'",
)
TABLES = (
    """
    create table calls (
        call_id uuid not null,
        registration_id uuid not null,
        site_id text,
        occasion text not null,
        matter text not null,
        message_id uuid not null,
        reason_code text not null,
        created_at timestamptz not null,
        call_by timestamptz,
        attempts integer not null default 0,
        opened_at timestamptz,
        opened_by text,
        outcome text,
        closed_at timestamptz,
        closed_by text,
        constraint pk_calls primary key (call_id),
        constraint uq_calls_registration_id_matter unique (registration_id, matter),
        constraint ck_calls_closed_with_an_outcome check (closed_at is null or outcome is not null)
    )
    """,
    """
    create table sms_providers (
        name text not null,
        share double precision not null,
        fell_at timestamptz,
        paused_until timestamptz,
        strikes integer not null default 0,
        why text,
        tries bigint not null default 0,
        failed bigint not null default 0,
        slow bigint not null default 0,
        constraint pk_sms_providers primary key (name)
    )
    """,
    """
    create table sms_left (
        message_id uuid not null,
        provider text not null,
        number bytea not null,
        template text not null,
        text bytea not null,
        at timestamptz not null,
        constraint pk_sms_left primary key (number, at, message_id)
    )
    """,
    "create index ix_sms_left_at on sms_left (at)",
    """
    create table sms_days (
        day date not null,
        parts bigint not null,
        constraint pk_sms_days primary key (day)
    )
    """,
    """
    create table early_receipts (
        provider text not null,
        provider_ref text not null,
        delivered boolean not null,
        code text not null,
        at timestamptz not null,
        constraint pk_early_receipts primary key (provider, provider_ref)
    )
    """,
    "create index ix_calls_open on calls (site_id, call_id) where closed_at is null",
    "create index ix_calls_open_of on calls (registration_id) where closed_at is null",
)


def upgrade() -> None:
    for statement in COLUMNS:
        op.execute(statement)
    for name, condition in WIDER.items():
        op.execute(f"alter table messages drop constraint ck_messages_{name}")
        op.execute(f"alter table messages add constraint ck_messages_{name} check ({condition}) not valid")
        op.execute(f"alter table messages validate constraint ck_messages_{name}")
    for statement in (*INDEXES, *TABLES):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("what was told cannot be untold: restore a backup instead")

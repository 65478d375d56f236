"""Registrations, people, photos, and the desks' windows."""

from alembic import op

from services.chassis.migrations import create_plumbing_v1

revision = "0001"
down_revision = None

_REGISTRATIONS = """
create table registrations (
    id uuid not null,
    cycle_id text not null,
    number text not null,
    account text not null,
    identity_index bytea not null,
    active boolean generated always as (withdrawn_at is null and confirmation <> 'lapsed') stored,
    site_id text not null,
    specialty_code text not null,
    level text not null,
    subjects smallint[] not null,
    is_returning boolean not null,
    form_version integer not null,
    version integer not null,
    pre_registered_at timestamptz not null,
    saved_at timestamptz not null,
    contact_saved_at timestamptz not null,
    withdrawn_at timestamptz,
    withdrawal_reason text,
    remarks text[] not null,
    confirmation text not null default 'open',
    confirmation_sequence bigint not null default 0,
    fix_until timestamptz,
    decisions jsonb not null default '{}',
    payment text not null default 'none',
    payment_sequence bigint not null default 0,
    amount_fen integer,
    payment_opens_at timestamptz,
    payment_closes_at timestamptz,
    paid_at timestamptz,
    phone_failed_at timestamptz,
    email_failed_at timestamptz,
    constraint pk_registrations primary key (id),
    constraint uq_registrations_number unique (number),
    constraint ck_registrations_number check (number ~ '^[0-9]{12}$'),
    constraint ck_registrations_form_version check (form_version > 0),
    constraint ck_registrations_version check (version >= form_version),
    constraint ck_registrations_withdrawn_for_a_reason
        check ((withdrawn_at is null) = (withdrawal_reason is null)),
    constraint ck_registrations_confirmation
        check (confirmation in ('open', 'returned', 'confirmed', 'approved', 'rejected', 'lapsed')),
    constraint ck_registrations_payment check (payment in ('none', 'awaiting', 'paid', 'expired'))
) with (fillfactor = 70)
"""
# fillfactor: a deadline changes the view of every row at once; with room on the page no index entry is written.

_PEOPLE = """
create table people (
    registration_id uuid not null,
    id_type text not null,
    id_number bytea not null,
    name bytea not null,
    phone bytea not null,
    email bytea not null,
    employer bytea not null,
    employer_code bytea,
    constraint pk_people primary key (registration_id),
    constraint fk_people_registration_id foreign key (registration_id) references registrations (id),
    constraint ck_people_id_type check (id_type in (
        'resident-id', 'hk-macao-taiwan-residence', 'hk-macao-permit', 'taiwan-permit', 'foreign-permanent', 'officer'
    ))
)
"""

_PHOTOS = """
create table photos (
    registration_id uuid not null,
    jpeg bytea not null,
    byte_size integer not null,
    width integer not null,
    height integer not null,
    saved_at timestamptz not null,
    constraint pk_photos primary key (registration_id),
    constraint fk_photos_registration_id foreign key (registration_id) references registrations (id),
    constraint ck_photos_size check (width > 0 and height > 0 and byte_size > 0)
)
"""

_DESK_WINDOWS = """
create table desk_windows (
    cycle_id text not null,
    site_id text not null,
    opens_at timestamptz not null,
    closes_at timestamptz not null,
    reason_code text not null,
    sequence bigint not null,
    constraint pk_desk_windows primary key (cycle_id, site_id),
    constraint ck_desk_windows_window check (opens_at < closes_at)
)
"""


def upgrade() -> None:
    create_plumbing_v1(op)
    op.execute(_REGISTRATIONS)
    op.execute(
        "create unique index uq_registrations_active_identity on registrations (cycle_id, identity_index) where active"
    )
    op.execute(
        "create index ix_registrations_contact_to_fix on registrations (site_id, id) "
        "where phone_failed_at is not null or email_failed_at is not null"
    )
    op.execute(_PEOPLE)
    op.execute(_PHOTOS)
    # Ciphertext does not compress: out of line and as it is, so that no time is spent on trying.
    op.execute("alter table photos alter column jpeg set storage external")
    op.execute(_DESK_WINDOWS)

"""Roots of forfeitures that came after their close was published. The same person may fall twice by one close.

Who is approved again while the news is late falls by the close that has forfeited them before: two proofs, each with its
leaf. What kept them apart would stop the sweep for everybody.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LATER_ROOTS = """
    create table later_roots (
        cycle_id text not null,
        sequence bigint not null,
        after_proof bigint not null,
        last_proof bigint not null,
        published_at timestamptz not null,
        proof_root bytea not null,
        proofs bigint not null,
        expired_fen bigint not null,
        constraint pk_later_roots primary key (cycle_id, sequence),
        constraint ck_later_roots_some check (proofs > 0 and after_proof < last_proof)
    )
"""


def upgrade() -> None:
    op.execute(LATER_ROOTS)
    op.execute(
        "create trigger keep_later_roots before update or delete on later_roots "
        "for each statement execute function keep_facts()"
    )
    op.execute("create index ix_proofs_closes_at_registration_id on proofs (closes_at, registration_id)")
    op.execute("alter table proofs drop constraint uq_proofs_closes_at_registration_id")


def downgrade() -> None:
    raise RuntimeError("what was published of forfeitures cannot be unsaid: restore a backup instead")

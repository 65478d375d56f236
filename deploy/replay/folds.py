"""What each of a service's own events makes of its own rows: the fold of its log, as set-based statements.

A statement gets events of one type, each of another key, as JSON: key, sequence, at, causation and the payload `p`.
Not here is what a handler says when it takes a cause in (`order.REACTIONS`): the handler itself says it again.
What no event says (people, texts, orders before they are paid) is filled with placeholders that `tables.py` never compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.notification.domain.life import RAN_OUT
from services.notification.tables import one_of

_E: Final = """
with e as (
    select x.key, x.key::text as subject, x.sequence, x.at, x.causation, x.p
    from jsonb_to_recordset($1::text::jsonb) as x(key text, sequence bigint, at timestamptz, causation text, p jsonb)
)
"""
_SUBJECTS: Final = "array(select jsonb_array_elements_text(e.p -> 'subjects')::smallint)"
_REASONS: Final = "array(select jsonb_array_elements_text(e.p -> 'reason_codes'))"

REGISTRATION: Final[Mapping[str, tuple[str, ...]]] = {
    "pre-registered": (
        f"""{_E}
        insert into registrations (id, cycle_id, number, account, identity_index, site_id, specialty_code, level,
            subjects, is_returning, form_version, version, pre_registered_at, saved_at, contact_saved_at, remarks)
        select e.key::uuid, e.p ->> 'cycle_id',
            lpad((900000000000 + (select count(*) from registrations) + row_number() over ())::text, 12, '0'),
            'replayed', sha256(e.key::bytea), e.p ->> 'site_id', e.p ->> 'specialty_code', e.p ->> 'level',
            {_SUBJECTS}, (e.p ->> 'returning')::boolean, (e.p ->> 'form_version')::int, e.sequence, e.at, e.at, e.at,
            '{{}}'
        from e
        """,
    ),
    "contact-changed": (
        f"{_E} update registrations r set version = e.sequence from e where r.id = e.key::uuid",
    ),
    "amended": (
        f"""{_E}
        update registrations r
        set site_id = e.p ->> 'site_id', specialty_code = e.p ->> 'specialty_code', level = e.p ->> 'level',
            subjects = {_SUBJECTS}, form_version = (e.p ->> 'form_version')::int, version = e.sequence, saved_at = e.at,
            contact_saved_at = case when e.p -> 'changed' ?| array['phone', 'email'] then e.at else r.contact_saved_at end,
            phone_failed_at = case when e.p -> 'changed' ? 'phone' then null else r.phone_failed_at end,
            email_failed_at = case when e.p -> 'changed' ? 'email' then null else r.email_failed_at end
        from e where r.id = e.key::uuid
        """,
    ),
    # A backup from before still knows them: caught up, it does not.
    "erased": (
        f"""{_E}
        delete from idempotency_keys k using registrations r, e where r.id = e.key::uuid and k.caller = r.account
        """,
        f"{_E} delete from people p using e where p.registration_id = e.key::uuid",
        f"{_E} delete from photos p using e where p.registration_id = e.key::uuid",
        f"""{_E}
        update registrations r
        set erased_at = e.at, version = e.sequence, phone_failed_at = null, email_failed_at = null, account = '',
            identity_index = sha256(uuid_send(r.id)), remarks = '{{}}'
        from e where r.id = e.key::uuid
        """,
    ),
    "withdrawn": (
        f"""{_E}
        update registrations r
        set withdrawn_at = e.at, withdrawal_reason = e.p ->> 'reason_code', version = e.sequence, saved_at = e.at
        from e where r.id = e.key::uuid
        """,
    ),
}

# Statements of confirmation get one thing more, used or not: $2, the review levels in their order. The last level's
# approval is two facts with one decision, which is kept with the later number.
_EL: Final = _E.rstrip() + ", levels as (select $2::text[])"
_DECIDED: Final = """
insert into decisions (decision_id, registration_id, version, kind, level, actor_kind, actor, reason_codes, fix_until,
                       form_version, at)
select uuidv7(), c.registration_id, {version}, '{kind}', {level}, 'replayed', 'replayed', {reasons}, c.fix_until,
       c.form_version, e.at
from e join cases c on c.registration_id = e.key::uuid
"""
_LEVEL: Final = "e.p ->> 'level'"
_PLACE: Final = "array_position($2::text[], e.p ->> 'level')"
_LAST: Final = "cardinality($2::text[])"


def _decided(kind: str, *, version: str = "e.sequence", level: str = _LEVEL, reasons: str = "'{}'") -> str:
    return _EL + _DECIDED.format(kind=kind, version=version, level=level, reasons=reasons)


def _moved(changes: str) -> str:
    return (
        f"{_EL} update cases c set {changes}, version = e.sequence, changed_at = e.at "
        "from e where c.registration_id = e.key::uuid"
    )


_WINDOW: Final = "(e.p ->> 'opens_at')::timestamptz, (e.p ->> 'closes_at')::timestamptz"
CONFIRMATION: Final[Mapping[str, tuple[str, ...]]] = {
    "confirmed": (
        _moved("state = 'confirmed', passed = 1, fix_until = null"),
        _decided(
            "confirmed",
            level="($2::text[])[1]",
            version=f"e.sequence + case when {_LAST} = 1 then 1 else 0 end",
        ),
    ),
    "returned": (
        _moved("state = 'returned', passed = 0, fix_until = (e.p ->> 'fix_until')::timestamptz"),
        _decided("returned", reasons=_REASONS),
    ),
    "reviewed": (
        _moved(f"passed = {_PLACE}"),
        _decided("approved", version=f"e.sequence + case when {_PLACE} = {_LAST} then 1 else 0 end"),
    ),
    "approved": (_moved("state = 'approved'"),),
    "rejected": (_moved("state = 'rejected'"), _decided("rejected", reasons=_REASONS)),
    "lapsed": (_moved("state = 'lapsed'"), _decided("lapsed", level="($2::text[])[1]")),
    "window-moved": (_moved("state = c.state"),),
    "desk-window-set": (
        f"""{_EL}
        insert into desk_windows as w (site_id, cycle_id, opens_at, closes_at, version, set_at)
        select e.p ->> 'site_id', e.p ->> 'cycle_id', {_WINDOW}, e.sequence, e.at from e
        on conflict (site_id) do update set opens_at = excluded.opens_at, closes_at = excluded.closes_at,
            version = excluded.version, set_at = excluded.set_at
        """,
        f"""{_EL}
        insert into desk_window_changes (site_id, version, opens_at, closes_at, reason_code, reason, actor, at)
        select e.p ->> 'site_id', e.sequence, {_WINDOW}, e.p ->> 'reason_code', '', 'replayed', e.at from e
        """,
    ),
}


def _owing_until(changes: str) -> str:
    """The close that is said is the one people are told; the enforced one is as much later as it was."""
    told = "(e.p ->> 'closes_at')::timestamptz"
    return f"""{_E}
        update obligations o
        set {changes}, version = e.sequence, changed_at = e.at, told_closes_at = {told},
            closes_at = {told} + (o.closes_at - o.told_closes_at)
        from e where o.registration_id = e.key::uuid
        """


# What is said of a whole cycle counts its words; bills, their lines and breaks are between this service and the gateway.
COUNTED_OF_CYCLE: Final = f"""{_E}
insert into cycle_versions as v (cycle_id, sequence) select e.key, max(e.sequence) from e group by e.key
on conflict (cycle_id) do update set sequence = greatest(v.sequence, excluded.sequence)
"""
PAYMENT: Final[Mapping[str, tuple[str, ...]]] = {
    "closing-soon": (
        f"{_E} update obligations o set version = e.sequence from e where o.registration_id = e.key::uuid",
        f"""{_E}
        insert into reminders (registration_id, told_closes_at, offset_seconds, at)
        select e.key::uuid, (e.p ->> 'closes_at')::timestamptz, (e.p ->> 'offset')::int, e.at from e
        on conflict do nothing
        """,
    ),
    "paid": (
        f"""{_E}
        update obligations o
        set status = 'paid', version = e.sequence, paid_at = (e.p ->> 'paid_at')::timestamptz, changed_at = e.at,
            expired_at = null, proof_id = null
        from e where o.registration_id = e.key::uuid
        """,
        # Of an order only the payment is said. One that is known already keeps everything else.
        f"""{_E}
        insert into orders (order_no, registration_id, channel, amount_fen, currency, status, created_at, expires_at,
                            ask_at, decided_at)
        select e.p ->> 'order_no', e.key::uuid, e.p ->> 'channel', (e.p ->> 'amount_fen')::int, o.currency, 'paid',
               (e.p ->> 'paid_at')::timestamptz, e.at, e.at, e.at
        from e join obligations o on o.registration_id = e.key::uuid
        on conflict (order_no) do update set status = 'paid', decided_at = excluded.decided_at
        """,
    ),
    "expired": (
        f"""{_E}
        update obligations o
        set status = 'expired', version = e.sequence, expired_at = e.at, changed_at = e.at,
            proof_id = (e.p ->> 'proof_id')::uuid
        from e where o.registration_id = e.key::uuid
        """,
        # The evidence itself (orders and answers) is on no topic: the row says so, and its leaf covers what it says.
        f"""{_E}
        insert into proofs (proof_id, registration_id, closes_at, expired_at, amount_fen, rule, orders, leaf)
        select o.proof_id, o.registration_id, o.closes_at, e.at, o.amount_fen, 'unpaid-at-close', 'replayed',
               sha256(convert_to(concat_ws('|', 'kaowu.replayed', o.proof_id, o.registration_id), 'UTF8'))
        from e join obligations o on o.registration_id = e.key::uuid
        on conflict do nothing
        """,
    ),
    "reinstated": (_owing_until("status = 'awaiting', expired_at = null, proof_id = null"),),
    # Said of whoever owes. Whoever was held owes again, and being held was never said.
    "window-moved": (_owing_until("status = 'awaiting'"),),
    "site-window-set": (
        f"""{_E}
        insert into windows as w (site_id, cycle_id, closes_at, told_closes_at, version, set_at)
        select e.p ->> 'site_id', e.p ->> 'cycle_id', (e.p ->> 'closes_at')::timestamptz,
               (e.p ->> 'told_closes_at')::timestamptz, e.sequence, e.at from e
        on conflict (site_id) do update set closes_at = excluded.closes_at, told_closes_at = excluded.told_closes_at,
            version = excluded.version, set_at = excluded.set_at
        """,
    ),
    "refunded": (
        f"{_E} update obligations o set version = e.sequence from e where o.registration_id = e.key::uuid",
    ),
    "reconciled": (COUNTED_OF_CYCLE,),
    "break-found": (COUNTED_OF_CYCLE,),
    "break-closed": (COUNTED_OF_CYCLE,),
    # A close that the backup knows as begun is put aside first: its number is the event's, not the next (migration 0006).
    "window-closed": (
        f"""{_E}, begun as (
            delete from closings c using e
            where c.cycle_id = e.key and c.closes_at = (e.p ->> 'closes_at')::timestamptz and c.closed_at is null
            returning c.closes_at, c.fingerprint, c.begun_at, c.guard_stops
        )
        insert into closings (cycle_id, closes_at, fingerprint, begun_at, guard_stops, closed_at, sequence, counts,
                              sums_fen, proof_root, proofs, last_proof)
        select e.key, (e.p ->> 'closes_at')::timestamptz, coalesce(b.fingerprint, 'replayed'), coalesce(b.begun_at, e.at),
               coalesce(b.guard_stops, 0), (e.p ->> 'closed_at')::timestamptz, e.sequence, e.p -> 'counts',
               e.p -> 'sums_fen', decode(e.p ->> 'proof_root', 'hex'), (e.p ->> 'proofs')::bigint,
               -- As many as it says: who fell after it, at the same moment of a clock that stands still, may be there already.
               coalesce((select p.number from proofs p where p.closes_at = (e.p ->> 'closes_at')::timestamptz
                         order by p.number offset greatest((e.p ->> 'proofs')::bigint - 1, 0) limit 1), 0)
        from e left join begun b on b.closes_at = (e.p ->> 'closes_at')::timestamptz
        """,
    ),
    "proofs-published": (
        f"""{_E}, w as (
            select e.*, (e.p ->> 'proofs')::bigint as proofs, greatest(
                (select max(last_proof) from later_roots where cycle_id = e.key),
                (select min(last_proof) from closings where cycle_id = e.key and closed_at is not null), 0) as after_proof
            from e
        )
        insert into later_roots (cycle_id, sequence, after_proof, last_proof, published_at, proof_root, proofs, expired_fen)
        select w.key, w.sequence, w.after_proof,
               coalesce((select p.number from proofs p join closings c on c.cycle_id = w.key and c.closes_at = p.closes_at
                         where p.number > w.after_proof and p.number > c.last_proof
                         order by p.number offset w.proofs - 1 limit 1),
                        greatest(w.after_proof + 1, (select max(number) from proofs))),
               w.at, decode(w.p ->> 'proof_root', 'hex'), w.proofs, (w.p ->> 'expired_fen')::bigint
        from w
        """,
        COUNTED_OF_CYCLE,
    ),
}

_ENDED: Final = f"""{_E}
update messages m set state = {{state}}, state_at = e.at, due_at = null, reason_code = e.p ->> 'reason_code',
    template_version = (e.p ->> 'template_version')::int, call_at = {{call_at}}
from e
where m.registration_id = e.key::uuid and m.caused_by = e.causation::uuid and m.occasion = e.p ->> 'occasion'
  and m.channel = e.p ->> 'channel'
"""
# An end without a word from the carrier is said as the other, for a reason of its own.
_RAN_OUT: Final = one_of("e.p ->> 'reason_code'", RAN_OUT)
_NOT_TOLD: Final = f"case when {_RAN_OUT} then 'expired' else 'undelivered' end"
_NOBODY_CALLS: Final = f"""{_E}
update calls c set closed_at = e.at, closed_by = 'notification', outcome = 'told' from e
where c.registration_id = e.key::uuid and c.occasion = e.p ->> 'occasion' and c.closed_at is null
"""
_COUNTED: Final = (
    f"{_E} update recipients r set version = e.sequence from e where r.registration_id = e.key::uuid"
)
NOTIFICATION: Final[Mapping[str, tuple[str, ...]]] = {
    "delivered": (_ENDED.format(state="'delivered'", call_at="null"), _NOBODY_CALLS, _COUNTED),
    "undeliverable": (_ENDED.format(state=_NOT_TOLD, call_at="m.call_at"), _COUNTED),
}

FOLDS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "registration": REGISTRATION,
    "confirmation": CONFIRMATION,
    "payment": PAYMENT,
    "notification": NOTIFICATION,
}
# Money that came in is booked from what the gateway says (payment/handlers/recovering.py). Only for a comparison, where
# nobody may be asked, the event stands in for it: the ledger decides what a later rejection owes back.
BOOKED: Final = f"""{_E}
insert into ledger (kind, registration_id, order_no, channel, transaction_id, amount_fen, currency, paid_at, recorded_at)
select k.kind, e.key::uuid, e.p ->> 'order_no', e.p ->> 'channel', e.p ->> 'order_no',
       (e.p ->> 'amount_fen')::bigint, o.currency, (e.p ->> 'paid_at')::timestamptz, e.at
from e join obligations o on o.registration_id = e.key::uuid, (values ('received'), ('fee')) as k (kind)
"""

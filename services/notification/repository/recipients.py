"""Who is told, by which contact, and the desks' hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from services.chassis.db import UnitOfWork
from services.notification.domain.life import Standing
from services.notification.domain.told import Hours

# A row that is there and has nothing new is locked by this and not written. From here on people are found by their key: a
# connection may have planned what follows while nobody was known, and would read a million to tell five hundred.
_KEEP = """
with kept as (
insert into recipients (registration_id, cycle_id, site_id, confirm_by, standing, contact_try_at, pay_by)
select t.registration_id, $2, t.site_id, t.confirm_by, t.standing, $6, t.pay_by
from unnest($1::uuid[], $3::text[], $4::timestamptz[], $5::text[], $9::timestamptz[])
     as t(registration_id, site_id, confirm_by, standing, pay_by)
on conflict (registration_id) do update set
    site_id = coalesce(excluded.site_id, recipients.site_id),
    confirm_by = case when $7 then excluded.confirm_by else recipients.confirm_by end,
    standing = case when excluded.standing = 'none' then recipients.standing else excluded.standing end,
    pay_by = coalesce(excluded.pay_by, recipients.pay_by),
    contact_wanted = recipients.contact_wanted + case when $8 and recipients.erased_at is null then 1 else 0 end,
    contact_try_at = case when $8 then $6 else recipients.contact_try_at end
where excluded.site_id is not null or $7 or $8 or excluded.standing <> 'none' or excluded.pay_by is not null
returning xmax = 0 as is_new
)
select coalesce(bool_or(is_new), false) as any_new, set_config('enable_seqscan', 'off', true) from kept
"""
_HOLD_BACK = """
update messages set due_at = null
where registration_id = any($1::uuid[]) and state = 'created' and due_at is not null
"""
# Of somebody whose contact is known to be another by now. What had been claimed may have left for the old one: counted,
# and of an SMS the carrier is asked.
_WAIT = """
update messages m set state = 'created', due_at = null,
    state_at = case when m.state = 'sending' then $2 else m.state_at end,
    ambiguous = m.ambiguous + case when m.state = 'sending' then 1 else 0 end,
    ask_since = case when m.channel = 'email' then null
                     when m.state = 'sending' then least(coalesce(m.ask_since, m.state_at), m.state_at)
                     else m.ask_since end
from recipients r
where m.message_id = any($1::uuid[]) and m.due_at <= $2 and m.state in ('created', 'sending')
  and r.registration_id = m.registration_id and r.contact_known < r.contact_wanted
"""
_LOCK = "select 1 from recipients where registration_id = any($1::uuid[]) order by registration_id for update"
_KNOWN = "select registration_id, site_id, confirm_by from recipients where registration_id = any($1::uuid[])"
_WANTED = """
select registration_id, contact_wanted, contact_tries from recipients
where contact_known < contact_wanted and contact_try_at <= $1
order by contact_try_at limit $2
"""
_NEXT_WANTED = """
select contact_try_at from recipients
where contact_known < contact_wanted order by contact_try_at limit 1
"""
_STORE = """
update recipients r
set tail = t.tail, phone = t.phone, email = t.email, contact_known = t.wanted, contact_tries = 0,
    contact_at = $6
from unnest($1::uuid[], $2::int[], $3::text[], $4::bytea[], $5::bytea[])
     as t(registration_id, wanted, tail, phone, email)
where r.registration_id = t.registration_id and r.contact_known < t.wanted and r.erased_at is null
"""
_LET_GO = """
update messages m set due_at = m.not_before
from recipients r
where r.registration_id = any($1::uuid[]) and r.contact_known = r.contact_wanted
  and m.registration_id = r.registration_id and m.state = 'created' and m.due_at is null
"""
_NOT_THERE = """
update recipients r set contact_tries = r.contact_tries + 1, contact_try_at = t.try_at
from unnest($1::uuid[], $2::timestamptz[]) as t(registration_id, try_at)
where r.registration_id = t.registration_id
"""
_SET_DESK = """
insert into desks (cycle_id, site_id, opens_at, closes_at, sequence) values ($1, $2, $3, $4, $5)
on conflict (cycle_id, site_id) do update
set opens_at = excluded.opens_at, closes_at = excluded.closes_at, sequence = excluded.sequence
where desks.sequence < excluded.sequence
"""
_DESKS = "select site_id, opens_at, closes_at from desks where cycle_id = $1"
_SET_LANGUAGE = "update recipients set language = $2 where registration_id = $1"


@dataclass(frozen=True, slots=True)
class News:
    """What an event says of a recipient beside its message; what it is silent about stays."""

    site_id: str | None = None
    standing: Standing = Standing.NONE
    confirm_by: datetime | None = None
    pay_by: datetime | None = None  # the close of payment, as told

    @property
    def settles(self) -> bool:
        """Whether a call about paying may be needless by this."""
        return self.standing is not Standing.NONE or self.pay_by is not None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A contact to be fetched; `count` is what it will be fetched for."""

    registration_id: UUID
    count: int
    tries: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A fetched contact, encrypted."""

    registration_id: UUID
    count: int
    tail: str
    phone: bytes | None
    email: bytes | None


async def keep(
    uow: UnitOfWork,
    cycle_id: str,
    news: Mapping[UUID, News],
    *,
    sets_confirm_by: bool = False,
    new_contact: bool = False,
) -> bool:
    """Make sure these recipients are known and hold them until the end of the transaction.

    With `new_contact` what is kept of theirs is out of date: their messages wait until it was fetched again.
    Returns whether contacts are to be fetched because of this.
    """
    ids = sorted(news, key=attrgetter("int"))
    rows = [news[registration_id] for registration_id in ids]
    kept = await uow.sql(
        _KEEP,
        ids,
        cycle_id,
        [row.site_id for row in rows],
        [row.confirm_by for row in rows],
        [row.standing for row in rows],
        uow.at,
        sets_confirm_by,
        new_contact,
        [row.pay_by for row in rows],
    )
    if new_contact:
        await uow.sql(_HOLD_BACK, ids)
    return new_contact or bool(kept[0].any_new)


async def lock(uow: UnitOfWork, ids: Sequence[UUID]) -> None:
    """In one order everywhere, so that two batches with the same people cannot deadlock."""
    await uow.sql(_LOCK, ids)


async def known(uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, tuple[str | None, datetime | None]]:
    """(desk, own deadline after a return) of each, as far as anybody said."""
    rows = await uow.sql(_KNOWN, ids)
    return {row.registration_id: (row.site_id, row.confirm_by) for row in rows}


async def wanted(uow: UnitOfWork, limit: int) -> list[Wanted]:
    """Contacts that are to be fetched now, longest waiting first."""
    rows = await uow.sql(_WANTED, uow.at, limit)
    return [Wanted(row.registration_id, row.contact_wanted, row.contact_tries) for row in rows]


async def next_wanted(uow: UnitOfWork) -> datetime | None:
    """When the next contact is to be fetched."""
    rows = await uow.sql(_NEXT_WANTED)
    return rows[0].contact_try_at if rows else None


async def store(uow: UnitOfWork, contacts: Sequence[Sealed]) -> None:
    """Keep fetched contacts, and let the messages go that waited for them."""
    if not contacts:
        return
    ids = [contact.registration_id for contact in contacts]
    await lock(uow, ids)
    await uow.sql(
        _STORE,
        ids,
        [contact.count for contact in contacts],
        [contact.tail for contact in contacts],
        [contact.phone for contact in contacts],
        [contact.email for contact in contacts],
        uow.at,
    )
    await uow.sql(_LET_GO, ids)


async def wait_for_contact(uow: UnitOfWork, people: Mapping[UUID, UUID]) -> int:
    """These messages, of these people, came due while another contact is being fetched: they wait for it. Returns how many.

    Those whose contact has come meanwhile stay due.
    """
    await lock(uow, sorted(set(people.values())))
    return await uow.changed(_WAIT, list(people), uow.at)


async def not_there(uow: UnitOfWork, ids: Sequence[UUID], try_at: Sequence[datetime]) -> None:
    """Registration knew nothing of these: ask again at these moments."""
    if ids:
        await lock(uow, ids)
        await uow.sql(_NOT_THERE, ids, try_at)


async def set_desk(
    uow: UnitOfWork, cycle_id: str, site_id: str, opens_at: datetime, closes_at: datetime, sequence: int
) -> None:
    """The office's word about a desk, unless a later one is known."""
    await uow.sql(_SET_DESK, cycle_id, site_id, opens_at, closes_at, sequence)


async def desk_hours(uow: UnitOfWork, cycle_id: str) -> dict[str, Hours]:
    """Every desk that the office set hours for."""
    return {row.site_id: Hours(row.opens_at, row.closes_at) for row in await uow.sql(_DESKS, cycle_id)}


async def set_language(uow: UnitOfWork, registration_id: UUID, language: str) -> bool:
    """In which language they are written to from now on. False: nobody is known by this id."""
    return bool(await uow.changed(_SET_LANGUAGE, registration_id, language))

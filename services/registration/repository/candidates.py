"""Registrations and the people behind them, rows to domain values and back. Personal data goes in and comes out encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import orjson

from services.chassis.db import Row, UnitOfWork
from services.chassis.vault import Vault, VaultError
from services.registration.domain.form import Changes, Choice, Form, Person
from services.registration.domain.people import Paper
from services.registration.domain.registration import Confirmation, Payment, Registration, View
from services.registration.domain.registration import form_code as printed_code

_ADD = """
with added as (
    insert into registrations (id, cycle_id, number, account, identity_index, site_id, specialty_code, level, subjects,
                               is_returning, form_version, version, pre_registered_at, saved_at, contact_saved_at, remarks)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, 1, $11, $11, $11, $12)
    on conflict do nothing
    returning id
), person as (
    insert into people (registration_id, id_type, id_number, name, phone, email, employer, employer_code)
    select id, $13::text, $14::bytea, $15::bytea, $16::bytea, $17::bytea, $18::bytea, $19::bytea from added
), photo as (
    insert into photos (registration_id, jpeg, byte_size, width, height, saved_at)
    select id, $20::bytea, $21::integer, $22::integer, $23::integer, $11 from added
)
select id from added
"""
_ACTIVE = "select 1 as found from registrations where cycle_id = $1 and identity_index = $2 and active"
_LOCK = """
select id, number, site_id, specialty_code, level, subjects, is_returning, form_version, version, withdrawn_at,
       confirmation, payment, fix_until, remarks, payment_closes_at, erased_at
from registrations where id = $1 for update
"""
_SAVE_AMENDED = """
update registrations
set site_id = $2, specialty_code = $3, level = $4, subjects = $5, form_version = $6, version = $7, remarks = $8,
    saved_at = $9,
    contact_saved_at = case when $10 or $11 then $9 else contact_saved_at end,
    phone_failed_at = case when $10 then null else phone_failed_at end,
    email_failed_at = case when $11 then null else email_failed_at end
where id = $1
"""
_SAVE_PERSON = """
update people
set name = coalesce($2, name), phone = coalesce($3, phone), email = coalesce($4, email),
    employer = coalesce($5, employer),
    employer_code = case when $6 then $7 else employer_code end
where registration_id = $1
"""
_SAVE_PHOTO = """
update photos set jpeg = $2, byte_size = $3, width = $4, height = $5, saved_at = $6 where registration_id = $1
"""
_SAVE_WITHDRAWN = """
update registrations set withdrawn_at = $2, withdrawal_reason = $3, version = $4, saved_at = $2 where id = $1
"""
# The keyed index of the paper is somebody's too; that of the row's own id is nobody's and as unique.
_ERASE = """
with answers as (
    delete from idempotency_keys k using registrations r where r.id = $1 and k.caller = r.account
), photo as (
    delete from photos where registration_id = $1
), person as (
    delete from people where registration_id = $1
)
update registrations
set erased_at = $2, version = $3, account = '', identity_index = sha256(uuid_send(id)), remarks = '{}',
    phone_failed_at = null, email_failed_at = null
where id = $1
"""
_VIEW = """
select r.*, p.id_type, p.id_number, p.name, p.phone, p.email, p.employer, p.employer_code
from registrations r join people p on p.registration_id = r.id
"""
_CONTACTS = """
select r.id, r.number, p.phone, p.email
from registrations r left join people p on p.registration_id = r.id where r.id = any($1::uuid[])
"""
_TO_FIX = """
select id, number, phone_failed_at, email_failed_at
from registrations
where cycle_id = $1 and site_id = $2 and active
  and (phone_failed_at is not null or email_failed_at is not null)
order by id
"""


async def add(
    uow: UnitOfWork,
    vault: Vault,
    form: Form,
    *,
    registration_id: UUID,
    number: str,
    cycle_id: str,
    account: str,
    identity_index: bytes,
    remarks: Sequence[str],
) -> bool:
    """Everything of a new registration in one statement. False: the number or the person is there already."""
    row = str(registration_id)
    person, choice, picture = form.person, form.choice, form.photo
    code = person.employer_code
    added = await uow.sql(
        _ADD,
        registration_id,
        cycle_id,
        number,
        account,
        identity_index,
        choice.site_id,
        choice.specialty_code,
        choice.level,
        list(choice.subjects),
        choice.returning,
        uow.at,
        list(remarks),
        person.id_type.value,
        vault.encrypt(person.id_number, row=row),
        vault.encrypt(person.name, row=row),
        vault.encrypt(person.phone, row=row),
        vault.encrypt(person.email, row=row),
        vault.encrypt(person.employer, row=row),
        vault.encrypt(code, row=row) if code else None,
        vault.encrypt(picture.jpeg, row=row),
        len(picture.jpeg),
        picture.width,
        picture.height,
    )
    return bool(added)


async def erase(uow: UnitOfWork, erased: Registration) -> None:
    """Nothing of the person is left here: no row, no photo, no key, no stored answer."""
    await uow.sql(_ERASE, erased.id, uow.at, erased.version)


async def is_registered(uow: UnitOfWork, cycle_id: str, identity_index: bytes) -> bool:
    return bool(await uow.sql(_ACTIVE, cycle_id, identity_index))


async def lock(uow: UnitOfWork, registration_id: UUID) -> tuple[Registration, list[str]] | None:
    """The registration and its remarks, held until the transaction ends."""
    rows = await uow.sql(_LOCK, registration_id)
    return (_standing(rows[0]), list(rows[0].remarks)) if rows else None


def _standing(row: Row) -> Registration:
    return Registration(
        id=row.id,
        number=row.number,
        choice=Choice(row.site_id, row.specialty_code, row.level, tuple(row.subjects), row.is_returning),
        form_version=row.form_version,
        version=row.version,
        withdrawn=row.withdrawn_at is not None,
        confirmation=Confirmation(row.confirmation),
        payment=Payment(row.payment),
        fix_until=row.fix_until,
        payment_closes_at=row.payment_closes_at,
        erased=row.erased_at is not None,
    )


def form_code(vault: Vault, number: str, form_version: int) -> str:
    return printed_code(number, form_version, vault.index(f"{number}:{form_version}", purpose="form-code"))


async def save_amended(
    uow: UnitOfWork, vault: Vault, amended: Registration, changes: Changes, remarks: Sequence[str]
) -> None:
    choice = amended.choice
    await uow.sql(
        _SAVE_AMENDED,
        amended.id,
        choice.site_id,
        choice.specialty_code,
        choice.level,
        list(choice.subjects),
        amended.form_version,
        amended.version,
        list(remarks),
        uow.at,
        changes.phone is not None,
        changes.email is not None,
    )
    row = str(amended.id)

    def sealed(value: str | None) -> bytes | None:
        return None if value is None else vault.encrypt(value, row=row)

    if {"name", "phone", "email", "employer", "employer_code"} & set(changes.fields):
        await uow.sql(
            _SAVE_PERSON,
            amended.id,
            sealed(changes.name),
            sealed(changes.phone),
            sealed(changes.email),
            sealed(changes.employer),
            "employer_code" in changes.fields,
            sealed(changes.employer_code),
        )
    if changes.photo is not None:
        picture = changes.photo
        sealed_jpeg = vault.encrypt(picture.jpeg, row=row)
        await uow.sql(
            _SAVE_PHOTO, amended.id, sealed_jpeg, len(picture.jpeg), picture.width, picture.height, uow.at
        )


async def save_withdrawn(uow: UnitOfWork, withdrawn: Registration, reason: str) -> None:
    await uow.sql(_SAVE_WITHDRAWN, withdrawn.id, uow.at, reason, withdrawn.version)


async def view(uow: UnitOfWork, vault: Vault, registration_id: UUID) -> View | None:
    rows = await uow.sql(_VIEW + "where r.id = $1", registration_id)
    return _view(vault, rows[0]) if rows else None


async def page(uow: UnitOfWork, vault: Vault, cycle_id: str, after: UUID, limit: int) -> list[View]:
    rows = await uow.sql(
        _VIEW + "where r.cycle_id = $1 and r.id > $2 order by r.id limit $3", cycle_id, after, limit
    )
    return [_view(vault, row) for row in rows]


async def contacts(
    uow: UnitOfWork, vault: Vault, registration_ids: Sequence[UUID]
) -> tuple[list[tuple[UUID, str, str | None, str | None]], list[UUID]]:
    """(id, number, phone, email) of those that are here; and whose contact does not open.

    Who made a registration since the backup that was restored is not known any more: it has neither, and whoever waits for
    a contact need not wait on.
    """

    def opened(row: Row, stored: bytes | None) -> str | None:
        return None if stored is None else _opened(vault, row, stored)

    found: list[tuple[UUID, str, str | None, str | None]] = []
    shut: list[UUID] = []
    for row in await uow.sql(_CONTACTS, list(registration_ids)):
        try:
            found.append((row.id, row.number, opened(row, row.phone), opened(row, row.email)))
        except VaultError:
            shut.append(row.id)
    return found, shut


async def contacts_to_fix(
    uow: UnitOfWork, cycle_id: str, site_id: str
) -> list[tuple[UUID, str, tuple[str, ...]]]:
    """(id, number, failing channels) of a desk's active registrations."""
    return [(row.id, row.number, _failing(row)) for row in await uow.sql(_TO_FIX, cycle_id, site_id)]


def _failing(row: Row) -> tuple[str, ...]:
    channels = (("sms", row.phone_failed_at), ("email", row.email_failed_at))
    return tuple(channel for channel, failed_at in channels if failed_at is not None)


def _view(vault: Vault, row: Row) -> View:
    return View(
        registration=_standing(row),
        person=Person(
            name=_opened(vault, row, row.name),
            id_type=Paper(row.id_type),
            id_number=_opened(vault, row, row.id_number),
            phone=_opened(vault, row, row.phone),
            email=_opened(vault, row, row.email),
            employer=_opened(vault, row, row.employer),
            employer_code=None if row.employer_code is None else _opened(vault, row, row.employer_code),
        ),
        form_code=form_code(vault, row.number, row.form_version),
        pre_registered_at=row.pre_registered_at,
        saved_at=row.saved_at,
        remarks=tuple(row.remarks),
        failing=_failing(row),
        decisions=row.decisions if isinstance(row.decisions, dict) else orjson.loads(row.decisions),
        amount_fen=row.amount_fen,
        payment_opens_at=row.payment_opens_at,
        payment_closes_at=row.payment_closes_at,
        paid_at=row.paid_at,
    )


def _opened(vault: Vault, row: Row, stored: bytes) -> str:
    return vault.decrypt_text(stored, row=str(row.id))

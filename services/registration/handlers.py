"""The use cases of registration, one function each: load, decide, save, say."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID, uuid4

import structlog

from contracts.cycle import Cycle
from contracts.event import Event
from contracts.reasons import ChangedField, WithdrawalReason
from contracts.refusals import Code, Refused
from contracts.registration import Amended, ContactChanged, Erased, PreRegistered, Withdrawn
from services.chassis import audit, outbox
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.chassis.vault import Vault, VaultError
from services.registration.domain import form as forms
from services.registration.domain import people
from services.registration.domain.desks import Desk, Desks
from services.registration.domain.form import Changes, Typed
from services.registration.domain.registration import (
    Registration,
    Saved,
    View,
    already_registered,
    refuse_outside_window,
)
from services.registration.repository import candidates
from services.registration.repository.desks import desk_hours

log = structlog.get_logger(__name__)

_NUMBERS_TRIED: Final = 5


async def pre_register(
    uow: UnitOfWork, typed: Typed, unreadable: Mapping[str, str], *, actor: Actor, cycle: Cycle, vault: Vault
) -> Saved:
    """A new registration. Asked in this order: the window, every field, the desk, the person."""
    refuse_outside_window(cycle, uow.at)
    form = forms.fill_in(typed, unreadable, cycle, uow.at)
    desks = Desks(cycle, await desk_hours(uow, cycle.id))
    desks.refuse_dead_end(form.choice.site_id, uow.at)
    identity = vault.index(
        people.identity_key(form.person.id_type, form.person.id_number), purpose="identity"
    )
    # Random, not in order of arrival: this id stands in events and links and must say nothing about its person.
    registration_id = uuid4()
    number = await _add(uow, vault, form, registration_id, identity, actor, cycle)
    choice = form.choice
    event = PreRegistered(
        cycle_id=cycle.id,
        registration_id=registration_id,
        site_id=choice.site_id,
        specialty_code=choice.specialty_code,
        level=choice.level,
        subjects=choice.subjects,
        form_version=1,
        returning=choice.returning,
    )
    await outbox.add(uow, event, sequence=1)
    return _saved(Registration.new(registration_id, number, choice), desks.desk(choice.site_id), vault)


async def _add(
    uow: UnitOfWork,
    vault: Vault,
    form: forms.Form,
    registration_id: UUID,
    identity: bytes,
    actor: Actor,
    cycle: Cycle,
) -> str:
    """Stores it under a number nobody has. The database alone decides whether the person is registered already."""
    for _ in range(_NUMBERS_TRIED):
        number = f"{cycle.id[:4]}{secrets.randbelow(10**8):08d}"
        if await candidates.add(
            uow,
            vault,
            form,
            registration_id=registration_id,
            number=number,
            cycle_id=cycle.id,
            account=actor.subject,
            identity_index=identity,
            remarks=forms.remarks(form.person.name, form.photo),
        ):
            return number
        if await candidates.is_registered(uow, cycle.id, identity):
            raise already_registered(cycle)
    raise Refused(Code.UNAVAILABLE, "暂时无法分配报名序号，请稍后再试。")


async def amend(
    uow: UnitOfWork,
    registration_id: UUID,
    typed: Typed,
    given: Collection[str],
    unreadable: Mapping[str, str],
    *,
    actor: Actor,
    cycle: Cycle,
    vault: Vault,
) -> tuple[Saved, Changes]:
    """A save of what the candidate changed: a new form version, every earlier form void."""
    desks = Desks(cycle, await desk_hours(uow, cycle.id))
    current, remarks = await _locked(uow, registration_id)
    current.may_amend(desks, cycle, uow.at)
    changes = forms.amend(typed, given, unreadable, current.choice, cycle)
    amended = current.amended(changes.choice, desks, uow.at, facts=2 if changes.touch_contact else 1)
    await candidates.save_amended(
        uow, vault, amended, changes, forms.remarks(changes.name, changes.photo, before=remarks)
    )
    facts: list[Event] = []
    if changes.touch_contact:
        facts.append(ContactChanged(cycle_id=cycle.id, registration_id=registration_id))
    facts.append(
        Amended(
            cycle_id=cycle.id,
            registration_id=registration_id,
            form_version=amended.form_version,
            changed=tuple(ChangedField(field) for field in changes.fields),
            site_id=amended.choice.site_id,
            specialty_code=amended.choice.specialty_code,
            level=amended.choice.level,
            subjects=amended.choice.subjects,
        )
    )
    await outbox.add_all(
        uow, [(fact, current.version + place, None) for place, fact in enumerate(facts, start=1)]
    )
    await audit.record(
        uow, actor, "amend", subject=str(registration_id), detail={"form_version": amended.form_version}
    )
    return _saved(amended, desks.desk(amended.choice.site_id), vault), changes


async def withdraw(
    uow: UnitOfWork, registration_id: UUID, reason: WithdrawalReason, *, actor: Actor, cycle: Cycle
) -> Registration:
    """The candidate ends it, and may pre-register anew while the window is open."""
    desks = Desks(cycle, await desk_hours(uow, cycle.id))
    current, _ = await _locked(uow, registration_id)
    withdrawn = current.withdraw(desks, cycle, uow.at)
    await candidates.save_withdrawn(uow, withdrawn, reason.value)
    fact = Withdrawn(cycle_id=cycle.id, registration_id=registration_id, reason_code=reason)
    await outbox.add(uow, fact, sequence=withdrawn.version)
    await audit.record(
        uow, actor, "withdraw", subject=str(registration_id), detail={"reason_code": reason.value}
    )
    return withdrawn


async def erase(uow: UnitOfWork, registration_id: UUID, *, actor: Actor, cycle: Cycle) -> Registration:
    """Its person asked the office to be forgotten. What happened stays, without who it was; who did it is on record."""
    current, _ = await _locked(uow, registration_id)
    erased = current.erase(cycle, uow.at)
    await candidates.erase(uow, erased)
    await outbox.add(uow, Erased(cycle_id=cycle.id, registration_id=registration_id), sequence=erased.version)
    await audit.record(uow, actor, "erase", subject=str(registration_id))
    return erased


async def show(
    uow: UnitOfWork, registration_id: UUID, *, actor: Actor, cycle: Cycle, vault: Vault
) -> tuple[View, Desks]:
    """One registration. A look by anybody but its candidate is kept in the audit trail."""
    view = await candidates.view(uow, vault, registration_id)
    if view is None:
        raise _not_found()
    if f"candidate:{registration_id}" not in actor.roles:
        await audit.record(uow, actor, "look", subject=str(registration_id))
    return view, Desks(cycle, await desk_hours(uow, cycle.id))


async def list_page(
    uow: UnitOfWork, after: UUID, limit: int, *, actor: Actor, cycle: Cycle, vault: Vault
) -> list[View]:
    """The office's list, in the order of ids. That it was looked at is kept."""
    views = await candidates.page(uow, vault, cycle.id, after, limit)
    await audit.record(uow, actor, "list", detail={"after": str(after), "shown": len(views)})
    return views


async def give_contacts(
    uow: UnitOfWork, registration_ids: Sequence[UUID], *, actor: Actor, vault: Vault
) -> list[tuple[UUID, str, str | None, str | None]]:
    """(id, number, phone, email) for the service that sends messages. Which were asked for is kept.

    One that does not open is left out: of those asked for together nobody else waits for it. If none opens it is the keys'
    fault, and who asks is to ask again soon. Raises VaultError.
    """
    found, shut = await candidates.contacts(uow, vault, registration_ids)
    if shut:
        log.error("contacts-do-not-open", registrations=len(shut), first=str(shut[0]))
        if not found:
            raise VaultError("of the contacts that were asked for none opens")
    asked = [str(registration_id) for registration_id in registration_ids]
    await audit.record(uow, actor, "contacts", detail={"registration_ids": asked, "given": len(found)})
    return found


async def list_contacts_to_fix(
    uow: UnitOfWork, site_id: str, *, actor: Actor, cycle: Cycle
) -> list[tuple[UUID, str, tuple[str, ...]]]:
    """Whose messages do not arrive, for the desk that will see them. 「联系电话务必准确畅通。」"""
    found = await candidates.contacts_to_fix(uow, cycle.id, site_id)
    await audit.record(uow, actor, "contacts-to-fix", subject=site_id, detail={"shown": len(found)})
    return found


def _saved(registration: Registration, desk: Desk, vault: Vault) -> Saved:
    code = candidates.form_code(vault, registration.number, registration.form_version)
    return Saved(registration, desk, code)


async def _locked(uow: UnitOfWork, registration_id: UUID) -> tuple[Registration, list[str]]:
    found = await candidates.lock(uow, registration_id)
    if found is None:
        raise _not_found()
    return found


def _not_found() -> Refused:
    return Refused(Code.NOT_FOUND, "没有找到这份报名，请核对报名序号。")

"""Fetching contacts: in batches, outside any transaction, kept encrypted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from services.chassis.db import Database
from services.chassis.vault import Vault
from services.notification.ports import Contact, ContactBook
from services.notification.repository import recipients
from services.notification.repository.recipients import Sealed, Wanted

log = structlog.get_logger(__name__)

BATCH: Final = 500
_FIRST_PAUSE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=6)


async def fetch_contacts(
    database: Database, book: ContactBook, vault: Vault, on_messages: Callable[[], None]
) -> datetime | None:
    """Fetch every contact that is wanted now; the moment when the next one is. Raises what the book raises."""
    while True:
        async with database.reading() as uow:
            wanted = await recipients.wanted(uow, BATCH)
            if not wanted:
                return await recipients.next_wanted(uow)
        by_id = {one.registration_id: one for one in wanted}
        found = [c for c in await book.look_up(list(by_id)) if c.registration_id in by_id]
        missing = [by_id[i] for i in sorted(by_id.keys() - {c.registration_id for c in found})]
        async with database.unit_of_work() as uow:
            await recipients.store(uow, sorted((_sealed(c, by_id, vault) for c in found), key=_id_of))
            await recipients.not_there(
                uow, [m.registration_id for m in missing], [uow.at + _pause(m.tries) for m in missing]
            )
            due_at = await recipients.next_wanted(uow)
            uow.after_commit(on_messages)
        if missing:
            log.warning("contacts-missing", count=len(missing))
        if due_at is None or due_at > database.clock.now():
            return due_at


def _id_of(sealed: Sealed) -> UUID:
    return sealed.registration_id


def _pause(tries: int) -> timedelta:
    return min(_FIRST_PAUSE * (1 << min(tries, 16)), _LONGEST_PAUSE)


def _sealed(contact: Contact, wanted: dict[UUID, Wanted], vault: Vault) -> Sealed:
    registration_id = contact.registration_id
    return Sealed(
        registration_id,
        wanted[registration_id].count,
        contact.tail,
        vault.encrypt(contact.phone, row=row_of(registration_id, "phone")) if contact.phone else None,
        vault.encrypt(contact.email, row=row_of(registration_id, "email")) if contact.email else None,
    )


def row_of(registration_id: UUID, column: str) -> str:
    """What an encrypted address is bound to: it opens in its own row and column only."""
    return f"{registration_id}:{column}"

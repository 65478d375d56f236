"""Carriers of SMS: their health as all processes share it, and receipts that name a message by the carrier's number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from services.chassis.db import Row, UnitOfWork
from services.notification.domain.providers import Health, Tally
from services.notification.repository.messages import PIN

_READ: Final = "select * from sms_providers order by name"
_LOCKED: Final = "select * from sms_providers where name = any($1::text[]) order by name for update"
_COUNT: Final = """
insert into sms_providers (name, share, tries, failed, slow)
select * from unnest($1::text[], $2::float8[], $3::bigint[], $4::bigint[], $5::bigint[])
on conflict (name) do update set tries = sms_providers.tries + excluded.tries,
    failed = sms_providers.failed + excluded.failed, slow = sms_providers.slow + excluded.slow
"""
_CHANGE: Final = """
update sms_providers p set share = t.share, fell_at = t.fell_at, paused_until = t.paused_until, strikes = t.strikes,
    why = coalesce(t.why, p.why), rose_at = t.rose_at
from unnest($1::text[], $2::float8[], $3::timestamptz[], $4::timestamptz[], $5::int[], $6::text[], $7::timestamptz[])
     as t(name, share, fell_at, paused_until, strikes, why, rose_at)
where p.name = t.name
"""
# Of two processes the second waits for the first to commit, and then finds that the turn is taken.
_PROBE: Final = """
with waiting as (
    select name from sms_providers where name = any($1::text[]) and paused_until <= $2 order by name for update
)
update sms_providers p set paused_until = $3 from waiting w where p.name = w.name returning p.name
"""
_BY_NUMBER: Final = """
select provider_ref, message_id from messages where provider = 'tencent' and provider_ref = any($1::text[])
"""
_KEEP_EARLY: Final = """
insert into early_receipts (provider, provider_ref, delivered, code, at)
select $1, t.provider_ref, t.delivered, t.code, $5
from unnest($2::text[], $3::boolean[], $4::text[]) as t(provider_ref, delivered, code)
on conflict (provider, provider_ref) do update set delivered = excluded.delivered, code = excluded.code
"""
_TAKE_EARLY: Final = """
delete from early_receipts e using messages m
where e.provider = $1 and m.provider = 'tencent' and m.provider_ref = e.provider_ref
returning m.message_id, e.provider_ref, e.delivered, e.code
"""
_FORGET_EARLY: Final = "delete from early_receipts where at < $1"


async def known(uow: UnitOfWork) -> list[Health]:
    """What is known of carriers, those included that are no longer used."""
    return [_health(row) for row in await uow.sql(_READ)]


async def rows(uow: UnitOfWork) -> Sequence[Row]:
    """The same, with what came of all tries and why a share fell."""
    return await uow.sql(_READ)


async def count(uow: UnitOfWork, tallies: Mapping[str, Tally], configured: Mapping[str, float]) -> None:
    """Add what came of tries."""
    names = sorted(tallies)
    if names:
        await uow.sql(
            _COUNT,
            names,
            [configured[name] for name in names],
            [tallies[name].tries for name in names],
            [tallies[name].failed for name in names],
            [tallies[name].slow for name in names],
        )


async def locked(uow: UnitOfWork, names: Sequence[str]) -> list[Health]:
    """What is known of these; nobody else judges them until we have committed."""
    return [_health(row) for row in await uow.sql(_LOCKED, names)]


async def change(uow: UnitOfWork, changed: Sequence[tuple[Health, str | None]]) -> None:
    """What became of these, and why."""
    if changed:
        await uow.sql(
            _CHANGE,
            [one.name for one, _ in changed],
            [one.share for one, _ in changed],
            [one.fell_at for one, _ in changed],
            [one.paused_until for one, _ in changed],
            [one.strikes for one, _ in changed],
            [why for _, why in changed],
            [one.rose_at for one, _ in changed],
        )


async def probe(uow: UnitOfWork, names: Sequence[str], until: datetime) -> set[str]:
    """Which of these, whose pause is over, may be tried by us alone until then."""
    return {row.name for row in await uow.sql(_PROBE, names, uow.at, until)}


async def ours(uow: UnitOfWork, serials: Sequence[str]) -> dict[str, UUID]:
    """Which messages these numbers of the carrier's are."""
    await uow.sql(PIN)
    return {row.provider_ref: row.message_id for row in await uow.sql(_BY_NUMBER, serials)}


async def keep_early(uow: UnitOfWork, provider: str, receipts: Mapping[str, tuple[bool, str]]) -> None:
    """By the carrier's number, whether it was delivered and its code: not on record yet under it, or none of ours."""
    if receipts:
        delivered = [delivered for delivered, _ in receipts.values()]
        codes = [code for _, code in receipts.values()]
        await uow.sql(_KEEP_EARLY, provider, list(receipts), delivered, codes, uow.at)


async def take_early(uow: UnitOfWork, provider: str) -> Sequence[Row]:
    """Those whose messages are on record now: message_id, provider_ref, delivered, code."""
    await uow.sql(PIN)
    return await uow.sql(_TAKE_EARLY, provider)


async def forget_early(uow: UnitOfWork, before: datetime) -> int:
    """Nobody's any more."""
    return await uow.changed(_FORGET_EARLY, before)


def _health(row: Row) -> Health:
    return Health(row.name, row.share, row.share, row.fell_at, row.paused_until, row.strikes, row.rose_at)

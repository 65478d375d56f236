"""What the later stages said, written into the views of many registrations with one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson

from services.chassis.db import Row, UnitOfWork
from services.registration.domain.registration import Confirmation, Payment

# Rows are locked in the order of their ids, so that two batches that touch the same people cannot deadlock.
# What comes back are ids that nobody here knows: such an event can never be applied.
_FOLLOW_CONFIRMATION = """
with news as (
    select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[], $5::boolean[], $6::text[])
        as n(id, sequence, confirmation, fix_until, starts_over, decisions)
), locked as materialized (
    select r.id from registrations r join news n on n.id = r.id order by r.id for no key update of r
), followed as (
    update registrations r
    set confirmation = coalesce(n.confirmation, r.confirmation),
        confirmation_sequence = n.sequence,
        fix_until = case when n.confirmation is null then r.fix_until else n.fix_until end,
        decisions = case when n.starts_over then n.decisions::jsonb else r.decisions || n.decisions::jsonb end
    from news n join locked l on l.id = n.id
    where r.id = n.id and r.confirmation_sequence < n.sequence
)
select n.id from news n where not exists (select from registrations r where r.id = n.id)
"""
_FOLLOW_PAYMENT = """
with news as (
    select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::integer[], $5::timestamptz[], $6::timestamptz[],
                         $7::timestamptz[])
        as n(id, sequence, payment, amount_fen, opens_at, closes_at, paid_at)
), locked as materialized (
    select r.id from registrations r join news n on n.id = r.id order by r.id for no key update of r
), followed as (
    update registrations r
    set payment = coalesce(n.payment, r.payment),
        payment_sequence = n.sequence,
        amount_fen = coalesce(n.amount_fen, r.amount_fen),
        payment_opens_at = coalesce(n.opens_at, r.payment_opens_at),
        payment_closes_at = coalesce(n.closes_at, r.payment_closes_at),
        paid_at = coalesce(n.paid_at, r.paid_at)
    from news n join locked l on l.id = n.id
    where r.id = n.id and r.payment_sequence < n.sequence
)
select n.id from news n where not exists (select from registrations r where r.id = n.id)
"""
_MARK_FAILED = """
with news as (
    select id, max(at) filter (where channel = 'sms') as sms_at, max(at) filter (where channel = 'email') as email_at
    from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as n(id, channel, at)
    group by id
), locked as materialized (
    select r.id from registrations r join news n on n.id = r.id order by r.id for no key update of r
), marked as (
    update registrations r
    set phone_failed_at = case when n.sms_at >= r.contact_saved_at
                               then greatest(r.phone_failed_at, n.sms_at) else r.phone_failed_at end,
        email_failed_at = case when n.email_at >= r.contact_saved_at
                               then greatest(r.email_failed_at, n.email_at) else r.email_failed_at end
    from news n join locked l on l.id = n.id
    where r.id = n.id and r.erased_at is null
)
select n.id from news n where not exists (select from registrations r where r.id = n.id)
"""


class Unknown(LookupError):
    """Something was said about registrations that are not here. Nothing will ever make it apply."""


@dataclass(frozen=True, slots=True)
class ConfirmationNews:
    """What the confirmation service said of one registration; None leaves the view as it is."""

    id: UUID
    sequence: int
    confirmation: Confirmation | None = None
    fix_until: datetime | None = None
    starts_over: bool = False
    decisions: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PaymentNews:
    """What the payment service said of one registration; None leaves the view as it is."""

    id: UUID
    sequence: int
    payment: Payment | None = None
    amount_fen: int | None = None
    opens_at: datetime | None = None
    closes_at: datetime | None = None
    paid_at: datetime | None = None


async def follow_confirmation(uow: UnitOfWork, news: Sequence[ConfirmationNews]) -> None:
    """Moves the views on. News older than what is known changes nothing. Raises Unknown."""
    for turn in _turns(news):
        strangers = await uow.sql(
            _FOLLOW_CONFIRMATION,
            [one.id for one in turn],
            [one.sequence for one in turn],
            [one.confirmation for one in turn],
            [one.fix_until for one in turn],
            [one.starts_over for one in turn],
            [orjson.dumps(one.decisions or {}).decode() for one in turn],
        )
        _refuse_strangers(strangers)


async def follow_payment(uow: UnitOfWork, news: Sequence[PaymentNews]) -> None:
    """Moves the views on. News older than what is known changes nothing. Raises Unknown."""
    for turn in _turns(news):
        strangers = await uow.sql(
            _FOLLOW_PAYMENT,
            [one.id for one in turn],
            [one.sequence for one in turn],
            [one.payment for one in turn],
            [one.amount_fen for one in turn],
            [one.opens_at for one in turn],
            [one.closes_at for one in turn],
            [one.paid_at for one in turn],
        )
        _refuse_strangers(strangers)


async def mark_failed(uow: UnitOfWork, failures: Sequence[tuple[UUID, str, datetime]]) -> None:
    """(registration, channel, moment): what was sent to a contact that has been replaced since says nothing."""
    ids, channels, moments = zip(*failures, strict=True)
    _refuse_strangers(await uow.sql(_MARK_FAILED, list(ids), list(channels), list(moments)))


News = TypeVar("News", ConfirmationNews, PaymentNews)


def _turns(news: Iterable[News]) -> list[list[News]]:
    """A statement updates a row once: a registration's second news goes into the second turn, and so on."""
    turns: list[list[News]] = []
    seen: dict[UUID, int] = {}
    for one in news:
        turn = seen[one.id] = seen.get(one.id, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(one)
    return turns


def _refuse_strangers(strangers: Sequence[Row]) -> None:
    if strangers:
        raise Unknown(f"{len(strangers)} registrations are not here, the first is {strangers[0].id}")

"""Messages as they are made: by set, both channels of everybody at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from contracts.reasons import Carrier
from services.chassis.db import UnitOfWork
from services.notification.domain.told import Told
from services.notification.domain.urgency import Urgency
from services.notification.repository import silence

# What many have in common crosses to the database once, for each channel, under its number.
_CREATE: Final = """
with alike as materialized (
    select a.number, a.occasion, a.variant, a.facts::jsonb as facts, a.deadline_at, a.priority, a.channel, a.first,
           a.version, a.call_at
    from unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::smallint[], $8::text[],
                $9::timestamptz[], $10::int[], $11::timestamptz[])
         as a(number, occasion, variant, facts, deadline_at, priority, channel, first, version, call_at)
),
created as (
    insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts,
        deadline_at, created_at, state_at, not_before, due_at, template_version, correlation_id, caused_by, priority, call_at)
    select case a.channel when 'sms' then d.sms_reference else d.email_reference end, d.registration_id, a.occasion,
        a.variant, d.instance, a.channel, 'created', a.facts, a.deadline_at, $1, $1, a.first,
        case when r.contact_known = r.contact_wanted then a.first end,
        a.version, d.correlation_id, d.caused_by, a.priority, a.call_at
    from unnest($12::int[], $13::uuid[], $14::text[], $15::text[], $16::uuid[], $17::uuid[], $18::uuid[])
         as d(number, registration_id, instance, correlation_id, caused_by, sms_reference, email_reference)
    join alike a on a.number = d.number
    cross join lateral (
        select known.contact_known, known.contact_wanted from recipients known
        where known.registration_id = d.registration_id and known.erased_at is null offset 0
    ) r
    on conflict (registration_id, occasion, instance, channel) do nothing
    returning due_at
)
select coalesce(bool_or(due_at is not null), false) as sendable,
       (select restore_id from restores order by restore_id desc limit 1) as restored
from created
"""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all messages about one occasion have in common that are kept at one moment and have one deadline."""

    first: Mapping[Carrier, datetime]
    version: Mapping[Carrier, int]
    urgency: Urgency
    call_at: datetime | None  # when to look whether the SMS, or else the email, has told its person


class Alike(NamedTuple):
    """The same thing told to many."""

    told: Told
    shared: Shared


class Draft(NamedTuple):
    """What one person is told, on both channels, before it is kept. A tuple: a storm is made of them."""

    number: int  # of what it has in common with others
    registration_id: UUID
    instance: str
    correlation_id: str
    caused_by: UUID


async def create(
    uow: UnitOfWork,
    alike: Sequence[Alike],
    drafts: Sequence[Draft],
    references: Mapping[Carrier, Sequence[UUID]],
) -> bool:
    """Keep these, for both channels each; those that are there already stay as they are. They are of people who are held.

    `references`: of the drafts, in their order. Returns whether any waits for nothing but its moment.
    """
    if not drafts:
        return False
    rows = await uow.sql(
        _CREATE,
        uow.at,
        *_columns((number, one, channel) for number, one in enumerate(alike) for channel in Carrier),
        *zip(*drafts, strict=True),
        references[Carrier.SMS],
        references[Carrier.EMAIL],
    )
    if (restored := rows[0].restored) is not None and any(one.caused_by < restored for one in drafts):
        made = (zip(references[channel], drafts, strict=True) for channel in Carrier)
        await silence.ask_first_of(
            uow, ((message_id, one.caused_by) for pairs in made for message_id, one in pairs)
        )
    return bool(rows[0].sendable)


def _columns(rows: Iterable[tuple[int, Alike, Carrier]]) -> Iterable[tuple[object, ...]]:
    return zip(
        *(
            (
                number,
                told.occasion,
                told.variant,
                orjson.dumps(told.facts).decode(),
                told.deadline,
                shared.urgency,
                channel,
                shared.first[channel],
                shared.version[channel],
                shared.call_at if channel is Carrier.SMS else None,
            )
            for number, (told, shared), channel in rows
        ),
        strict=True,
    )

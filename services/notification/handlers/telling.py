"""From events to messages that wait: by set, once per registration, occasion instance and channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeVar
from uuid import UUID

import orjson

from contracts.cycle import Cycle
from contracts.event import RegistrationEvent
from contracts.reasons import Carrier
from services.chassis.db import UnitOfWork
from services.notification.domain.calling import UNDOES_A_CALL, CallPatience
from services.notification.domain.occasions import Occasion
from services.notification.domain.quiet import first_moment
from services.notification.domain.reference import references_of
from services.notification.domain.told import Desks, Told, once_more
from services.notification.domain.urgency import urgency_of
from services.notification.repository import calls, recipients
from services.notification.repository import drafts as drafted
from services.notification.repository.drafts import Alike, Draft, Shared
from services.notification.repository.recipients import News
from services.notification.repository.untold import untold
from services.notification.templates.wording import Wording

E = TypeVar("E", bound=RegistrationEvent)

_NO_NEWS: Final = News()


@dataclass(frozen=True, slots=True)
class Teller:
    """What telling needs: the cycle, the texts, and whom to wake once there is something to send."""

    cycle: Cycle
    wording: Wording
    on_contacts_wanted: Callable[[], None]
    on_messages: Callable[[], None]
    patience: CallPatience = field(default_factory=CallPatience)

    async def tell(
        self,
        uow: UnitOfWork,
        events: Sequence[E],
        told: Iterable[Told],
        *,
        news: Mapping[UUID, News] | None = None,
        sets_confirm_by: bool = False,
        new_contact: bool = False,
    ) -> None:
        """Keep a message for both channels for each event; `told` says what, in the same order.

        What is one and the same object in `told` is worked out once.
        """
        said = list(told)
        await self.know(uow, events, news=news, sets_confirm_by=sets_confirm_by, new_contact=new_contact)
        if await self._create(uow, events, said):
            uow.after_commit(self.on_messages)
        undone = {
            e.registration_id for e, one in zip(events, said, strict=True) if one.occasion in UNDOES_A_CALL
        }
        # What these know or were told makes calls needless, by what was kept just now.
        if people := undone | {who for who, new in (news or {}).items() if new.settles}:
            await calls.settle(uow, list(people))

    async def _create(
        self, uow: UnitOfWork, events: Iterable[RegistrationEvent], told: Iterable[Told]
    ) -> bool:
        alike: list[Alike] = []
        numbers: dict[int, int] = {}
        shared: dict[tuple[Occasion, str, datetime | None], Shared] = {}
        drafts: list[Draft] = []
        for event, one in zip(events, told, strict=True):
            if (number := numbers.get(id(one))) is None:
                same = one.occasion, one.variant, one.deadline
                if same not in shared:
                    shared[same] = self._shared(one, uow.at)
                number = numbers[id(one)] = len(alike)
                alike.append(Alike(one, shared[same]))  # kept there, it stays the only one in its place
            envelope = event.envelope
            drafts.append(
                Draft(
                    number,
                    event.registration_id,
                    instance_of(event.source, envelope.sequence),
                    envelope.correlation_id,
                    envelope.event_id,
                )
            )
        references = references_of((draft.caused_by, alike[draft.number].told.occasion) for draft in drafts)
        return await drafted.create(uow, alike, drafts, references)

    async def know(
        self,
        uow: UnitOfWork,
        events: Sequence[E],
        *,
        news: Mapping[UUID, News] | None = None,
        sets_confirm_by: bool = False,
        new_contact: bool = False,
    ) -> None:
        """Take in what these events say of their recipients, without telling anything."""
        by_cycle: dict[str, dict[UUID, News]] = {}
        for event in events:
            said = (news or {}).get(event.registration_id, _NO_NEWS)
            by_cycle.setdefault(event.cycle_id, {})[event.registration_id] = said
        for cycle_id, of_cycle in by_cycle.items():
            if await recipients.keep(
                uow, cycle_id, of_cycle, sets_confirm_by=sets_confirm_by, new_contact=new_contact
            ):
                uow.after_commit(self.on_contacts_wanted)

    async def tell_again(self, uow: UnitOfWork, events: Sequence[RegistrationEvent]) -> None:
        """These people are reached otherwise from now on: what matters still and nothing told them goes out once more.

        As messages of their own, so that what became of the first ones stays on record.
        """
        by_person = {event.registration_id: event for event in events}
        rows = await untold(uow, sorted(by_person))
        said = [
            once_more(Occasion(row.occasion), orjson.loads(row.facts), row.variant, row.deadline_at, uow.at)
            for row in rows
        ]
        await self._create(uow, [by_person[row.registration_id] for row in rows], said)

    async def desks(self, uow: UnitOfWork) -> Desks:
        """The desks' hours as of now."""
        return Desks(self.cycle, await recipients.desk_hours(uow, self.cycle.id))

    def _shared(self, told: Told, at: datetime) -> Shared:
        first = {channel: first_moment(channel, told.deadline, at, self.cycle) for channel in Carrier}
        return Shared(
            first=first,
            version={
                channel: self.wording.version(channel, told.occasion, told.variant) for channel in Carrier
            },
            urgency=urgency_of(told.occasion, told.deadline, at),
            call_at=self.patience.call_at(told.occasion, told.deadline, first[Carrier.SMS]),
        )


@lru_cache(1024)
def instance_of(source: str, sequence: int) -> str:
    """Which of the occasions of one kind: the emitting service's number of the fact. Part of the once-only key."""
    return f"{source.rpartition('/')[2]}-{sequence}"

"""How far this process has got with each key of a topic: what comes for the first time after a later version was overtaken.

A topic is in order per key (I4), so this is for the day on which one is not: rebuilt in another order, or written by a
producer that is broken. A gap cannot be told from one that is right, so nothing waits for a version that is missing; but
what was overtaken is not applied over what overtook it. See docs/decisions/0018.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from services.chassis.db import UnitOfWork
    from services.chassis.turns import Taken, Where

KEYS: Final = 30_000  # the last that events came of; ten megabytes
OVERTAKEN: Final = "overtaken"
"""What the reason of such a parked event begins with. Later ones of its key do not wait behind it: it is they who passed."""
_TAKEN_IN: Final = """
select i.event_id from inbox i
where (i.handler, i.event_id) in (select * from unnest($1::text[], $2::uuid[]))
"""


class Heard:
    """Kept in memory, so that it costs no statement: only what looks overtaken is looked up in the inbox.

    Each entry is a version whose effect is committed. A process that has just started, or another member that took the
    partition over, knows less and never something wrong.
    """

    def __init__(self, keys: int = KEYS) -> None:
        self._keys = keys
        self._furthest: OrderedDict[Where, int] = OrderedDict()

    def remember(self, taken: Iterable[Taken]) -> None:
        """The effects of these are committed."""
        for one in taken:
            version = one.envelope.sequence
            self._furthest[one.where] = max(version, self._furthest.pop(one.where, version))
        while len(self._furthest) > self._keys:
            self._furthest.popitem(last=False)

    def past(self, one: Taken) -> int | None:
        """The later version of its key that was taken in here, if there is one."""
        furthest = self._furthest.get(one.where, 0)
        return furthest if furthest > one.envelope.sequence else None

    async def overtaken(self, uow: UnitOfWork, taken: Sequence[Taken]) -> dict[UUID, int]:
        """Those that no handler ever had, although a later version was taken in: event id → that version."""
        suspects = {
            one.envelope.event_id: (one.handler, version)
            for one in taken
            if (version := self.past(one)) is not None
        }
        if not suspects:
            return {}
        handlers = [handler for handler, _ in suspects.values()]
        rows = await uow.sql(_TAKEN_IN, handlers, list(suspects))
        known = {row.event_id for row in rows}
        return {event_id: version for event_id, (_, version) in suspects.items() if event_id not in known}

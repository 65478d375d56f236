"""Bugs planted on purpose: each takes one protection away, and the simulation must find it by one of the invariants named."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from services.chassis import consuming, relay
from tests.simulation import acting
from tests.simulation.finding import Found
from tests.support import switched_off
from tests.support.switched_off import Mutation


@dataclass(frozen=True, slots=True)
class Planted:
    """A protection that is gone, and who must notice."""

    mutation: Mutation
    noticed_by: frozenset[str]
    within: int
    """Seeds, from 1 on. Several times as many as it took when this was written."""

    @property
    def seeds(self) -> range:
        return range(1, self.within + 1)

    def check(self, found: Found | None) -> None:
        """It was missed, and by whom it must be. Raises AssertionError."""
        assert found is not None, f"no seed from 1 to {self.within} noticed that it is gone"
        print(f"seed {found.seed} broke {', '.join(sorted(found.invariants))}")
        assert found.invariants & self.noticed_by, found.violation


@contextlib.contextmanager
def _every_relay_leads() -> Iterator[None]:
    """Nobody asks whether another relay of the service leads."""

    async def may_lead(_connection: Any) -> bool:
        return True

    with patch.object(relay.Relay, "may_lead", staticmethod(may_lead)):
        yield


@contextlib.contextmanager
def _cursor_before_acknowledgement() -> Iterator[None]:
    """The cursor moves behind a page that the broker has not said it has."""
    settle = relay.Relay._settle

    async def hurry(self: relay.Relay, connection: Any, sent: relay.Sent) -> None:
        hoped: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        hoped.set_result(None)
        await settle(self, connection, relay.Sent(sent.page, hoped))
        await sent.acknowledged

    with patch.object(relay.Relay, "_settle", hurry):
        yield


@contextlib.contextmanager
def _offsets_before_effects() -> Iterator[None]:
    """Offsets are committed for records whose effects are still to be."""

    async def take(consumers: consuming.Consumers, records: Sequence[Any], commit: Any) -> None:
        await commit()
        await consumers.on_batch(records)

    with patch.object(acting, "take_in", take):
        yield


# Found within a dozen seeds; the others take up to a minute each, and are looked for in make test-faults.
QUICK: Final = ("cursor after acknowledgement", "offsets after effects")

# What each was found at when this was written: 3, 17, 12, 11, 3, 9, 35. The row lock is missed by whoever gets a message twice.
PLANTED: Final[dict[str, Planted]] = {
    "inbox": Planted(switched_off.no_inbox, frozenset({"I6"}), 30),
    "parking order": Planted(switched_off.no_parking_order, frozenset({"I12"}), 150),
    "relay horizon": Planted(switched_off.no_horizon, frozenset({"I4", "I5"}), 150),
    "leader lock": Planted(_every_relay_leads, frozenset({"I4"}), 50),
    "cursor after acknowledgement": Planted(_cursor_before_acknowledgement, frozenset({"I4", "I5"}), 20),
    "offsets after effects": Planted(_offsets_before_effects, frozenset({"I5"}), 60),
    "row lock": Planted(
        lambda: switched_off.without(r"for update( of \w+)?( skip locked)?"), frozenset({"I3", "I8"}), 200
    ),
}

"""What a set of events has in common is worked out once, and the names of its messages stay what they were."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from contracts import payment
from contracts.cycle import Cycle
from contracts.reasons import Carrier, ExpiryCause
from services.notification.domain import told
from services.notification.domain.occasions import Occasion
from services.notification.domain.reference import references_of

CYCLE = Cycle.read(Path(__file__).parents[3] / "deploy/cycles/2024-health-leshan.toml")
CLOSES = CYCLE.windows.payment.closes
EVENT = UUID("0190a3f5-7c1e-7d2a-9b60-4f1d2c3b5b01")


def _expired(hours: int, cause: ExpiryCause) -> payment.Expired:
    return payment.Expired(
        cycle_id=CYCLE.id, registration_id=EVENT, closes_at=CLOSES + timedelta(hours=hours), cause=cause, proof_id=EVENT,
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ExpiryCause)), max_size=12))
def test_what_is_alike_is_one_object_and_says_what_each_would_say(
    said: list[tuple[int, ExpiryCause]],
) -> None:
    events = [_expired(*one) for one in said]
    together = told.once_each(events, "closes_at", "cause", say=lambda event: told.expired(event, CYCLE))
    assert together == [told.expired(event, CYCLE) for event in events]
    assert len({id(one) for one in together}) == len(set(said))


# A carrier was given these, and a restore makes them anew: they may never change.
def test_a_message_keeps_the_name_it_was_given() -> None:
    names = references_of([(EVENT, Occasion.EXPIRED), (EVENT, Occasion.DUE)])
    assert {channel: [str(name) for name in made] for channel, made in names.items()} == {
        Carrier.SMS: ["0190a3f5-7c1e-8ee7-9726-e348322e8e6a", "0190a3f5-7c1e-82f1-80f4-bc05b0e01f64"],
        Carrier.EMAIL: ["0190a3f5-7c1e-8976-aed2-0d5d94dc0e63", "0190a3f5-7c1e-8b53-97a0-9599c005ba45"],
    }


@given(st.lists(st.tuples(st.uuids(), st.sampled_from(Occasion)), min_size=1, max_size=8, unique=True))
def test_no_two_messages_have_one_name(said: list[tuple[UUID, Occasion]]) -> None:
    names = references_of(said)
    made = [name for of_channel in names.values() for name in of_channel]
    assert len(set(made)) == 2 * len(said)
    assert all(name.version == 8 and name.variant == "specified in RFC 4122" for name in made)
    assert all(
        name.bytes[:6] == event_id.bytes[:6]
        for of_channel in names.values()
        for name, (event_id, _) in zip(of_channel, said, strict=True)
    )

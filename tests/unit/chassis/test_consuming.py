"""Splitting a poll into runs, and telling faults apart."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import confirmation
from contracts.event import Event
from services.chassis.consuming import Blocked, Consumers, Taken, Unfit, bind, is_transient, runs
from services.chassis.turns import in_turn

TYPES: Sequence[type[Event]] = (confirmation.Confirmed, confirmation.Reviewed, confirmation.Lapsed)


def taken(kind: int, key: int, number: int) -> Taken:
    event = SimpleNamespace(type=TYPES[kind].type, key=str(UUID(int=key)), number=number)
    where = ("exam.confirmation", event.key)
    return Taken(cast("Any", None), cast("Any", event), cast("Any", None), f"handler-{kind}", where)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=60))
def test_runs_keep_every_event_and_the_order_of_every_key(batch: list[tuple[int, int]]) -> None:
    split = runs([taken(kind, key, n) for n, (kind, key) in enumerate(batch)])
    flat = [cast("Any", event) for _, events in split for event in events]
    assert sorted(event.number for event in flat) == list(range(len(batch)))
    for key in range(5):
        mine = [e.number for e in flat if e.key == str(UUID(int=key))]
        assert mine == sorted(mine)
    assert all(len({e.type for e in events}) == 1 for _, events in split)


def _came(place: int, key: int, version: int | None) -> Taken | Unfit:
    record = SimpleNamespace(topic="exam.confirmation", key=str(UUID(int=key)).encode(), offset=place)
    if version is None:
        return Unfit(cast("Any", record), "malformed", None)
    envelope = SimpleNamespace(sequence=version)
    where = (record.topic, record.key.decode())
    return Taken(cast("Any", record), cast("Any", None), cast("Any", envelope), "handler", where)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.one_of(st.integers(1, 6), st.integers(1, 6), st.none())), max_size=40
    )
)
def test_a_polls_events_take_turns_by_version_and_pass_nothing_that_cannot_be_read(
    came: list[tuple[int, int | None]],
) -> None:
    batch = [_came(place, key, version) for place, (key, version) in enumerate(came)]
    turns = in_turn(batch)
    assert sorted(one.record.offset for one in turns) == list(range(len(batch)))
    assert [one.where for one in turns] == [one.where for one in batch], "another key's place was taken"
    for key in range(4):
        mine = [one for one in turns if one.where[1] == str(UUID(int=key))]
        before = [one for one in batch if one.where[1] == str(UUID(int=key))]
        parts, first = [], 0
        for place, one in enumerate([*before, None]):
            if one is None or isinstance(one, Unfit):
                parts.append((first, place))
                first = place + 1
        for start, end in parts:
            part = [cast("Taken", one) for one in mine[start:end]]
            assert {one.record.offset for one in part} == {one.record.offset for one in before[start:end]}
            assert part == sorted(part, key=lambda one: (one.envelope.sequence, one.record.offset))
        assert [one for one in mine if isinstance(one, Unfit)] == [
            one for one in before if isinstance(one, Unfit)
        ]


def test_a_deadline_of_one_type_is_one_run() -> None:
    assert len(runs([taken(0, key, key) for key in range(500)])) == 1


async def _wants(uow: object, events: object, *, cycle: object) -> None: ...


def test_a_handler_gets_what_its_parameters_name_or_the_start_fails() -> None:
    assert cast("Any", bind(_wants, {"cycle": 1, "vault": 2})).keywords == {"cycle": 1}
    with pytest.raises(TypeError, match="wants \\['cycle'\\]"):
        bind(_wants, {})


def test_two_handlers_of_one_name_are_refused() -> None:
    async def _wants(uow: object, events: object) -> None: ...

    first, second = globals()["_wants"], _wants
    with pytest.raises(ValueError, match="one name"):
        Consumers(
            {confirmation.Confirmed: first, confirmation.Lapsed: second},
            database=cast("Any", None),
            service="test",
            deps={"cycle": 1},
        )


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (Blocked("x"), True),
        (asyncpg.InterfaceError("closed"), True),
        (
            asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
            True,
        ),
        (asyncpg.SerializationError("s"), True),
        (asyncpg.DeadlockDetectedError("s"), True),
        (asyncpg.LockNotAvailableError("s"), True),
        (asyncpg.AdminShutdownError("s"), True),
        (asyncpg.TooManyConnectionsError("s"), True),
        (asyncpg.ReadOnlySQLTransactionError("s"), True),
        (asyncpg.UniqueViolationError("s"), False),
        (asyncpg.StringDataRightTruncationError("s"), False),
        (ValueError(), False),
        (KeyError(), False),
    ],
)
def test_only_the_infrastructures_faults_are_transient(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient

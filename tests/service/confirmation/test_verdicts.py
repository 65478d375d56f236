"""The set-based statements and the domain come to the same verdict on every case."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from contracts.cycle import Interval, Window
from contracts.reasons import WindowReason
from services.chassis.db import UnitOfWork
from services.confirmation import repository
from services.confirmation.domain import NEXT, Action, Case, Desk, Form, State
from tests.service.confirmation.system import System
from tests.unit.confirmation.cases import TINY, leshan, moment

# Moments at which verdicts change, and their neighbours.
EDGES = [
    moment(text) for text in ("2023-12-12", "2023-12-13", "2023-12-14 12:00", "2023-12-16", "2023-12-20")
]
MOMENTS = st.builds(
    lambda edge, step: edge + step * TINY, st.sampled_from(EDGES), st.sampled_from([-1, 0, 1])
) | st.datetimes(datetime(2023, 12, 1), datetime(2023, 12, 24)).map(  # noqa: DTZ001  # made aware in the next step
    lambda naive: moment(naive.isoformat(timespec="microseconds"))
)
SITES = ["shizhong", "ebian", "wutongqiao", "municipal"]
WINDOWS = st.builds(
    lambda opens, closes: Window(intervals=(Interval(opens=opens, closes=closes),)),
    st.just(moment("2023-12-01") - timedelta(days=1)),
    MOMENTS,
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    state = draw(st.sampled_from(State))
    site = draw(st.sampled_from(SITES))
    kept = state in (State.RETURNED, State.LAPSED, State.WITHDRAWN, State.REJECTED)
    return Case(
        registration_id=uuid7(),
        cycle_id=leshan().id,
        form=Form(site, "203", "junior", (1, 2), draw(st.integers(1, 9))),
        returning=draw(st.booleans()),
        state=state,
        passed={State.CONFIRMED: 1, State.APPROVED: 3}.get(state, 0),
        fix_until=draw(st.none() | MOMENTS) if kept else None,
        version=draw(st.integers(0, 5)),
    )


class Undone(Exception):
    """Ends a transaction of this test without keeping anything."""


async def put(uow: UnitOfWork, given_cases: list[Case]) -> dict[UUID, Case]:
    """Write these cases by the service's own statements and read them back."""
    fresh = [Case(registration_id=c.registration_id, cycle_id=c.cycle_id, form=c.form, returning=c.returning)
             for c in given_cases]  # fmt: skip
    assert await repository.open_cases(uow, fresh) == len(fresh)
    await repository.save_many(uow, list(zip(fresh, given_cases, strict=True)))
    return await repository.lock_many(uow, [c.registration_id for c in given_cases])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    given_cases=st.lists(cases(), min_size=1, max_size=40),
    edge=st.tuples(st.integers(0, 39), st.sampled_from([-1, 0, 1])),
    over=st.dictionaries(st.sampled_from(SITES), WINDOWS, max_size=3),
)
async def test_statement_and_domain_agree_on_every_case(
    system: System, given_cases: list[Case], edge: tuple[int, int], over: dict[str, Window]
) -> None:
    desks = {site: Desk.of(leshan(), site, over.get(site)) for site in SITES}
    # The moment at which one of them turns, the microsecond before, or the one after.
    turning = given_cases[edge[0] % len(given_cases)]
    at = turning.deadline(desks[turning.form.site_id]) + edge[1] * TINY
    try:
        async with system.database.unit_of_work(at=at) as uow:
            read = await put(uow, given_cases)
            assert read == {c.registration_id: c for c in given_cases}, "a case is read as it was written"

            # who lapses
            overdue = {c.registration_id for c in given_cases if c.is_overdue(at, desks[c.form.site_id])}
            lapsed = await repository.lapse(uow, desks.values(), "desk", limit=1000)
            after = await repository.lock_many(uow, read)
            moved = {key for key, case in after.items() if case != read[key]}
            assert moved == overdue
            assert lapsed == len(overdue)
            for key in moved:
                assert after[key] == read[key].lapsed(at, desks[read[key].form.site_id])
            closed = await uow.sql(
                "select key, (payload::json ->> 'closed_at')::timestamptz as at, sequence from outbox order by id"
            )
            assert {(row.key, row.at, row.sequence) for row in closed} == {
                (str(key), read[key].deadline(desks[read[key].form.site_id]), read[key].version + 1)
                for key in moved
            }

            # who is told that a window moved
            window = Window(intervals=(Interval(opens=at, closes=at + timedelta(days=1)),))
            told = await repository.tell_new_window(uow, "shizhong", window, WindowReason.OTHER)
            finally_ = await repository.lock_many(uow, read)
            waiting = {
                key
                for key, case in after.items()
                if Action.LAPSE in NEXT[case.state] and case.form.site_id == "shizhong"
            }
            assert {key for key, case in finally_.items() if case != after[key]} == waiting
            assert told == len(waiting)
            assert all(finally_[key] == after[key].told_new_window() for key in waiting)
            raise Undone
    except Undone:
        pass

"""The desks' windows: those the office set, whom they leave behind when they end, whom to tell when they move."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from contracts import confirmation
from contracts.cycle import Cycle, Window
from contracts.reasons import WindowReason
from services.chassis.db import UnitOfWork
from services.chassis.outbox import insert_select, moment_sql
from services.confirmation.domain import NEXT, Action, AtDesk, Desk, PaymentClose, State, states_that_allow
from services.confirmation.repository.cases import DECISION, window_of

# Sweep and office must not see each other's half: whoever moves a window holds this alone, whoever lapses by one shares it.
_DESK_WINDOWS: Final = (0x6B77_6477, 1)


def lapse_statement(*, wait: bool) -> str:
    """现场确认 over: the set-based form of `Case.lapsed`. $1 moment, $2 and $3 the desks and their closes, $4 how many.

    Its states come from the transition table, its deadline is `Case.deadline`; a property test holds both to the same verdicts.
    """
    states = ", ".join(f"'{state}'" for state in states_that_allow(Action.LAPSE))
    lapsed = {NEXT[state][Action.LAPSE] for state in states_that_allow(Action.LAPSE)}
    assert len(lapsed) == 1, "the statement writes one state"
    event = insert_select(
        confirmation.Lapsed,
        {
            "cycle_id": "cycle_id",
            "registration_id": "registration_id",
            "site_id": "site_id",
            "closed_at": moment_sql("closed_at"),
        },
        source="lapsed",
        key="registration_id::text",
        sequence="version",
        occurred_at="$1::timestamptz",
        causation_id="'job:lapse_missed'",
    )
    return f"""
with due as materialized (
    select c.registration_id, coalesce(c.fix_until, desk.closes_at) as closed_at
    from cases c join unnest($2::text[], $3::timestamptz[]) as desk(site_id, closes_at) on desk.site_id = c.site_id
    where c.state in ({states}) and coalesce(c.fix_until, desk.closes_at) <= $1::timestamptz
    order by c.site_id, c.registration_id limit $4
    for update of c {"" if wait else "skip locked"}
), lapsed as (
    update cases c set state = '{lapsed.pop()}', version = c.version + 1, changed_at = $1::timestamptz
    from due where c.registration_id = due.registration_id
    returning c.registration_id, c.cycle_id, c.site_id, c.version, c.form_version, c.fix_until, due.closed_at
), kept as (
    insert into decisions ({DECISION})
    select uuidv7(), registration_id, version, 'lapsed', $5::text, 'clock', 'lapse_missed', '{{}}', null, fix_until,
           form_version, null, $1::timestamptz
    from lapsed
)
{event}
"""  # noqa: S608  # column names and states of the table


_LAPSE: Final = lapse_statement(wait=False)
_LAPSE_WAITING: Final = lapse_statement(wait=True)


async def lapse(
    uow: UnitOfWork, desks: Iterable[Desk], desk_level: str, *, limit: int, wait: bool = False
) -> int:
    """Lapse up to `limit` cases of these desks that are overdue at `uow.at`; how many there were."""
    known = list(desks)
    count = await uow.changed(
        _LAPSE_WAITING if wait else _LAPSE,
        uow.at,
        [desk.site_id for desk in known],
        [desk.closes_at for desk in known],
        limit,
        desk_level,
    )
    uow.events_added += count
    return count


async def next_fix_until(uow: UnitOfWork) -> datetime | None:
    """The next moment at which a return ends."""
    rows = await uow.sql(
        "select min(fix_until) as at from cases where state = $1 and fix_until > $2",
        State.RETURNED.value,
        uow.at,
    )
    found: datetime | None = rows[0].at
    return found


async def share_desk_windows(uow: UnitOfWork) -> None:
    """Until this transaction ends no window moves."""
    await uow.sql("select pg_advisory_xact_lock_shared($1, $2)", *_DESK_WINDOWS)


async def hold_desk_windows(uow: UnitOfWork) -> None:
    """Until this transaction ends nobody lapses and nobody else moves a window."""
    await uow.sql("select pg_advisory_xact_lock($1, $2)", *_DESK_WINDOWS)


async def set_windows(uow: UnitOfWork) -> dict[str, Window]:
    """By desk, the windows the office set."""
    return {
        row.site_id: window
        for row in await uow.sql("select site_id, opens_at, closes_at from desk_windows")
        if (window := window_of(row)) is not None
    }


async def desks(uow: UnitOfWork, cycle: Cycle) -> dict[str, Desk]:
    """Every desk of the cycle as it stands now."""
    changed = await set_windows(uow)
    return {site.id: Desk.of(cycle, site.id, changed.get(site.id)) for site in cycle.sites}


async def set_window(
    uow: UnitOfWork,
    *,
    cycle_id: str,
    site_id: str,
    window: Window,
    reason_code: WindowReason,
    reason: str,
    actor: str,
) -> int:
    """Put this window over the cycle file's; its version."""
    rows = await uow.sql(
        """
with done as (
    insert into desk_windows as w (site_id, cycle_id, opens_at, closes_at, version, set_at)
    values ($1, $2, $3, $4, 1, $8)
    on conflict (site_id) do update
    set opens_at = excluded.opens_at, closes_at = excluded.closes_at, version = w.version + 1, set_at = excluded.set_at
    returning site_id, version, opens_at, closes_at, set_at
)
insert into desk_window_changes (site_id, version, opens_at, closes_at, reason_code, reason, actor, at)
select site_id, version, opens_at, closes_at, $5, $6, $7, set_at from done returning version
""",
        site_id,
        cycle_id,
        window.opens,
        window.closes,
        reason_code.value,
        reason,
        actor,
        uow.at,
    )
    version: int = rows[0].version
    return version


def tell_statement() -> str:
    """Every case that waits for this desk is told its new window: the set-based form of `Case.told_new_window`."""
    states = ", ".join(f"'{state}'" for state in states_that_allow(Action.LAPSE))
    event = insert_select(
        confirmation.WindowMoved,
        {
            "cycle_id": "cycle_id",
            "registration_id": "registration_id",
            "site_id": "site_id",
            "opens_at": moment_sql("$2::timestamptz"),
            "closes_at": moment_sql("$3::timestamptz"),
            "reason_code": "$4::text",
        },
        source="told",
        key="registration_id::text",
        sequence="version",
        occurred_at="$5::timestamptz",
        correlation_id="$6::text",
        causation_id="$7::text",
    )
    return f"""
with waiting as materialized (
    select registration_id from cases where site_id = $1 and state in ({states}) order by registration_id for update
), told as (
    update cases c set version = c.version + 1, changed_at = $5::timestamptz
    from waiting where c.registration_id = waiting.registration_id
    returning c.registration_id, c.cycle_id, c.site_id, c.version
)
{event}
"""  # noqa: S608  # column names and states of the table


_TELL: Final = tell_statement()
_GONE: Final = ", ".join(f"'{state}'" for state in (State.WITHDRAWN, State.REJECTED, State.LAPSED))
_WAITING: Final = ", ".join(f"'{state}'" for state in states_that_allow(Action.LAPSE))


async def count_at(uow: UnitOfWork, site_id: str) -> AtDesk:
    """Whom another window of this desk concerns, as they stand now."""
    rows = await uow.sql(
        f"""
        select count(*) filter (where state in ({_WAITING})) as waiting,
               count(*) filter (where state in ({_WAITING}) and fix_until is null) as by_the_close, count(*) as all_of_them
        from cases where site_id = $1 and state not in ({_GONE})
        """,  # noqa: S608  # states of the table
        site_id,
    )
    return AtDesk(rows[0].waiting, rows[0].by_the_close, rows[0].all_of_them)


async def tell_new_window(uow: UnitOfWork, site_id: str, window: Window, reason_code: WindowReason) -> int:
    """Say to every registration that waits for this desk that its window is another; how many."""
    count = await uow.changed(
        _TELL,
        site_id,
        window.opens,
        window.closes,
        reason_code.value,
        uow.at,
        uow.cause.correlation_id,
        uow.cause.causation_id,
    )
    uow.events_added += count
    return count


async def payment_closes(uow: UnitOfWork) -> dict[str, PaymentClose]:
    """By desk, the closes of payment that the office set: until then the last level may approve."""
    return {
        row.site_id: PaymentClose(row.closes_at, row.told_closes_at)
        for row in await uow.sql(
            "select site_id, closes_at, coalesce(told_closes_at, closes_at) as told_closes_at from payment_closes"
        )
    }


async def set_payment_close(
    uow: UnitOfWork, cycle_id: str, site_id: str, close: PaymentClose, sequence: int
) -> None:
    """Payment closes then for this desk. An older word of it than the one that is kept changes nothing."""
    await uow.sql(
        """
insert into payment_closes as p (site_id, cycle_id, closes_at, told_closes_at, sequence) values ($1, $2, $3, $4, $5)
on conflict (site_id) do update
set closes_at = excluded.closes_at, told_closes_at = excluded.told_closes_at, sequence = excluded.sequence
where p.sequence < excluded.sequence
""",
        site_id,
        cycle_id,
        close.closes_at,
        close.told_closes_at,
        sequence,
    )

"""The desks' windows: what happens when one ends, and when the office moves one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from contracts import confirmation, payment
from contracts.cycle import Cycle, Interval, Window
from contracts.reasons import WindowReason
from contracts.refusals import Code, FieldError, Refused
from services.chassis import audit, outbox
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.confirmation import repository
from services.confirmation.domain import Desk
from services.confirmation.handlers.facts import Answer

_EVERYBODY: Final = 1_000_000_000


async def lapse_missed(uow: UnitOfWork, *, cycle: Cycle, limit: int, wait: bool = False) -> int:
    """Lapse up to `limit` cases whose time at the desk has ended; how many."""
    await repository.share_desk_windows(uow)
    desks = await repository.desks(uow, cycle)
    return await repository.lapse(uow, desks.values(), cycle.review_levels[0].id, limit=limit, wait=wait)


async def follow_payment_close(
    uow: UnitOfWork, events: Sequence[payment.SiteWindowSet], *, cycle: Cycle
) -> None:
    """The last level may approve until payment closes, wherever the office has moved that. KeyError for a desk nobody knows."""
    for event in events:
        if event.cycle_id == cycle.id:
            cycle.site(event.site_id)
            await repository.set_payment_close(
                uow, event.cycle_id, event.site_id, event.closes_at, event.envelope.sequence
            )


async def next_lapse(uow: UnitOfWork, *, cycle: Cycle) -> datetime | None:
    """The next moment at which somebody may have to lapse."""
    desks = await repository.desks(uow, cycle)
    moments = [desk.closes_at for desk in desks.values() if desk.closes_at > uow.at]
    fix_until = await repository.next_fix_until(uow)
    return min([*moments, fix_until] if fix_until else moments, default=None)


async def set_desk_window(
    uow: UnitOfWork,
    *,
    actor: Actor,
    site_id: str,
    opens: datetime | None,
    closes: datetime,
    reason: str,
    reason_code: WindowReason | None,
    cycle: Cycle,
    wake_lapse: Callable[[], None],
) -> Answer:
    """Set a desk's window, or move it; whoever waits for that desk is told. Who has lapsed stays lapsed."""
    await repository.hold_desk_windows(uow)
    desks = await repository.desks(uow, cycle)
    if site_id not in desks:
        raise Refused(Code.NOT_FOUND, "没有这个报名点。")
    desk = desks[site_id]
    window = _new_window(uow.at, desk, opens, closes)
    if desk.window is not None and window.spans == desk.window.spans:
        return {**_window_facts(desk.site_id, desk.window), "changed": False, "told": 0}
    code = reason_code or _why(desk, window)
    # Whose time ended under the old window ends now, whether or not the job has come round to them.
    await repository.lapse(uow, [desk], cycle.review_levels[0].id, limit=_EVERYBODY, wait=True)
    version = await repository.set_window(
        uow,
        cycle_id=cycle.id,
        site_id=site_id,
        window=window,
        reason_code=code,
        reason=reason,
        actor=actor.subject,
    )
    moved = confirmation.DeskWindowSet(
        cycle_id=cycle.id,
        site_id=site_id,
        opens_at=window.opens,
        closes_at=window.closes,
        reason_code=code,
    )
    await outbox.add(uow, moved, sequence=version)
    told = await repository.tell_new_window(uow, site_id, window, code)
    await audit.record(
        uow, actor, "set-desk-window", subject=site_id, detail={"version": version, "told": told}
    )
    uow.after_commit(wake_lapse)
    return {**_window_facts(site_id, window), "changed": True, "told": told}


def _new_window(at: datetime, desk: Desk, opens: datetime | None, closes: datetime) -> Window:
    opens = opens or (desk.window.opens if desk.window else None)
    wrong = []
    if opens is None:
        wrong.append(FieldError("opens", "该报名点尚无确认时间，必须写明开始时间"))
    elif opens >= closes:
        wrong.append(FieldError("opens", "必须早于结束时间"))
    if closes <= at:
        wrong.append(FieldError("closes", "必须晚于现在"))
    if opens is None or wrong:
        raise Refused(Code.INVALID, "报名点的确认时间填写不正确，请按提示修改。", tuple(wrong))
    return Window(intervals=(Interval(opens=opens, closes=closes),))


def _why(desk: Desk, window: Window) -> WindowReason:
    if desk.window is None:
        return WindowReason.ANNOUNCED
    return WindowReason.EXTENDED if window.closes > desk.closes_at else WindowReason.CORRECTED


def _window_facts(site_id: str, window: Window) -> Answer:
    return {
        "site_id": site_id,
        "opens_at": window.opens.isoformat(),
        "closes_at": window.closes.isoformat(),
    }

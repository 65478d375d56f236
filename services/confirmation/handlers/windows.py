"""The desks' windows: what happens when one ends, and when the office moves one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from contracts import confirmation, payment
from contracts.cycle import Cycle, Interval, Window
from contracts.reasons import WindowReason
from contracts.refusals import Code, FieldError, Refused
from services.chassis import audit, outbox
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor
from services.confirmation import repository
from services.confirmation.domain import AtDesk, Desk, PaymentClose
from services.confirmation.handlers.facts import Answer
from services.confirmation.repository import Ask

_EVERYBODY: Final = 1_000_000_000


async def lapse_missed(uow: UnitOfWork, *, cycle: Cycle, limit: int, wait: bool = False) -> int:
    """Lapse up to `limit` cases whose time at the desk has ended; how many."""
    await repository.share_desk_windows(uow)
    desks = await repository.desks(uow, cycle)
    asks = await repository.open_asks(uow)
    # Nobody lapses by a close that somebody has asked to put off, until another has decided.
    ending = [desk for desk in desks.values() if not _puts_off(asks.get(desk.site_id), desk)]
    return await repository.lapse(uow, ending, cycle.review_levels[0].id, limit=limit, wait=wait)


def _puts_off(ask: Ask | None, desk: Desk) -> bool:
    return ask is not None and ask.window.closes > desk.closes_at


async def follow_payment_close(
    uow: UnitOfWork, events: Sequence[payment.SiteWindowSet], *, cycle: Cycle
) -> None:
    """The last level may approve until payment closes, wherever the office has moved that. KeyError for a desk nobody knows."""
    for event in events:
        if event.cycle_id == cycle.id:
            cycle.site(event.site_id)
            await repository.set_payment_close(
                uow,
                event.cycle_id,
                event.site_id,
                PaymentClose(event.closes_at, event.told_closes_at),
                event.envelope.sequence,
            )


async def next_lapse(uow: UnitOfWork, *, cycle: Cycle) -> datetime | None:
    """The next moment at which somebody may have to lapse."""
    desks = await repository.desks(uow, cycle)
    moments = [desk.closes_at for desk in desks.values() if desk.closes_at > uow.at]
    moments += [ask.window.closes for ask in (await repository.open_asks(uow)).values()]
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
    """Give a desk its window, or ask for another one, which a second person approves. Who has lapsed stays lapsed."""
    await repository.hold_desk_windows(uow)
    desks = await repository.desks(uow, cycle)
    if site_id not in desks:
        raise Refused(Code.NOT_FOUND, "没有这个报名点。")
    desk = desks[site_id]
    window = _new_window(uow.at, desk, opens, closes)
    if desk.window is not None and window.spans == desk.window.spans:
        return {**_window_facts(desk.site_id, desk.window, cycle), "changed": False, "told": 0}
    code = reason_code or _why(desk, window)
    # Whose time ended under the old window ends now, whether or not the job has come round to them.
    await repository.lapse(uow, [desk], cycle.review_levels[0].id, limit=_EVERYBODY, wait=True)
    if desk.window is not None:
        return await _ask(uow, actor, cycle, desk, window, code, reason, wake_lapse)
    return await _set(uow, actor, cycle, site_id, window, code, reason, wake_lapse)


async def _ask(
    uow: UnitOfWork,
    actor: Actor,
    cycle: Cycle,
    desk: Desk,
    window: Window,
    code: WindowReason,
    reason: str,
    wake_lapse: Callable[[], None],
) -> Answer:
    """People have been told a window: another one takes two. Until it is decided nobody lapses by the close it puts off."""
    if desk.site_id in await repository.open_asks(uow):
        raise Refused(Code.NOT_ALLOWED, "该报名点已有一项变更待另一人批准，请先办结那一项。")
    waiting = (await _check_cost(uow, desk, window, cycle)).waiting
    ask = Ask(uuid7(), desk.site_id, window, code, reason, waiting, actor.subject, uow.at)
    await repository.add_ask(uow, ask)
    await audit.record(
        uow,
        actor,
        "ask-desk-window",
        subject=desk.site_id,
        detail={"ask_id": ask.ask_id, "closes_at": window.closes, "waiting": waiting},
    )
    uow.after_commit(wake_lapse)
    return {
        **_window_facts(desk.site_id, desk.window or window, cycle),
        "changed": False,
        "told": 0,
        "asked": {
            "ask_id": str(ask.ask_id),
            "opens_at": window.opens.isoformat(),
            "closes_at": window.closes.isoformat(),
            "waiting": waiting,
        },
    }


async def _check_cost(uow: UnitOfWork, desk: Desk, window: Window, cycle: Cycle) -> AtDesk:
    """Whom it concerns. Refused where it closes earlier and would cost too many of them the time that was announced."""
    found = await repository.count_at(uow, desk.site_id)
    may_cost = cycle.windows.confirmation.earlier_close_may_cost_per_mille
    if window.closes < desk.closes_at and found.costs_too_much(may_cost):
        raise Refused(
            Code.NOT_ALLOWED,
            "提前截止会使过多尚未确认的考生失去已公布的确认时间，不予办理；请核对截止时间。",
            hints={"would_fall": found.by_the_close, "registered": found.all_of_them},
        )
    return found


async def decide_desk_window(
    uow: UnitOfWork,
    *,
    actor: Actor,
    site_id: str,
    ask_id: UUID,
    word: str,
    cycle: Cycle,
    wake_lapse: Callable[[], None],
) -> Answer:
    """Another person approves or rejects what was asked for; approved, it is done at once."""
    await repository.hold_desk_windows(uow)
    ask = await repository.find_ask(uow, ask_id)
    if ask is None or ask.site_id != site_id:
        raise Refused(Code.NOT_FOUND, "没有这项申请。")
    if ask.asked_by == actor.subject:
        audit.refused_access(
            "POST", "/office/desk-windows/{site_id}/{ask_id}", "own-decision", actor.kind, actor.subject
        )
        raise Refused(Code.FORBIDDEN, "提出人不能自己批准或驳回：请由考试办公室另一人办理。")
    if ask.word is not None:
        raise Refused(Code.NOT_ALLOWED, "这项申请已经有人批准或驳回，请刷新后查看。")
    if word == "approved" and ask.window.closes <= uow.at:
        raise Refused(Code.NOT_ALLOWED, "申请的确认时间已过，不能再批准；请重新提出。")
    if word == "approved":
        # More may wait there than when it was asked for.
        await _check_cost(uow, (await repository.desks(uow, cycle))[site_id], ask.window, cycle)
    await repository.decide_ask(uow, ask, word, actor.subject)
    if word == "approved":
        return await _set(uow, actor, cycle, site_id, ask.window, ask.reason_code, ask.reason, wake_lapse)
    await audit.record(uow, actor, "reject-desk-window", subject=site_id, detail={"ask_id": ask_id})
    uow.after_commit(wake_lapse)
    desk = (await repository.desks(uow, cycle))[site_id]
    return {
        **(_window_facts(site_id, desk.window, cycle) if desk.window else {}),
        "changed": False,
        "told": 0,
    }


async def _set(
    uow: UnitOfWork,
    actor: Actor,
    cycle: Cycle,
    site_id: str,
    window: Window,
    code: WindowReason,
    reason: str,
    wake_lapse: Callable[[], None],
) -> Answer:
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
    return {**_window_facts(site_id, window, cycle), "changed": True, "told": told}


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


def _window_facts(site_id: str, window: Window, cycle: Cycle) -> Answer:
    return {
        "site_id": site_id,
        "opens_at": window.opens.astimezone(cycle.zone).isoformat(),
        "closes_at": window.closes.astimezone(cycle.zone).isoformat(),
    }

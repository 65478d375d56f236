"""What `kaowu evidence`, `kaowu evidence verify` and `kaowu close preview` do and say."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.cycle import Cycle
from deploy.evidence.making import make
from deploy.evidence.reaching import CannotProve, Reach, reach_of
from deploy.evidence.verdict import Unreadable
from deploy.evidence.verifying import verify, verify_file
from services.chassis.clock import SystemClock
from services.chassis.tokens import Actor
from services.payment.handlers.previewing import preview_close

OK, ALTERED, UNREADABLE = 0, 1, 2
PEOPLE: Final = 50  # by name, of a preview
_TERMINAL: Final = Actor("kaowu close preview", frozenset({"office"}))
_PAGE: Final = 5000
_WOULD: Final = {"forfeit": "视为自动放弃", "ask": "先向支付渠道查询", "spare": "暂不处理"}
# For one line of many people; the sums have the whole sentence.
_WHY: Final = {
    "never-ordered": "从未下单",
    "orders-unpaid": "订单均未支付",
    "order-under-way": "有未了结订单",
    "restore-under-way": "系统恢复未完成",
    "decision-under-way": "截止变更待办结",
    "stopped": "有事项正在办理",
}
_CHANNELS: Final = {"wechat": "微信", "alipay": "支付宝"}
_ORDER_STATES: Final = {
    "creating": "下单中",
    "open": "待支付",
    "unknown": "渠道未答复",
    "lapsing": "已换码，原码未到期",
}
_PIPE_WIDTH: Final = 152
_ROOT: Final = re.compile("[0-9a-f]{64}")


def _reach(data: Path, *, use_given: bool, console: Console) -> AbstractAsyncContextManager[Reach]:
    return reach_of(
        data,
        use_given=use_given,
        say=lambda line: console.print(line, markup=False, style="dim", soft_wrap=True),
    )


async def write(data: Path, registration_id: UUID, target: Path, *, use_given: bool) -> int:
    """Write one evidence file, and check it as its reader will."""
    console = Console(highlight=False, stderr=True)
    try:
        _refuse_unwritable(target)
        async with _reach(data, use_given=use_given, console=console) as reach:
            content = await make(reach, registration_id, made_at=SystemClock().now())
            async with reach.payment.reading() as uow:
                rows = await uow.sql(
                    "select status from obligations where registration_id = $1", registration_id
                )
        raw = (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()
        verdict = verify(raw)
        _put(target, raw)
        if rows and rows[0].status != "expired":
            # What is proven happened; it is not what holds now.
            console.print(
                Text(
                    f"this forfeiture was taken back: the registration is {rows[0].status} now",
                    style="yellow",
                ),
                soft_wrap=True,
            )
    except CannotProve as error:
        console.print(Text(f"no evidence was written: {error}", style="red"), soft_wrap=True)
        return ALTERED
    console.print(
        Text(f"{target}: {len(raw)} bytes; check it with: kaowu evidence verify {target}"), soft_wrap=True
    )
    for problem in verdict.problems:
        console.print(Text(f"it does not prove everything: {problem}", style="yellow"), soft_wrap=True)
    return ALTERED if verdict.problems else OK


def _refuse_unwritable(target: Path) -> None:
    """Before databases are started for nothing. Raises CannotProve."""
    if not target.parent.is_dir():
        raise CannotProve(f"there is no directory {target.parent}: make it, or name another file")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise CannotProve(f"{target} may not be written by this account: name another file")


def _put(target: Path, raw: bytes) -> None:
    """Whole or not at all: half a file would look like an altered one. Raises CannotProve."""
    scratch = target.with_name(target.name + ".new")
    try:
        scratch.write_bytes(raw)
        scratch.replace(target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise CannotProve(f"{target} cannot be written: {error.strerror}; name another file") from None


async def prove_one(reach: Reach, target: Path) -> str | None:
    """Write the file of one forfeiture that the root covers, of somebody who ordered if there is one; returns its name.

    Raises CannotProve when it does not hold. None: nobody was forfeited.
    """
    async with reach.payment.reading() as uow:
        rows = await uow.sql(
            "select p.registration_id from proofs p join closings c on c.closes_at = p.closes_at and p.number <= c.last_proof "
            "order by p.orders = 'none', p.registration_id limit 1"
        )
    if not rows:
        return None
    content = await make(reach, rows[0].registration_id, made_at=SystemClock().now())
    raw = (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()
    target.write_bytes(raw)
    if problems := verify(raw).problems:
        raise CannotProve(f"the evidence of {rows[0].registration_id} does not hold: {problems[0]}")
    return target.name


def check(file: Path, root: str | None) -> int:
    """Check one evidence file and say what holds, or exactly what does not."""
    console = Console(highlight=False)
    root = root and root.strip().lower()
    if root and not _ROOT.fullmatch(root):
        console.print(
            Text(
                f"--root is no root: 64 hexadecimal digits, as the close published them, not {len(root)} characters",
                style="red",
            ),
            soft_wrap=True,
        )
        return UNREADABLE
    try:
        verdict = verify_file(file, root)
    except Unreadable as error:
        console.print(Text(f"unreadable: {error}", style="red"), soft_wrap=True)
        return UNREADABLE
    for problem in verdict.problems:
        console.print(Text(f"wrong  {problem}", style="red"), soft_wrap=True)
    if verdict.problems:
        count = len(verdict.problems)
        console.print(
            Text(f"{file}: refused, {count} thing{'' if count == 1 else 's'} wrong", style="red"),
            soft_wrap=True,
        )
        return ALTERED
    evidence = verdict.evidence
    assert evidence is not None, "what has no problem was read"
    facts = evidence.forfeiture
    sealed = sum(order.answer is not None for order in evidence.orders)
    lines = [
        (
            f"ok     registration {evidence.registration_id}, forfeited {facts.expired_at} for the close {facts.closes_at}: "
            f"{facts.rule_text}"
        ),
        f"ok     cycle {evidence.cycle.id}, fingerprint {evidence.cycle.fingerprint}",
        f"ok     {len(evidence.orders)} orders, {sealed} answers sealed by a gateway, none says paid in time and in full",
        f"ok     {len(evidence.reminders)} reminders before the close",
    ]
    if evidence.published is not None and evidence.tree is not None:
        lines.append(
            f"ok     leaf {evidence.tree.index + 1} of {evidence.tree.leaves} under the root {evidence.published.proof_root}"
            + (", which is the one given" if root else "")
        )
    for line in lines:
        console.print(Text(line, style="green"), soft_wrap=True)
    for note in dict.fromkeys(verdict.notes):
        console.print(Text(f"note   {note}", style="dim"), soft_wrap=True)
    return OK


async def preview(
    data: Path,
    closes_at: datetime | None,
    *,
    site_id: str | None = None,
    use_given: bool,
    as_json: bool,
    limit: int = PEOPLE,
) -> int:
    """Who would be forfeited if the window closed now, of one desk or of all; `limit` people by name, --json everybody."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    quiet = Console(highlight=False, stderr=True)
    items: list[dict[str, Any]] = []
    try:
        async with _reach(data, use_given=use_given, console=quiet) as reach:
            desks = [site.id for site in reach.cycle.sites]
            if site_id is not None and site_id not in desks:
                raise CannotProve(f"there is no desk {site_id} in this cycle: {', '.join(desks)}")
            after: UUID | None = None
            totals: dict[str, Any] = {}
            while True:
                page = await preview_close(
                    reach.payment,
                    reach.cycle,
                    _TERMINAL,
                    closes_at=closes_at,
                    site_id=site_id,
                    after=after,
                    limit=_PAGE,
                )
                items += page["items"]
                totals = page.get("totals", totals)
                after = page["next"]
                if after is None:
                    break
            if not items:
                closes = await _closes(reach)
                if closes_at is not None and closes_at not in closes:
                    known = ", ".join(f"{at.astimezone(reach.cycle.zone):%Y-%m-%dT%H:%M%z}" for at in closes)
                    raise CannotProve(
                        f"no window closes at {closes_at:%Y-%m-%dT%H:%M%z}: they close at {known or 'no moment yet'}"
                    )
    except CannotProve as error:
        quiet.print(Text(f"nothing was looked at: {error}", style="red"), soft_wrap=True)
        return ALTERED
    if as_json:
        found = {
            "cycle_id": reach.cycle.id,
            "at": page["at"],
            "closes_at": closes_at,
            "site_id": site_id,
            "totals": totals,
            "items": items,
        }
        print(json.dumps(found, ensure_ascii=False, indent=1, default=_in_json))
        return OK
    show_preview(console, totals, items, reach.cycle, limit, closes_at=closes_at, site_id=site_id)
    return OK


async def _closes(reach: Reach) -> list[datetime]:
    """Every close that anybody owes or owed by."""
    async with reach.payment.reading() as uow:
        return [
            row.closes_at for row in await uow.sql("select distinct closes_at from obligations order by 1")
        ]


def show_preview(
    console: Console,
    totals: dict[str, Any],
    items: list[dict[str, Any]],
    cycle: Cycle,
    limit: int,
    *,
    closes_at: datetime | None = None,
    site_id: str | None = None,
) -> None:
    """The people first: however many they are, what is read last are the sums."""
    names = {site.id: site.name for site in cycle.sites}
    which = " · ".join([
        *([f"{names.get(site_id, '')} {site_id}".strip()] if site_id else []),
        *([f"缴费截止 {_moment(closes_at, cycle.zone)}"] if closes_at else []),
    ])  # fmt: skip
    if not items:
        said = "没有人欠费：现在截止，不会有人被放弃 · nobody owes, nobody would be forfeited"
        console.print(Text(f"{which}: {said}" if which else said), soft_wrap=True)
        return
    console.print(_people(items[:limit], cycle.zone))
    if len(items) > limit:
        console.print(
            Text(f"… 另有 {len(items) - limit} 人: --limit {len(items)}, --json", style="dim"), soft_wrap=True
        )
    if len(totals["by_site"]) > 1:
        console.print(_by_desk(totals, names))
    console.print(_totals(totals, cycle.zone, which))


def _in_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _moment(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}"


def _totals(totals: dict[str, Any], zone: ZoneInfo, which: str) -> Table:
    table = Table(
        title=Text("假如现在截止" + (f" · {which}" if which else ""), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("缴费截止", "将会", "原因", "人数", "应缴", "在途"):
        table.add_column(Text(column), overflow="fold")
    for row in totals["by_reason"]:
        table.add_row(
            _moment(row["closes_at"], zone),
            _WOULD[row["would"]],
            row["words"],
            str(row["registrations"]),
            _yuan(row["amount_fen"]),
            _yuan(row["in_flight_fen"]),
        )
    table.add_section()
    for would, word in _WOULD.items():
        counted = totals[would]
        table.add_row(
            "合计",
            word,
            "",
            str(counted["registrations"]),
            _yuan(counted["amount_fen"]),
            _yuan(counted.get("in_flight_fen", 0)),
        )
    return table


def _by_desk(totals: dict[str, Any], names: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("报名点", *_WOULD.values()):
        table.add_column(Text(column), overflow="fold", justify="left" if column == "报名点" else "right")
    for row in totals["by_site"]:
        site_id = row["site_id"]
        name = f"{names.get(site_id, '')} {site_id}".strip() if site_id else "不明"
        table.add_row(name, *(str(row[would]["registrations"]) for would in _WOULD))
    return table


def _people(items: list[dict[str, Any]], zone: ZoneInfo) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("registration", "报名点", "将会", "原因", "应缴", "未了结订单", "订单到期"):
        table.add_column(Text(column), overflow="fold", no_wrap=column == "registration")
    for item in items:
        order = item["open_order"]
        table.add_row(
            str(item["registration_id"]),
            item["site_id"] or "不明",
            _WOULD[item["would"]],
            _WHY[item["why"]],
            _yuan(item["amount_fen"]),
            f"{order['order_no']} {_CHANNELS.get(order['channel'], order['channel'])}{_ORDER_STATES[order['state']]}"
            if order
            else "",
            _moment(order["expires_at"], zone) if order else "",
        )
    return table


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"

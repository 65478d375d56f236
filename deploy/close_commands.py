"""`kaowu close show`: where the close stands, whom and what it waits for, and the roots that the office publishes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydantic_core import to_jsonable_python
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.asking import console_of_office
from deploy.evidence.reaching import CannotProve, reach_of
from services.payment.handlers.reporting import close_report

_STATES: Final = {
    "open": "未到截止",
    "pending": "时钟不一致，截止处理暂停",
    "closing": "截止处理进行中",
    "closed": "截止处理完毕",
}
_KINDS: Final = {"extend-payment": "变更缴费截止", "revive": "撤销自动放弃"}
_STAGES: Final = {"asked": "待第二人批准", "under-way": "已批准，办理中"}
_PEOPLE: Final = {
    "awaiting": "应缴未缴",
    "paid": "已缴费",
    "expired": "视为自动放弃",
    "held": "待核",
    "cancelled": "不再应缴",
}


async def show(data: Path, *, use_given: bool, as_json: bool) -> int:
    """What payment's `GET /office/close` shows, of a system that runs, was left, or is given. 1: it cannot be looked at."""
    quiet = Console(highlight=False, stderr=True)
    try:
        async with reach_of(
            data,
            use_given=use_given,
            say=lambda line: quiet.print(line, markup=False, style="dim", soft_wrap=True),
        ) as reach:
            found = to_jsonable_python(await close_report(reach.payment, reach.cycle))
            zone = reach.cycle.zone
    except CannotProve as error:
        quiet.print(Text(f"nothing was looked at: {error}", style="red"), soft_wrap=True)
        return 1
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        show_close(console_of_office(), found, zone)
    return 0


def show_close(console: Console, found: Mapping[str, Any], zone: ZoneInfo) -> None:
    """First what stops it, each with what to do; then the people, those held by name, and what is to be published."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    def at(moment: str | None) -> str:
        return f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M:%S}" if moment else ""

    say(f"{_STATES[found['state']]} {found['state']} · 截止 {at(found['closes_at'])}", "bold")
    if not found["guard"]["agrees"]:
        say(f"时钟 guard: {found['guard']['reason']}；每 30 秒再试，此前不放弃任何人", "red")
    for one in found["deciding"]:
        what = _KINDS.get(one["kind"], one["kind"])
        where = f"报名点 {one['site_id']}" if one["site_id"] else "全部报名点"
        to = f"，{where}截止改为 {at(one['closes_at'])}" if one["kind"] == "extend-payment" else ""
        say(
            f"待办结 deciding: {what}{to} · {one['decision_id']} {_STAGES.get(one['state'], one['state'])}；"
            "办结前不放弃相关考生",
            "yellow",
        )
    for one in found["recoveries"]:
        if one["finished_at"] is None:
            say("恢复核查未完成 recovery: 逐笔问过支付渠道之前不放弃任何人", "yellow")
    for site, moment in found["moved"].items():
        say(f"报名点 {site} 的截止: {at(moment)}")
    people = _table("人数与金额（元）", "", "人数", "应缴")
    for state, word in _PEOPLE.items():
        owed = found["sums_fen"].get(f"owed_by_{state}", 0)
        people.add_row(f"{word} {state}", str(found["counts"][state]), f"{owed / 100:,.2f}")
    console.print(people)
    if found["held"]:
        held = _table(
            "待核：支付渠道未答复，既未放弃也未缴费", "registration", "订单号", "渠道", "已问", "再问时间"
        )
        for one in found["held"]:
            held.add_row(
                one["registration_id"],
                one["order_no"] or "",
                one["channel"] or "",
                str(one["attempts"] or 0),
                at(one["asked_again_at"]),
            )
        console.print(held)
        if (more := found["counts"]["held"] - len(found["held"])) > 0:
            say(f"… 另有 {more} 人", "dim")
    for root in found["roots"]:
        later = "，公布之后才放弃者" if root["closes_at"] is None else ""
        moment = at(root["published_at"])
        say(f"凭据根 proof_root: {root['proof_root']} （{root['proofs']} 份凭据{later}，{moment}）请写入公告")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold", no_wrap=column == "registration")
    return table

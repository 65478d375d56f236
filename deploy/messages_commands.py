"""`kaowu messages`: who was told what and what came of it, as tables in a terminal; of one registration the texts as sent."""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.asking import Asked, CannotShow, asking, console_of_office
from deploy.local.data_directory import InUse
from deploy.messages_given import Given, given, left
from deploy.rehearsal.report.words import CHANNELS, OCCASIONS

_BEIJING: Final = ZoneInfo("Asia/Shanghai")  # the clock that every message names
_STATES: Final = {
    "created": "待发",
    "sending": "发送中",
    "accepted": "已交运营商",
    "delivered": "送达",
    "undelivered": "未送达",
    "expired": "逾期",
    "superseded": "不再需要",
}
_CIRCUITS: Final = {"well": "正常", "paused": "暂停", "waiting": "待试", "rising": "减量"}
_PACES: Final = {"fast": "快", "slow": "慢"}

Data = Annotated[
    Path | None,
    typer.Option("--data", help="The system's directory, as it runs or was left; default: what ran last."),
]


def messages(
    registration: Annotated[
        UUID | None, typer.Argument(help="Only this one's, with the text that was sent.")
    ] = None,
    data: Data = None,
    url: Annotated[str | None, typer.Option(help="Notification's public address instead.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="KAOWU_TOKEN", help="Of the office, where --url is given.")
    ] = None,
    *,
    use_given: Annotated[
        bool, typer.Option("--given", help="The system the environment names, by its database.")
    ] = False,
    site: Annotated[str | None, typer.Option(help="Only the people of this desk.")] = None,
    occasion: Annotated[str | None, typer.Option(help="Only of this: closing-soon, expired, …")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Of each list, at most so many lines.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Who was told, by which channel and carrier, whether the promise for the last day is kept, and whom nothing reached."""
    if occasion is not None and occasion not in OCCASIONS:
        raise typer.BadParameter(
            f"no such occasion; there are {', '.join(OCCASIONS)}", param_hint="--occasion"
        )

    async def ask() -> dict[str, Any]:
        async with _asked(data, url, token, use_given=use_given) as notification:
            if registration is not None:
                return await notification.get(f"/registrations/{registration}/messages")
            return await _overview(notification, site, occasion, limit)

    try:
        found = asyncio.run(ask())
    except CannotShow as error:
        typer.echo(f"kaowu: {error}", err=True)
        raise SystemExit(1) from None
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=1))
    elif registration is not None:
        show_one(console_of_office(), found)
    else:
        show_all(console_of_office(), found)
        if site is not None or occasion is not None:
            typer.echo(
                "承诺与承运商两表为全部考生的 · the promise and the carriers are everybody's", err=True
            )
        if site is not None and not found["funnel"]["items"]:
            typer.echo(
                f"nobody of a desk {site} was told anything: kaowu cycle show has the desks' names", err=True
            )


@asynccontextmanager
async def _asked(
    data: Path | None, url: str | None, token: str | None, *, use_given: bool
) -> AsyncIterator[Asked | Given]:
    """The service that runs; of a system that was left, or that the environment names, its database."""
    from deploy.cli import latest_data  # noqa: PLC0415  it imports this module

    async with AsyncExitStack() as stack:
        if use_given:
            if data is not None or url is not None:
                raise CannotShow("--given names the system by the environment: without --data and --url")
            yield await stack.enter_async_context(given(os.environ))
            return
        if url is None:
            data = data or latest_data()
            with suppress(InUse):
                yield await stack.enter_async_context(left(data, say=_say))
                return
        asked = asking("notification", data, url, token, subject="kaowu-messages")
        yield await stack.enter_async_context(asked)


def _say(line: str) -> None:
    typer.echo(line, err=True)


async def _overview(
    notification: Asked | Given, site: str | None, occasion: str | None, limit: int
) -> dict[str, Any]:
    chosen = "".join(
        f"&{name}={value}" for name, value in (("site_id", site), ("occasion", occasion)) if value
    )
    of_site = f"&site_id={site}" if site else ""
    return {
        "promise": await notification.get("/office/messages/promise"),
        "funnel": await notification.get(f"/office/messages/funnel?{chosen}"),
        "providers": await notification.get("/office/messages/providers"),
        "undelivered": await notification.get(f"/office/messages/undelivered?limit={limit}{chosen}"),
        "calls": await notification.get(f"/office/messages/calls?limit={limit}{of_site}"),
    }


def show_all(console: Console, found: Mapping[str, Any]) -> None:
    """Every table, and under the lists whether there is more."""
    console.print(promise(found["promise"]))
    console.print(burn(found["promise"]))
    console.print(funnel(found["funnel"]["items"]))
    console.print(providers(found["providers"]["items"]))
    for table, name in ((undelivered, "undelivered"), (calls, "calls")):
        console.print(table(found[name]["items"]))
        if found[name]["next"] is not None:
            console.print(Text("… 更多: --limit, --site, --json", style="dim"))


def show_one(console: Console, found: Mapping[str, Any]) -> None:
    """One person's messages: how each stands, and under it the text as it was sent."""
    if not found["items"]:
        console.print(Text(f"没有发给 {found['registration_id']} 的消息 · no messages", style="dim"))
    for item in found["items"]:
        head = (
            f"{_when(item['created_at'])}  {OCCASIONS[item['occasion']]} {item['occasion']} · {CHANNELS[item['channel']]}"
            f"{' ' + item['provider'] if item['provider'] else ''} · {_STATES[item['state']]} {_when(item['at'])}"
            f"{' ' + item['reason_code'] if item['reason_code'] else ''}"
        )
        console.print(Text(head, style="bold"), soft_wrap=True)
        if item["subject"]:
            console.print(Text(f"  {item['subject']}"), soft_wrap=True)
        for line in (item["text"] or "（尚未成文 · not yet written）").splitlines():
            console.print(Text(f"  {line}"), soft_wrap=True)


def promise(found: Mapping[str, Any]) -> Table:
    table = _table(
        f"末日提醒送达承诺：截止前 {found['hours_before']} 小时确认 {found['goal']:.2%}",
        "缴费截止", "承诺时刻", "人数", "已确认", "短信", "仅邮件", "逾时", "未送达", "等待", "已改期", "比例",
        "预算已用", "达成",
    )  # fmt: skip
    counted = ("people", "confirmed", "by_sms", "by_email_only", "late", "failed", "waiting", "moved")
    for close in found["closes"]:
        table.add_row(
            _when(close["closes_at"]),
            _when(close["promised_for"]),
            *(str(close[name]) for name in counted),
            "" if close["share"] is None else f"{close['share']:.2%}",
            "" if close["budget_spent"] is None else f"{close['budget_spent']:.0%}",
            {True: "✓", False: "✗", None: "…"}[close["kept"]],
        )
    return table


def burn(found: Mapping[str, Any]) -> Text:
    """Both paces on one line; red while one burns."""
    rates = " · ".join(
        f"{_PACES[one['pace']]} {one['long_seconds'] // 60}/{one['short_seconds'] // 60} 分钟 "
        f"{one['long']:.1f}/{one['short']:.1f}（警戒 {one['factor']:g}）"
        for one in found["burn"]
    )
    return Text(f"预算消耗速度 burn rate: {rates}\n", style="red" if found["burning"] else "")


def funnel(items: Sequence[Mapping[str, Any]]) -> Table:
    """One line per occasion, channel and carrier; a column per state."""
    table = _table("消息", "事项", "渠道", "承运", *_STATES.values(), "合计", "短信条数", "可能重复")
    lines: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(dict)
    for item in items:
        lines[item["occasion"], item["channel"], item["provider"] or ""][item["state"]] = item
    for (occasion, channel, provider), by_state in lines.items():
        table.add_row(
            OCCASIONS[occasion],
            CHANNELS[channel],
            provider,
            *(str(by_state[state]["messages"]) if state in by_state else "" for state in _STATES),
            *(
                str(sum(item[name] for item in by_state.values()) or "")
                for name in ("messages", "parts", "ambiguous")
            ),
        )
    return table


def providers(items: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("短信承运商", "承运", "份额 %", "设定 %", "状态", "请求", "失败", "慢", "原因")
    for item in items:
        table.add_row(
            item["provider"],
            f"{item['share']:g}",
            f"{item['configured_share']:g}",
            _CIRCUITS[item["circuit"]],
            *(str(item[name]) for name in ("tries", "failed", "slow")),
            item["why"] or "",
            style="" if item["well"] else "red",
        )
    return table


def undelivered(items: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "未送达", "registration", "报名点", "事项", "渠道", "发往", "原因", "时间", "另一渠道", "电话名单"
    )
    for item in items:
        table.add_row(
            item["registration_id"],
            item["site_id"] or "",
            OCCASIONS[item["occasion"]],
            CHANNELS[item["channel"]],
            item["address"] or "",
            item["reason"],
            _when(item["at"]),
            "已送达" if item["told_otherwise"] else "",
            "在" if item["on_call_list"] else "",
        )
    return table


def calls(items: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("待电话通知", "registration", "报名点", "事项", "电话", "原因", "最迟", "已试")
    for item in items:
        table.add_row(
            item["registration_id"],
            item["site_id"] or "考点",
            OCCASIONS[item["occasion"]],
            item["phone"] or "",
            item["reason"],
            _when(item["call_by"]),
            str(item["attempts"]),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold", no_wrap=column == "registration")
    return table


def _when(moment: str | None) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(_BEIJING):%m-%d %H:%M}" if moment else ""

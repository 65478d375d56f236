"""`kaowu reconcile show`: what the office sees of the gateways' bills, as a table in a terminal."""

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.asking import CannotShow, asking, console_of_office
from deploy.local.data_directory import InUse, Mismatch

app = typer.Typer(help="The gateways' bills against our book.", no_args_is_help=True)

_MOST = 5000  # breaks
_STATES = {"reconciled": "已对账", "no-bill": "无账单", "waiting": "等待账单", "not-over": "当日未结束"}


@app.command()
def show(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="The system's directory, as it runs or was left; default: what ran last."
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Payment's public address instead.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="KAOWU_TOKEN", help="Of the office, where --url is given.")
    ] = None,
    use_given: Annotated[
        bool, typer.Option("--given", help="The system the environment names, by its database.")
    ] = False,
    closed: Annotated[bool, typer.Option(help="The closed breaks instead of the open ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Days, sums and breaks. Exit 1 while the money does not balance or a break is open."""
    console = console_of_office()
    try:
        if use_given and (data is not None or url is not None):
            raise CannotShow("--given names the system by the environment: without --data and --url")
        found = asyncio.run(_report(data, url, token, use_given=use_given, closed=closed))
    except CannotShow as error:
        typer.echo(f"kaowu: {error}", err=True)
        raise SystemExit(1) from None
    well = found["balanced"] and not found["open_breaks"]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        console.print(days(found["days"]))
        console.print(totals(found["totals"]))
        if found["breaks"]:
            console.print(breaks(found["breaks"], closed=closed))
        console.print(
            f"{'ok  ' if well else 'open'} {'收支平衡' if found['balanced'] else '收支不平衡'} · "
            f"未处理差错 {found['open_breaks']}"
        )
    if not well:
        raise SystemExit(1)


async def _report(
    data: Path | None, url: str | None, token: str | None, *, use_given: bool, closed: bool
) -> dict[str, Any]:
    """Of the service that runs; of a system that was left (a rehearsal's) or is given, from its database."""
    from deploy.cli import latest_data  # noqa: PLC0415  it imports this module

    if use_given:
        return await _by_database(None, closed=closed)
    if url is None:
        data = data or latest_data()
        with suppress(InUse):
            return await _by_database(data, closed=closed)
    async with asking("payment", data, url, token, subject="kaowu-reconcile-show") as payment:
        return await payment.get(f"/office/reconciliation?limit={_MOST}&closed={str(closed).lower()}")


async def _by_database(data: Path | None, *, closed: bool) -> dict[str, Any]:
    """Of the local system that was left there; None: of the one that the environment names."""
    from pydantic_core import to_jsonable_python  # noqa: PLC0415  `kaowu --help` need not wait for them

    from deploy.evidence.reaching import CannotProve, given, local  # noqa: PLC0415
    from deploy.replay.standing import CannotLook  # noqa: PLC0415
    from services.payment.handlers import balancing  # noqa: PLC0415

    def say(line: str) -> None:
        typer.echo(line, err=True)

    try:
        async with given(os.environ) if data is None else local(data, say=say, stopped=True) as reach:
            found = await balancing.report(
                reach.payment, reach.cycle, frozenset(reach.keys), after=0, limit=_MOST, closed=closed
            )
    except (CannotProve, CannotLook, Mismatch) as error:
        raise CannotShow(str(error)) from None
    shown: dict[str, Any] = to_jsonable_python(found)
    return shown


def days(found: list[dict[str, Any]]) -> Table:
    table = Table(
        "日期", "渠道", "状态", "行", "相符", "有说明", "差错", "账单收款", "账本收款", "已退", "平",
        title="每日对账", title_justify="left",
    )  # fmt: skip
    for day in found:
        if day["state"] == "not-over" and not day["received"]:
            continue
        waits = day.get("waits")
        table.add_row(
            day["day"],
            day["channel"],
            _STATES[day["state"]] + (f" {waits['gateway_code']}" if waits else ""),
            *(str(day.get(name, "")) for name in ("lines", "matched", "explained", "breaks")),
            _yuan(day.get("billed")),
            _yuan(day["received"]),
            _yuan(day["refunded"]),
            "✓" if day["balanced"] else "✗",
        )
    return table


def totals(found: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(
        "渠道", "收款", "报名费", "已缴费者应缴", "已退", "待退", "未判定", "平", title="合计（元）",
        title_justify="left",
    )  # fmt: skip
    for name, money in sorted(found.items(), key=lambda one: one[0] == "all"):
        table.add_row(
            "全部" if name == "all" else name,
            *(
                _yuan(money[what])
                for what in ("received", "paid", "owed_by_the_paid", "refunded", "due", "held")
            ),
            "✓" if money["balanced"] else "✗",
        )
    return table


def breaks(found: list[dict[str, Any]], *, closed: bool) -> Table:
    table = Table(
        "编号", "日期", "渠道", "差错", "订单号", "账单", "账本", "现状",
        title="已处理的差错" if closed else "未处理的差错", title_justify="left",
    )  # fmt: skip
    for one in found:
        table.add_row(
            one["break_id"],
            one["day"],
            one["channel"],
            one["words"],
            one["order_no"],
            _yuan(one["billed_fen"]),
            _yuan(one["booked_fen"]),
            "账本已有" if one["in_ledger_now"] else (one["state_now"] or ""),
        )
    return table


def _yuan(fen: int | None) -> str:
    return "" if fen is None else f"{fen / 100:,.2f}"

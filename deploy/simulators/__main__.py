"""`python -m deploy.simulators`: the simulated outside as one process.

Says where it is in one line of JSON, then serves.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from deploy.simulators.aliyun import read_templates
from deploy.simulators.world import Plan, Simulators
from services.chassis.clock import Clock, RehearsalClock, SystemClock

_ENV = "KAOWU_SIMULATORS_"


def main(
    *,
    keys: Annotated[Path, typer.Option(envvar=_ENV + "KEYS", help="Keys and account files; made if absent.")],
    data: Annotated[Path, typer.Option(envvar=_ENV + "DATA", help="Books, mailbox and simulators.json.")],
    clock_file: Annotated[
        Path | None, typer.Option(envvar="KAOWU_CLOCK_FILE", help="Virtual time; the machine's if not given.")
    ] = None,
    wechat_port: Annotated[int, typer.Option(envvar=_ENV + "WECHAT_PORT")] = 0,
    alipay_port: Annotated[int, typer.Option(envvar=_ENV + "ALIPAY_PORT")] = 0,
    sms_port: Annotated[int, typer.Option(envvar=_ENV + "SMS_PORT")] = 0,
    tencent_port: Annotated[int, typer.Option(envvar=_ENV + "TENCENT_PORT")] = 0,
    smtp_port: Annotated[int, typer.Option(envvar=_ENV + "SMTP_PORT")] = 0,
    control_port: Annotated[int, typer.Option(envvar=_ENV + "CONTROL_PORT")] = 0,
    receipts_url: Annotated[
        str | None, typer.Option(envvar=_ENV + "RECEIPTS_URL", help="May be set later at the control port.")
    ] = None,
    tencent_receipts_url: Annotated[
        str | None, typer.Option(envvar=_ENV + "TENCENT_RECEIPTS_URL", help="The second carrier's.")
    ] = None,
    receipt_delay: Annotated[
        float,
        typer.Option(envvar=_ENV + "RECEIPT_DELAY", help="Clock seconds from a message to its receipt."),
    ] = 2,
    receipt_grid: Annotated[
        float, typer.Option(envvar=_ENV + "RECEIPT_GRID", help="Receipts come at multiples of this; 0: none.")
    ] = 5,
    templates: Annotated[
        Path | None, typer.Option(envvar=_ENV + "TEMPLATES", help="Approved SMS texts: JSON, code → text.")
    ] = None,
    tencent_templates: Annotated[
        Path | None, typer.Option(envvar=_ENV + "TENCENT_TEMPLATES", help="The same at the second carrier.")
    ] = None,
) -> None:
    """Run the WeChat Pay and Alipay gateways, the SMS carriers and the mailbox until SIGTERM or Ctrl-C."""
    plan = Plan(
        keys=keys,
        data=data,
        wechat_port=wechat_port,
        alipay_port=alipay_port,
        sms_port=sms_port,
        tencent_port=tencent_port,
        smtp_port=smtp_port,
        control_port=control_port,
        receipts_url=receipts_url,
        tencent_receipts_url=tencent_receipts_url,
        receipt_delay=timedelta(seconds=receipt_delay),
        receipt_grid=timedelta(seconds=receipt_grid),
        templates=read_templates(templates) if templates else {},
        tencent_templates=read_templates(tencent_templates) if tencent_templates else {},
    )
    clock: Clock = RehearsalClock(clock_file) if clock_file else SystemClock()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(plan, clock))


async def _serve(plan: Plan, clock: Clock) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Simulators(plan, clock) as world:
        world.record_whereabouts()
        sys.stdout.write(json.dumps(world.whereabouts()) + "\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    typer.run(main)

"""The simulators as `deploy/local` starts them: one process, one line that says where everything is, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2

from services.chassis.clock import ClockControl, RehearsalClock
from services.notification.adapters.smtp import SmtpAccount, SmtpMail
from services.notification.ports import Letter
from services.payment.adapters.wechat import WeChatPay
from services.payment.adapters.wechat_signatures import WeChatAccount
from services.payment.ports import OrderState
from tests.support.eventually import eventually

START = datetime(2024, 2, 8, 15, 0, 0, tzinfo=UTC)


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.simulators", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    try:
        line = await asyncio.wait_for(started.stdout.readline(), 20)
        yield started, json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def test_a_rehearsal_jumps_the_clock_from_callback_to_callback(
    session_directory: Path, tmp_path: Path
) -> None:
    clock_file = tmp_path / "clock"
    control = ClockControl(clock_file, START)
    keys, data = session_directory / "simulator-keys", tmp_path / "data"
    arguments = ("--keys", str(keys), "--data", str(data), "--clock-file", str(clock_file))
    async with process(*arguments) as (started, where):
        assert json.loads((data / "simulators.json").read_text()) == where
        clock = RehearsalClock(clock_file)
        wechat = WeChatPay(
            WeChatAccount.read(Path(where["accounts"]["wechat"])),
            notify_url="http://127.0.0.1:9/nobody",
            clock=clock,
        )
        await wechat.place_order("20240208000000000001", 20000, "考试报名费", START + timedelta(hours=1))
        async with httpx2.AsyncClient(base_url=where["control"], trust_env=False) as client:
            body = {"out_trade_no": "20240208000000000001", "callbacks": [30]}
            paid = (await client.post("/sim/wechat/pay", json=body)).json()
            assert datetime.fromisoformat(paid["paid_at"]) == START

            async def rest() -> Any:
                answer = (await client.get("/sim/rest")).json()
                return answer if answer["pending_now"] == 0 else None

            moment = datetime.fromisoformat((await eventually(rest))["next_at"])
            assert moment == START + timedelta(seconds=30)
            control.jump(moment)
            # Nobody listens: the first repeat is due a quarter of a minute after the jump.
            again = await eventually(lambda: _when(rest, moment))
            assert again == moment + timedelta(seconds=15)
        assert (await wechat.query("20240208000000000001")).state is OrderState.PAID
        await wechat.aclose()
        mail = SmtpMail(SmtpAccount.read(Path(where["accounts"]["smtp"])), clock=clock)
        await mail.send("a@example.cn", Letter("考试通知", "正文"), str(UUID(int=1)))
        started.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(started.wait(), 5) == 0
        await mail.aclose()


async def _when(rest: Any, moment: datetime) -> datetime | None:
    answer = await rest()
    if answer is None or answer["next_at"] is None:
        return None
    found = datetime.fromisoformat(answer["next_at"])
    return found if found > moment else None


async def test_a_taken_port_is_no_failure(session_directory: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        keys = session_directory / "simulator-keys"
        arguments = ("--keys", str(keys), "--data", str(tmp_path), "--control-port", str(port))
        async with process(*arguments) as (started, where):
            assert where["control"] != f"http://127.0.0.1:{port}"
            started.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(started.wait(), 5) == 0

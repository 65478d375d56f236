"""The simulated carrier's receipts: batched on a grid of clock time, repeated, remembered over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.simulators.aliyun import DEAD_PREFIX, read_templates
from services.notification.adapters.aliyun import AliyunAccount, AliyunSms
from services.notification.ports import Rejected
from tests.simulators.outside import START, Outside, outside


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        yield stage


async def send(stage: Outside, *numbers: str, template: str = "SMS_1") -> None:
    sms = AliyunSms(AliyunAccount.read(stage.world.accounts["aliyun"]), clock=stage.clock)
    await asyncio.gather(*(sms.send(to, template, {"v": "1"}, "", f"r-{to}") for to in numbers))
    await sms.aclose()


async def book(stage: Outside, query: str = "") -> dict[str, Any]:
    return await stage.control("/sim/sms/book" + query)


async def test_receipts_of_one_moment_come_together_at_the_next_grid_moment(stage: Outside) -> None:
    stage.clock.move(seconds=1)
    await send(stage, "13800000001", "13800000002")
    stage.clock.move(seconds=1)
    await send(stage, "13800000003")
    assert (await stage.at_rest())["receipts_waiting"] == 3
    await stage.play(timedelta(minutes=1))
    assert stage.listener.moments() == [5]
    states = (await book(stage))["totals"]
    assert states == {"messages": 3, "delivered": 3}


async def test_without_delay_receipts_are_due_at_once(session_directory: Path, tmp_path: Path) -> None:
    """The clock stands still in a rehearsal: then receipts need no moment of their own."""
    async with outside(
        session_directory / "simulator-keys", tmp_path, receipt_delay=timedelta(0), receipt_grid=timedelta(0)
    ) as stage:
        await send(stage, "13800000001", "13800000002")
        await stage.at_rest()
        await send(stage, "13800000003")
        await stage.at_rest()
        assert stage.listener.moments() == [0, 0]
        assert (await book(stage))["totals"] == {"messages": 3, "delivered": 3}


async def test_more_than_a_batch_comes_in_several(session_directory: Path, tmp_path: Path) -> None:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        await send(stage, *(f"138{n:08d}" for n in range(501)))
        await stage.play(timedelta(minutes=1))
        assert len(stage.listener.heard) == 2


async def test_an_unanswered_push_is_repeated_after_one_five_and_ten_minutes(stage: Outside) -> None:
    stage.listener.answers = [500] * 10
    await send(stage, "13800000001")
    await stage.play(timedelta(hours=2))
    assert stage.listener.moments() == [5, 65, 365, 965]
    found = await book(stage)
    assert found["receipts"] == {"pushed": 0, "given_up": 1}
    assert found["totals"] == {"messages": 1, "delivered": 1}, "it arrived; only nobody was told"


async def test_receipts_wait_until_somebody_says_where_to(session_directory: Path, tmp_path: Path) -> None:
    async with outside(session_directory / "simulator-keys", tmp_path, receipts_url=None) as stage:
        await send(stage, "13800000001")
        await stage.play(timedelta(seconds=30))
        assert stage.listener.heard == []
        await stage.control("/sim/sms/receipts-url", {"url": f"{stage.listener.url}/receipts"})
        await stage.play(timedelta(minutes=2))
        assert stage.listener.moments() == [65]


async def test_while_the_carrier_is_down_receipts_wait(stage: Outside) -> None:
    await send(stage, "13800000001")
    await stage.control("/sim/sms/down", {"seconds": 3600})
    await stage.play(timedelta(hours=2))
    assert stage.listener.moments() == [3600]


async def test_the_book_is_read_in_pages_and_remembered_over_a_restart(
    session_directory: Path, tmp_path: Path
) -> None:
    keys = session_directory / "simulator-keys"
    async with outside(keys, tmp_path) as stage:
        await send(stage, "13800000001", DEAD_PREFIX + "0001", "13800000003")
        await stage.play(timedelta(minutes=1))
        before = (await book(stage))["messages"]
        first = await book(stage, "?limit=2")
        second = await book(stage, f"?limit=2&after={first['next']}")
        assert first["messages"] + second["messages"] == before
        assert second["next"] is None
        assert sorted(message["state"] for message in before) == ["delivered", "delivered", "undelivered"]
    async with outside(keys, tmp_path) as stage:
        assert (await book(stage))["messages"] == before


async def test_templates_are_read_from_a_file(session_directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "templates.json"
    file.write_text('{"SMS_1": "考生${v}"}', encoding="utf-8")
    templates = read_templates(file)
    async with outside(session_directory / "simulator-keys", tmp_path, templates=templates) as stage:
        await send(stage, "13800000001")
        assert (await book(stage))["messages"][0]["text"] == "考生1"
        with pytest.raises(Rejected, match="SMS_TEMPLATE_ILLEGAL"):
            await send(stage, "13800000001", template="SMS_2")


async def test_rest_names_the_moment_of_the_next_receipt(stage: Outside) -> None:
    await send(stage, "13800000001")
    rest = await stage.at_rest()
    assert datetime.fromisoformat(rest["next_at"]) == START + timedelta(seconds=5)

"""`kaowu close show`: an engineer at night reads in one screen where the close stands, whom it waits for and what to publish."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy import close_commands
from deploy.evidence.reaching import Reach
from services.chassis.vault import Vault
from tests.service.payment.system import CLOSES, System
from tests.service.payment.two_people import DECIDES, Office

LAST = "2024-02-08 23:57:59"


async def test_the_terminal_shows_where_the_close_stands_and_who_is_held(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @asynccontextmanager
    async def here(*_: object, **__: object) -> AsyncIterator[Reach]:
        vault = Vault.open(system.settings.vault_keys_file, "local")
        yield Reach(system.cycle, system.database, system.database, vault, {})

    async def shown(*, as_json: bool = False) -> str:
        assert await close_commands.show(tmp_path, use_given=False, as_json=as_json) == 0
        return capsys.readouterr().out

    monkeypatch.setattr(close_commands, "reach_of", here)
    sleeper, orderer = await system.approved(2)
    system.at(LAST)
    order_no = await system.ordered(orderer)
    assert "未到截止 open · 截止 2024-02-09 00:00:00" in await shown()
    await system.write("update obligations set site_id = 'shizhong'")
    office = Office(system)
    decision = await office.asked(site="ebian")
    said = await shown()
    assert "待办结 deciding: 变更缴费截止，报名点 ebian截止改为 2024-02-11 00:00:00" in said
    assert "待第二人批准" in said
    path = f"/office/decisions/{decision['decision_id']}/reject"
    assert (await office.call(DECIDES, "POST", path)).status_code == 200
    assert "待办结" not in await shown()
    system.at(CLOSES)
    system.gateway_down(3600)
    await system.close()
    text = await shown()
    assert "待核：支付渠道未答复" in text
    assert str(orderer) in text
    assert order_no in text
    assert str(sleeper) not in text
    report = await system.office("close")
    assert report["state"] == "closed"
    assert f"凭据根 proof_root: {report['roots'][0]['proof_root']}" in text
    assert "（1 份凭据，2024-02-09 00:00:00）" in text
    assert json.loads("{" + (await shown(as_json=True)).partition("{\n")[2]) == report

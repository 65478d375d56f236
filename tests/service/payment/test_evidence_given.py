"""`kaowu evidence --given`, `kaowu close preview --given`: the system that the environment names, as its office runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from deploy.evidence import commands
from deploy.evidence.reaching import Reach
from deploy.evidence.verifying import verify_file
from tests.service.payment.proving import forfeited, root_of
from tests.service.payment.system import CYCLE_FILE, System
from tests.service.payment.two_people import ASKS, Office

REACHING = (
    "PAYMENT_DATABASE_URL",
    "NOTIFICATION_DATABASE_URL",
    "KAOWU_CYCLE_FILE",
    "PAYMENT_VAULT_KEYS_FILE",
)


@pytest.fixture
def environ(system: System, reach: Reach, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the services of this system are told."""
    named = {
        "PAYMENT_DATABASE_URL": system.settings.database_url,
        "NOTIFICATION_DATABASE_URL": reach.notification.url,
        "KAOWU_CYCLE_FILE": str(CYCLE_FILE),
        "PAYMENT_VAULT_KEYS_FILE": str(system.settings.vault_keys_file),
        "PAYMENT_WECHAT_ACCOUNT_FILE": str(system.world.accounts["wechat"]),
        "PAYMENT_ALIPAY_ACCOUNT_FILE": str(system.world.accounts["alipay"]),
        "KAOWU_ENVIRONMENT": "local",
    }
    for name in named:
        monkeypatch.delenv(name, raising=False)
    return named


async def typed(environ: Mapping[str, str], *words: str) -> tuple[int, str, str]:
    """Exit code, what is for the file or pipe, what is for the person."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.cli", *words, env={**os.environ, **environ}, stdout=PIPE, stderr=PIPE
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), " ".join(error.decode().split())


async def test_a_file_of_the_given_system_is_written_and_holds(
    system: System, reach: Reach, environ: dict[str, str], tmp_path: Path
) -> None:
    candidate = await forfeited(system, reach, others=2)
    file = tmp_path / "forfeiture.json"
    code, _, said = await typed(environ, "evidence", str(candidate), "--given", "-o", str(file))
    assert (code, "check it with: kaowu evidence verify" in said) == (0, True), said
    content = json.loads(file.read_bytes())
    assert content["registration_id"] == str(candidate)
    assert {order["channel"] for order in content["orders"]} == {"wechat", "alipay"}
    assert verify_file(file, await root_of(system)).problems == []
    assert "taken back" not in said
    # What happened stays proven after two people have lifted it; whoever writes the file is told.
    office = Office(system)
    body = {"kind": "revive", "registration_id": str(candidate), "reason": "住院，有证明"}
    decision = (await office.call(ASKS, "POST", "/office/decisions", body)).json()
    await office.approve(decision)
    await system.carry_out_job.run()
    code, _, said = await typed(environ, "evidence", str(candidate), "--given", "-o", str(file))
    assert (code, "this forfeiture was taken back: the registration is awaiting now" in said) == (0, True), (
        said
    )


async def test_what_is_missing_or_wrong_is_named_and_nothing_is_written(
    system: System,
    reach: Reach,
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    candidate = await forfeited(system, reach, others=0)
    file = tmp_path / "forfeiture.json"
    other_cycle = tmp_path / "other.toml"
    other_cycle.write_text(
        CYCLE_FILE.read_text(encoding="utf-8").replace('name = "2024', 'name = "改2024', 1), encoding="utf-8"
    )
    broken_vault = tmp_path / "vault.json"
    broken_vault.write_text("{}", encoding="utf-8")
    broken_vault.chmod(0o600)

    async def refused(named: Mapping[str, str], who: UUID) -> str:
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        assert await commands.write(tmp_path, who, file, use_given=True) == 1
        return " ".join(capsys.readouterr().err.split())

    for change, why in (
        (dict.fromkeys(REACHING, ""), f"set {', '.join(REACHING)} to say which system is meant"),
        ({"PAYMENT_VAULT_KEYS_FILE": ""}, "set PAYMENT_VAULT_KEYS_FILE to say"),
        ({"KAOWU_CYCLE_FILE": str(other_cycle)}, "the cycle file is not the one that this close went by"),
        ({"PAYMENT_VAULT_KEYS_FILE": str(broken_vault)}, "no evidence was written: "),
        ({"PAYMENT_ALIPAY_ACCOUNT_FILE": ""}, "the alipay account has no key"),
        (
            {"PAYMENT_DATABASE_URL": "postgresql+asyncpg://payment:x@127.0.0.1:9/payment"},
            "payment's database does not answer",
        ),
    ):
        assert why in await refused({**environ, **change}, candidate), change
        assert not file.exists()
    assert "was never forfeited" in await refused(environ, uuid7())


async def test_the_dry_run_of_the_given_system_is_the_offices_list(
    system: System,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sleeper, orderer = await system.approved(2)
    order_no = await system.ordered(orderer)
    code, out, said = await typed(environ, "close", "preview", "--given", "--json")
    assert code == 0, said
    shown = json.loads(out)
    office = await system.office("close/preview")
    assert [one["registration_id"] for one in shown["items"]] == [
        one["registration_id"] for one in office["items"]
    ]
    assert [one["would"] for one in shown["items"]] == [one["would"] for one in office["items"]]
    assert shown["totals"]["forfeit"] == office["totals"]["forfeit"]
    code, out, said = await typed(environ, "reconcile", "show", "--given", "--json")
    assert code == 0, said
    assert json.loads(out)["totals"] == (await system.office("reconciliation"))["totals"]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert await commands.preview(Path(), None, use_given=True, as_json=False) == 0
    out = capsys.readouterr().out
    assert "视为自动放弃" in out
    assert str(sleeper) in out
    assert order_no in out
    assert {await system.status(one) for one in (sleeper, orderer)} == {"awaiting"}, (
        "a dry run changes nothing"
    )
    looks = await system.rows("select actor from audit where action = 'close-previewed' order by id")
    assert [row["actor"] for row in looks] == [
        "kaowu close preview",
        "account-of-office",
        "kaowu close preview",
    ]
    monkeypatch.delenv("PAYMENT_DATABASE_URL")
    assert await commands.preview(Path(), None, use_given=True, as_json=False) == 1
    assert "nothing was looked at: set PAYMENT_DATABASE_URL to say which system" in capsys.readouterr().err

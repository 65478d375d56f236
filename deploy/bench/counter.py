"""What the payment service is told here: keys of its own, a cycle, and a gateway that answers on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from contracts.cycle import Cycle
from deploy.bench.contender import ROOT
from deploy.bench.owing import SERVICE
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from deploy.simulators.credentials import Credentials

CYCLE_FILE: Final = ROOT / "deploy" / "cycles" / "2024-health-leshan.toml"
MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00")
NOWHERE: Final = "http://127.0.0.1:9"  # nobody listens there


def credentials(stage: Stage) -> Credentials:
    """The simulated gateway's keys and ours."""
    return Credentials.of(stage.directory / "gateway-keys")


def cycle_that_closes(stage: Stage, closes_at: datetime) -> Path:
    """The cycle of Leshan with every moment moved by the same, so that payment closes then (to the second)."""
    text = CYCLE_FILE.read_text(encoding="utf-8")
    moved = closes_at - Cycle.read(CYCLE_FILE).windows.payment.closes

    def later(found: re.Match[str]) -> str:
        moment = datetime.fromisoformat(found[0]) + moved
        # A cycle refuses that word, whatever it means: the same moment as another clock shows it.
        return (moment.astimezone(UTC) if (moment.hour, moment.minute) == (23, 59) else moment).isoformat()

    path = stage.directory / f"cycle-{stage.number()}.toml"
    path.write_text(MOMENT.sub(later, text), encoding="utf-8")
    assert abs(Cycle.read(path).windows.payment.closes - closes_at) < timedelta(seconds=1)
    return path


def environment(
    stage: Stage,
    login: DatabaseLogin,
    cycle_file: Path,
    *,
    gateway_url: str = NOWHERE,
    port: int = 0,
    internal_port: int = 0,
) -> Mapping[str, str]:
    """Of `python -m services.payment`, or of a program that puts it together itself."""
    keys = LocalKeys.of(stage.directory / "keys", [SERVICE])
    accounts = credentials(stage).write_account_files(gateway_url, gateway_url, NOWHERE, 9, NOWHERE)
    return {
        "KAOWU_ENVIRONMENT": "local",
        "KAOWU_CYCLE_FILE": str(cycle_file),
        "KAOWU_TOKEN_KEYS_FILE": str(keys.token_keys_file),
        "KAFKA_BOOTSTRAP_SERVERS": stage.bootstrap,
        "PAYMENT_DATABASE_URL": login.url,
        "PAYMENT_VAULT_KEYS_FILE": str(keys.vault_file(SERVICE)),
        "PAYMENT_WECHAT_ACCOUNT_FILE": str(accounts["wechat"]),
        "PAYMENT_ALIPAY_ACCOUNT_FILE": str(accounts["alipay"]),
        "PAYMENT_NOTIFY_BASE_URL": f"http://127.0.0.1:{port}",
        "PAYMENT_PUBLIC_PORT": str(port),
        "PAYMENT_INTERNAL_PORT": str(internal_port),
    }

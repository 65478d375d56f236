"""The simulated outside of one local system: gateway, carrier and mailbox, as one process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.environment import ROOT, inherited
from deploy.local.processes import Child
from deploy.local.sms_texts import write_approved_texts


@dataclass(frozen=True, slots=True)
class Outside:
    """Where it is."""

    process: Child
    whereabouts: Mapping[str, Any]

    @property
    def control_url(self) -> str:
        """Local only: pay, replay, take down, read the books."""
        return str(self.whereabouts["control"])

    @property
    def wechat_url(self) -> str:
        return str(self.whereabouts["wechat"])

    @property
    def sms_url(self) -> str:
        return str(self.whereabouts["sms"])

    @property
    def mail_page(self) -> str:
        return str(self.whereabouts["mail_page"])

    @property
    def accounts(self) -> Mapping[str, str]:
        """The account files that services read: where the outside is, and with which keys."""
        accounts: Mapping[str, str] = self.whereabouts["accounts"]
        return accounts

    @property
    def authority(self) -> str:
        """The certificate of whoever vouches for the simulated relay."""
        return str(Path(self.accounts["smtp"]).with_name("authority.pem"))

    @property
    def bounces(self) -> str:
        """The maildir where mail lies that came back."""
        return str(self.whereabouts["bounces"])


class OutsideStart:
    """It makes its keys while database and broker start, so starting it comes in two halves."""

    def __init__(self, data: Path, keys: Path, log: Path) -> None:
        self.process = Child("simulators", log)
        self._data = data
        self._keys = keys

    def spawn(
        self,
        environ: Mapping[str, str],
        *,
        clock_file: Path | None,
        receipts_url: str | None,  # of the carrier whose name is put in for {carrier}
        earlier: Mapping[str, Any],
    ) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        self._written.unlink(missing_ok=True)
        # By environment: the receipts' address is a secret, and a command line is read by everyone on the machine.
        told = {"KAOWU_SIMULATORS_KEYS": str(self._keys), "KAOWU_SIMULATORS_DATA": str(self._data)}
        for name, carrier in (("TEMPLATES", "aliyun"), ("TENCENT_TEMPLATES", "tencent")):
            approved = write_approved_texts(self._data / f"approved-texts-{carrier}.json", carrier)
            told[f"KAOWU_SIMULATORS_{name}"] = str(approved)
        if receipts_url is not None:
            told["KAOWU_SIMULATORS_RECEIPTS_URL"] = receipts_url.format(carrier="aliyun")
            told["KAOWU_SIMULATORS_TENCENT_RECEIPTS_URL"] = receipts_url.format(carrier="tencent")
        if clock_file is not None:
            told["KAOWU_CLOCK_FILE"] = str(clock_file)
        # The ports of an earlier start, if they can be had: a second start is found where the first was.
        told |= _ports(earlier)
        self.process.start(
            [sys.executable, "-m", "deploy.simulators"], cwd=ROOT, env=inherited(environ) | told
        )

    async def ready(self, *, timeout: float = 60.0) -> Outside:
        deadline = time.monotonic() + timeout
        while not self._written.exists():
            if not self.process.alive:
                raise self.process.failure("did not start")
            if time.monotonic() > deadline:
                raise self.process.failure(f"did not say where they are within {timeout:.0f} s")
            await asyncio.sleep(0.03)
        return Outside(self.process, json.loads(self._written.read_text(encoding="utf-8")))

    @property
    def _written(self) -> Path:
        return self._data / "simulators.json"


def _ports(earlier: Mapping[str, Any]) -> dict[str, str]:
    found = {
        f"KAOWU_SIMULATORS_{name.upper()}_PORT": str(url).rpartition(":")[2]
        for name in ("wechat", "alipay", "sms", "tencent", "control")
        if (url := earlier.get(name))
    }
    if port := earlier.get("smtp", {}).get("port"):
        found["KAOWU_SIMULATORS_SMTP_PORT"] = str(port)
    return found

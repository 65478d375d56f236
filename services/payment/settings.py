"""Where payment runs: its accounts at the gateways and the address that these call back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from services.chassis.settings import ServiceSettings
from services.payment.repository.closing import CHUNK

NOTIFY_PATH = "/gateway/wechat/notify"
ALIPAY_NOTIFY_PATH = "/gateway/alipay/notify"


class Settings(ServiceSettings):
    """Read from PAYMENT_<FIELD>, else KAOWU_<FIELD>."""

    service: ClassVar[str] = "payment"

    wechat_account_file: Path = Field(description="JSON: gateway, app, merchant, and the files of its keys")
    alipay_account_file: Path | None = Field(
        default=None, description="the same of Alipay; without it nobody is offered Alipay"
    )
    notify_base_url: str = Field(description="where the gateway reaches the public listener, without a path")
    sweep_chunk: int = Field(
        default=CHUNK, ge=1, le=50_000, description="how many are forfeited in one transaction at the close"
    )

    @property
    def wechat_notify_url(self) -> str:
        return self.notify_base_url.rstrip("/") + NOTIFY_PATH

    @property
    def alipay_notify_url(self) -> str:
        return self.notify_base_url.rstrip("/") + ALIPAY_NOTIFY_PATH

    def external_endpoints(self) -> list[str]:
        """The gateways that orders would be made at."""
        files = [self.wechat_account_file, self.alipay_account_file]
        return [str(json.loads(file.read_text(encoding="utf-8"))["gateway_url"]) for file in files if file]

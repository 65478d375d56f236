"""Where notification runs: its carriers' accounts, the address of their receipts, and where contacts are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from services.chassis.settings import ServiceSettings


def sms_shares(of_tencent: float | None) -> dict[str, float]:
    """Per cent of the SMS by carrier, None: Aliyun is alone."""
    return {"aliyun": 100.0} if of_tencent is None else {"aliyun": 100.0 - of_tencent, "tencent": of_tencent}


class Settings(ServiceSettings):
    """Read from NOTIFICATION_<FIELD>, else KAOWU_<FIELD>."""

    service: ClassVar[str] = "notification"

    aliyun_account_file: Path = Field(
        description="JSON: endpoint, access key, signature, and the secret's file"
    )
    tencent_account_file: Path | None = Field(
        default=None,
        description="JSON: endpoint, key, application, signature, and the secret's file; without it Aliyun is alone",
    )
    sms_share_of_tencent: float = Field(
        default=50, ge=0, le=100, description="per cent of the SMS while both carriers are well"
    )
    sms_same_text_seconds: float = Field(
        default=30, ge=0, description="between two SMS of one text to one number"
    )
    sms_per_template: int = Field(
        default=50, ge=1, description="SMS of one text to one number in sliding 24 hours, at one carrier"
    )
    tencent_per_number: int | None = Field(
        default=10,
        ge=1,
        description="SMS to one number in a day of the calendar, as set in Tencent's console",
    )
    sms_parts_a_day: int | None = Field(
        default=None,
        ge=1,
        description="parts of SMS that may be paid for in a day; the last fifth is for the urgent",
    )
    receipts_pull_seconds: float = Field(
        default=60, ge=1, description="between two pulls of the receipts that a carrier keeps"
    )
    promise_share: float = Field(
        default=0.99,
        gt=0,
        lt=1,
        description="of the people reminded on the last day: confirmed six hours before the close",
    )
    smtp_account_file: Path = Field(description="JSON: host, port, security, sender, and the password's file")
    bounces_maildir: Path | None = Field(
        default=None,
        description="the maildir that mail to the return paths is delivered to; none: nobody reads it",
    )
    bounces_seconds: float = Field(default=60.0, ge=1, le=3600, description="how often it is read")
    receipts_secret_file: Path = Field(
        description="last part of the path that the carrier pushes receipts to"
    )
    registration_internal_url: str = Field(description="registration's internal listener, for contacts")
    service_token_file: Path
    sms_in_flight: int = Field(default=32, ge=1, le=256)
    mails_in_flight: int = Field(default=4, ge=1, le=64)
    delivery_pace_seconds: float = Field(
        default=0.0, ge=0, le=5, description="gather messages before sending"
    )

    def external_endpoints(self) -> list[str]:
        """The carriers that messages would go through."""
        accounts = [self.aliyun_account_file, self.tencent_account_file]
        sms = [json.loads(one.read_text(encoding="utf-8")) for one in accounts if one is not None]
        mail = json.loads(self.smtp_account_file.read_text(encoding="utf-8"))
        return [*(str(one["endpoint"]) for one in sms), f"{mail['host']}:{mail['port']}"]

"""What stops the service from starting, in a sentence for an operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.chassis.process import CannotStart
from services.notification import app
from services.notification.settings import Settings
from services.notification.templates import wording
from tests.service.notification.system import System


def _start(settings: Settings) -> str:
    with pytest.raises(CannotStart) as stopped:
        app.create_app(settings)
    return str(stopped.value)


async def test_a_bad_template_stops_the_start(
    system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wording.Wording.load.__func__, "__defaults__", (tmp_path,))  # type: ignore[attr-defined]  # a class method's function
    assert "expired/sms.zh.txt: missing" in _start(system.settings)


@pytest.mark.parametrize("content", [None, "short", "\u5bc6" * 20])
async def test_receipts_need_a_secret_address(system: System, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert "secret" in _start(system.settings.model_copy(update={"receipts_secret_file": path}))


async def test_virtual_time_meets_no_real_carrier(system: System, tmp_path: Path) -> None:
    account = tmp_path / "aliyun.json"
    account.write_text('{"endpoint": "https://dysmsapi.aliyuncs.com"}', encoding="utf-8")
    assert "dysmsapi.aliyuncs.com" in _start(
        system.settings.model_copy(update={"aliyun_account_file": account})
    )


async def test_a_mail_account_that_cannot_be_meant_stops_the_start(system: System, tmp_path: Path) -> None:
    account = tmp_path / "smtp.json"
    account.write_text(
        '{"host": "127.0.0.1", "port": 25, "security": "ssl", "sender": "a@b.cn", "sender_name": "x"}'
    )
    assert "security is one of none, starttls, tls" in _start(
        system.settings.model_copy(update={"smtp_account_file": account})
    )

"""What Aliyun pushes: receipts, read or refused."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.clock import SystemClock
from services.notification.adapters.aliyun import (
    AliyunAccount,
    AliyunSms,
)
from services.notification.ports import MalformedReceipts, Pushed, Receipt

PHONE = "13800001234"
RECEIPTS = AliyunSms(AliyunAccount("https://sms.test", "id", b"secret", "乐山考点"), clock=SystemClock())


def _receipt(**change: Any) -> dict[str, Any]:
    return {
        "phone_number": PHONE,
        "send_time": "2024-01-30 20:00:00",
        "report_time": "2024-01-30 20:00:05",
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": "用户接收成功",
        "sms_size": "1",
        "biz_id": "932702304080415357^0",
        "out_id": "message-1",
    } | change


def test_receipts_are_read_in_beijing_time() -> None:
    [receipt] = RECEIPTS.parse_receipts(json.dumps([_receipt()]).encode()).receipts
    assert receipt == Receipt(
        "message-1", "932702304080415357^0", True, "DELIVERED", datetime(2024, 1, 30, 12, 0, 5, tzinfo=UTC)
    )


def test_an_empty_push_has_no_receipts() -> None:
    assert RECEIPTS.parse_receipts(b"[]") == Pushed([], [])


@pytest.mark.parametrize(
    "written",
    [None, "", "2024-02-30 20:00:05", "2024-01-30 24:00:00", "2024-01-30T20:00:05", "20240130 200005"],
)
def test_a_receipt_without_a_moment_still_counts(written: object) -> None:
    [receipt] = RECEIPTS.parse_receipts(json.dumps([_receipt(report_time=written)]).encode()).receipts
    assert receipt.at is None
    assert receipt.delivered


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (4 * 1024 * 1024 + 1),
    ],
)
def test_a_push_in_another_form_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedReceipts):
        RECEIPTS.parse_receipts(body)


@pytest.mark.parametrize(
    "odd", [1, None, [], {}, _receipt(success="true"), _receipt(success=None), _receipt(out_id=None)]
)
def test_an_entry_that_cannot_be_read_costs_no_other_its_receipt(odd: object) -> None:
    body = json.dumps([_receipt(), odd, _receipt(out_id="message-2")]).encode()
    pushed = RECEIPTS.parse_receipts(body)
    assert [one.reference for one in pushed.receipts] == ["message-1", "message-2"]
    assert len(pushed.unreadable) == 1


def test_what_no_database_keeps_is_left_out_of_a_carriers_words() -> None:
    body = json.dumps([_receipt(err_code="DELI\x00VERED", biz_id="93\ud8002702^0")]).encode()
    [receipt] = RECEIPTS.parse_receipts(body).receipts
    assert (receipt.code, receipt.provider_ref) == ("DELIVERED", "932702^0")


@given(st.binary(max_size=200))
def test_whatever_is_pushed_is_read_or_refused(body: bytes) -> None:
    entries: object = None
    with contextlib.suppress(ValueError):
        entries = json.loads(body)
    if isinstance(entries, list):
        pushed = RECEIPTS.parse_receipts(body)
        assert len(pushed.receipts) + len(pushed.unreadable) == len(entries)
    else:
        with pytest.raises(MalformedReceipts):
            RECEIPTS.parse_receipts(body)

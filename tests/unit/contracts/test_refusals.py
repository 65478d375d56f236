"""How a service says no, and the coded reasons people read."""

from enum import StrEnum

import pytest

from contracts.reasons import Decision, ReasonCode, WindowReason, WithdrawalReason
from contracts.refusals import Code, FieldError, Refused

STATUS = {
    "invalid": 422,
    "documents-missing": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "other-site": 403,
    "not-found": 404,
    "too-large": 413,
    "too-soon": 429,
    "gateway-refused": 502,
    "unavailable": 503,
}
RULES_OF_THE_OFFICE = {
    "window-not-open",
    "window-closed",
    "desk-closed",
    "desk-undated",
    "already-registered",
    "form-outdated",
    "not-confirmed",
    "not-approved",
    "already-paid",
    "too-late-to-order",
    "not-allowed",
    "idempotency-conflict",
}


def test_every_code_has_its_status() -> None:
    assert {str(code): code.status for code in Code} == STATUS | dict.fromkeys(RULES_OF_THE_OFFICE, 409)


def test_a_refusal_says_what_is_wrong_and_where() -> None:
    refused = Refused(
        Code.INVALID, "手机号码不正确，请核对。", (FieldError("phone", "应为11位"),), {"tries": 2}
    )
    assert (refused.status, str(refused)) == (422, "手机号码不正确，请核对。")
    assert refused.fields[0].field == "phone"
    assert refused.hints == {"tries": 2}
    assert Refused(Code.WINDOW_CLOSED, "已截止").hints == {}


def test_the_form_for_logs_says_the_code_alone() -> None:
    assert repr(Refused(Code.INVALID, "张三的身份证号不正确")) == "Refused('invalid')"


@pytest.mark.parametrize("reasons", [ReasonCode, WithdrawalReason, WindowReason, Decision])
def test_every_reason_can_be_read(reasons: type[StrEnum]) -> None:
    texts = [reason.text for reason in reasons]  # type: ignore[attr-defined]  # StrEnum itself has no text
    assert len(set(texts)) == len(texts)
    assert all(text and not text.isascii() for text in texts)


def test_the_reasons_of_a_desk_are_those_of_the_office() -> None:
    assert [reason.text for reason in ReasonCode] == [
        "学历",
        "年限",
        "专业不符",
        "单位不符",
        "材料不全",
        "照片不合格",
        "表格非最新",
        "身份不符",
        "其他",
    ]

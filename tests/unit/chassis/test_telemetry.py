"""Nothing personal goes past the log."""

from __future__ import annotations

import pytest

from services.chassis.telemetry import mask, masking_processor


@pytest.mark.parametrize(
    "text",
    [
        "999001199001011234",
        "99900119900101123x",
        "id=999001199001011234;",
        "13800001111",
        "+8613800001111",
        "a.b@example.cn",
    ],
)
def test_id_numbers_phones_and_addresses_are_masked_by_pattern(text: str) -> None:
    masked = mask(f"before {text} after")
    assert "before" in masked
    assert "after" in masked
    assert not any(part in masked for part in ("19900101", "13800001111", "a.b@"))


def test_tokens_are_masked() -> None:
    assert "eyJ" not in mask("Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln")


def test_values_are_masked_by_key_at_any_depth_and_ids_stay() -> None:
    line = masking_processor(
        None,
        "info",
        {
            "event": "x",
            "phone": "1",
            "registration_id": "0192",
            "deep": {"email": "e", "n": [{"x": "13800001111"}]},
        },
    )
    assert line["phone"] == "[masked]"
    assert line["registration_id"] == "0192"
    assert line["deep"] == {"email": "[masked]", "n": [{"x": "[phone]"}]}


def test_an_error_that_quotes_somebody_is_masked() -> None:
    line = masking_processor(None, "error", {"exception": "ValueError: 张 13800001111 999001199001011234"})
    assert line["exception"] == "ValueError: 张 [phone] [id-number]"

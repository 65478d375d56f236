"""Nothing personal goes past the log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import telemetry
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


_PIECES = st.sampled_from(
    [
        "99900119900101123X",
        "13800001111",
        "8613800001111",
        "a.b@example.cn",
        "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln",
        "20240208",
        "order 4711",
        "考生 0012",
        " ",
        "@",
        "eyJ",
        "x",
    ]
)


@given(st.lists(_PIECES | st.text(max_size=8), max_size=8).map("".join))
def test_the_first_look_at_a_text_leaves_out_none_that_a_pattern_would_have_changed(text: str) -> None:
    patterns_alone = text
    for pattern, replacement in telemetry._PATTERNS:
        patterns_alone = pattern.sub(replacement, patterns_alone)
    assert mask(text) == patterns_alone


def test_a_line_with_a_number_that_is_too_long_is_still_a_line() -> None:
    assert json.loads(telemetry._json({"event": "counted", "number": 2**80})) == {
        "event": "counted",
        "number": 2**80,
    }

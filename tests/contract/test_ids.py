"""The quick way from text to an id and back says what the standard library says, of every spelling."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import ids

ONE = UUID("0190a3f5-7c1e-7d2a-9b60-4f1d2c3b5b01")


@given(st.uuids(allow_nil=True))
def test_there_and_back(one: UUID) -> None:
    assert ids.to_text(one) == str(one)
    assert ids.from_text(str(one)) == one
    assert ids.from_bytes([one.bytes, ONE.bytes]) == [one, ONE]
    assert type(ids.from_text(str(one))) is UUID


@pytest.mark.parametrize(
    "text",
    [str(ONE).upper(), ONE.hex, f"{{{ONE}}}", ONE.urn, str(ONE).replace("-", "", 1), f"urn:uuid:{ONE.hex}"],
)
def test_another_spelling_is_the_same_id(text: str) -> None:
    assert ids.from_text(text) == UUID(text) == ONE


@pytest.mark.parametrize(
    "text", ["", "0", "a" * 16, f" {ONE}", f"{ONE}0", str(ONE)[:-1] + "g", "é" * 32, f"{ONE}\n"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the same as the standard library, which says no more
        UUID(text)
    with pytest.raises(ValueError):  # noqa: PT011 - as above
        ids.from_text(text)

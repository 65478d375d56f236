"""Personal data at rest: opens only with its key, for its row, unaltered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.vault import LOCAL_PREFIX, Vault, VaultError, write_keys

KEY, OTHER, INDEX = b"k" * 32, b"o" * 32, b"i" * 32


def vault(current: str = "a") -> Vault:
    return Vault({"a": KEY, "b": OTHER}, current, {"i": INDEX}, "i")


@given(st.text(), st.text(min_size=1))
def test_what_goes_in_comes_out_and_never_looks_the_same_twice(plain: str, row: str) -> None:
    stored = vault().encrypt(plain, row=row)
    assert vault().decrypt_text(stored, row=row) == plain
    assert stored != vault().encrypt(plain, row=row)


def test_a_value_moved_to_another_row_does_not_open() -> None:
    stored = vault().encrypt("999001199001011234", row="one")
    with pytest.raises(VaultError):
        vault().decrypt(stored, row="two")


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_altered_value_does_not_open(place: int, change: int) -> None:
    stored = bytearray(vault().encrypt("张", row="one"))
    stored[place % len(stored)] ^= change
    with pytest.raises(VaultError):
        vault().decrypt(bytes(stored), row="one")


def test_keys_can_be_changed_while_old_values_stay_readable() -> None:
    old = vault("a").encrypt("x", row="r")
    assert vault("b").decrypt_text(old, row="r") == "x"
    assert vault("b").encrypt("x", row="r")[2:3] == b"b"


def test_an_index_finds_equal_values_of_one_purpose_only() -> None:
    assert vault().index("1", purpose="identity") == vault().index("1", purpose="identity")
    assert vault().index("1", purpose="identity") != vault().index("1", purpose="phone")
    assert len(vault().index("1", purpose="identity")) == 32


def test_a_real_system_refuses_the_local_systems_keys(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", LOCAL_PREFIX)
    Vault.open(tmp_path / "keys.json", "local")
    with pytest.raises(VaultError, match="local system's defaults"):
        Vault.open(tmp_path / "keys.json", "production")


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json")
    Vault.open(tmp_path / "keys.json", "production")
    (tmp_path / "keys.json").chmod(0o640)
    with pytest.raises(VaultError, match="chmod 600"):
        Vault.open(tmp_path / "keys.json", "production")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no vault keys"),
        ("{", "cannot be read"),
        ("{}", "wrong shape"),
        (json.dumps({"encryption": {"current": "a", "keys": {"a": "AAAA"}}, "index": {}}), "wrong shape"),
        (
            json.dumps(
                {p: {"current": "a", "keys": {"a": "a2" * 21 + "s="}} for p in ("encryption", "index")}
            ),
            "share",
        ),
    ],
)
def test_wrong_key_files_are_named_with_what_is_wrong(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    with pytest.raises(VaultError, match=said):
        Vault.open(path, "production")

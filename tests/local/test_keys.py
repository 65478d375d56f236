"""Keys of the local system: good here, good nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.local.environment import SERVICES
from deploy.local.keys import LocalKeys, NoKeys
from deploy.local.minting import mint_for
from deploy.local.processes import StartFailed
from services.chassis.clock import ClockControl
from services.chassis.tokens import TokenVerifier, Unauthenticated
from services.chassis.vault import Vault, VaultError

AT = datetime(2024, 2, 1, tzinfo=UTC)


def test_a_minted_token_names_its_subject_and_roles(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path / "keys", SERVICES)
    token = keys.tokens.mint(["desk:shizhong"], "anna", at=AT)
    actor = TokenVerifier.open(keys.token_keys_file).verify(token, AT)
    assert (actor.subject, actor.roles, actor.kind) == ("anna", frozenset({"desk:shizhong"}), "desk")


def test_a_token_of_another_local_system_is_refused(tmp_path: Path) -> None:
    ours, other = (LocalKeys.of(tmp_path / name, SERVICES) for name in ("a", "b"))
    token = other.tokens.mint("office", "anna", at=AT)
    with pytest.raises(Unauthenticated):
        TokenVerifier.open(ours.token_keys_file).verify(token, AT)


def test_a_token_ends(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path / "keys", SERVICES)
    token = keys.tokens.mint("office", "anna", at=AT, lifetime=timedelta(days=1))
    verifier = TokenVerifier.open(keys.token_keys_file)
    verifier.verify(token, AT + timedelta(days=1) - timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        verifier.verify(token, AT + timedelta(days=1))


def test_the_public_keys_cannot_mint(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path / "keys", SERVICES)
    assert '"d"' not in keys.token_keys_file.read_text()


def test_no_service_outside_the_local_system_starts_on_its_keys(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path / "keys", SERVICES)
    for service in SERVICES:
        Vault.open(keys.vault_file(service), "local")
        with pytest.raises(VaultError, match="local system"):
            Vault.open(keys.vault_file(service), "production")


def test_each_service_has_keys_of_its_own(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path / "keys", SERVICES)
    stored = Vault.open(keys.vault_file("registration"), "local").encrypt("secret", row="r")
    with pytest.raises(VaultError):
        Vault.open(keys.vault_file("notification"), "local").decrypt(stored, row="r")


def test_a_second_start_keeps_the_keys(tmp_path: Path) -> None:
    first = LocalKeys.of(tmp_path / "keys", SERVICES)
    token = first.tokens.mint("office", "anna", at=AT)
    secret = first.receipts_secret
    again = LocalKeys.of(tmp_path / "keys", SERVICES)
    TokenVerifier.open(again.token_keys_file).verify(token, AT)
    assert again.receipts_secret == secret


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path / "keys", SERVICES)
    keys.service_token_file("notification", at=AT)
    keys.receipts_secret_file  # noqa: B018  asking for it makes it
    open_to_others = [
        path.name
        for path in keys.directory.iterdir()
        if path.stat().st_mode & 0o077 and path != keys.token_keys_file
    ]
    assert open_to_others == []
    assert keys.directory.stat().st_mode & 0o077 == 0


def test_the_command_mints_by_the_systems_own_clock(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path / "keys", SERVICES)
    ClockControl(tmp_path / "clock", AT)
    token = mint_for(tmp_path, ["office", "ops"], "anna", days=1)
    verifier = TokenVerifier.open(keys.token_keys_file)
    assert verifier.verify(token, AT).roles == {"office", "ops"}
    with pytest.raises(Unauthenticated):
        verifier.verify(token, AT + timedelta(days=2))


def test_a_role_that_no_route_knows_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    LocalKeys.of(tmp_path / "keys", SERVICES)
    with pytest.raises(StartFailed, match=r"no such role: admin.*desk:<site>"):
        mint_for(tmp_path, ["office", "admin"], "anna", days=1)


def test_without_a_system_there_is_nothing_to_mint_with(tmp_path: Path) -> None:
    with pytest.raises(NoKeys, match="kaowu up"):
        mint_for(tmp_path, ["office"], "anna", days=1)

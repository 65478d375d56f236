"""Backup and restore of the local system, as its operator types them. What happens under load: tests/faults/test_restore.py."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from contracts.cycle import Cycle
from deploy.backup.archive import MANIFEST, CannotRestore, read_manifest, unpack
from deploy.backup.backing_up import back_up
from deploy.backup.commands import catch_up_given
from deploy.backup.dumping import put_back
from deploy.backup.restoring import Restored, restore
from deploy.cli import app
from deploy.local.data_directory import InUse, Mismatch
from deploy.local.databases import DatabaseLogin
from deploy.local.processes import StartFailed
from deploy.local.system import LocalSystem
from deploy.rehearsal.acts import Acts, Addresses
from deploy.rehearsal.checking import canaries_of, evidence_of
from deploy.rehearsal.crowd import crowd
from deploy.rehearsal.doors import Doors, on_this_machine
from deploy.rehearsal.identity import invent_all
from deploy.rehearsal.invariants import judge
from deploy.rehearsal.people import Step, Verb
from deploy.rehearsal.standing import Standing
from deploy.rehearsal.streams import Streams
from deploy.replay.standing import standing
from deploy.replay.verify import verify

pytestmark = [pytest.mark.broker, pytest.mark.faults(long=True)]

CYCLE = Path(__file__).resolve().parents[2] / "deploy" / "cycles" / "2024-health-leshan.toml"
RECEIPTS = timedelta(seconds=10)  # until the carrier has said what became of an SMS
AT = datetime.fromisoformat("2023-12-05T10:00:00+08:00")
NOTICE = Cycle.read(CYCLE)
CROWD = crowd(NOTICE, 8, 5)
IDENTITIES = invent_all(CROWD, 5)


@dataclass
class Left:
    """A system that was stopped. Three people pre-registered before its backup and two after it."""

    data: Path
    backup: Path
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    async def restored(self, only: tuple[str, ...] = ()) -> Restored:
        async with standing(self.data, stopped=True) as place:
            return await restore(place, self.backup, only=only)


@asynccontextmanager
async def people_come(system: LocalSystem) -> AsyncIterator[Callable[[int], Any]]:
    """`await comes(3)`: that person of the crowd pre-registers, and everybody has heard of it."""
    assert system.outside is not None
    async with on_this_machine() as wire:
        doors = Doors(wire, system.keys.tokens, system.clock.now())
        internals = {name: service.internal_url for name, service in system.services.items()}
        control = system.outside.control_url
        streams = Streams(doors, internals, control, system.kafka_bootstrap, doors.headers("ops", "ops"))
        publics = {name: service.public_url for name, service in system.services.items()}
        addresses = Addresses(publics["registration"], publics["confirmation"], publics["payment"], control)
        acts = Acts(doors, addresses, NOTICE)

        async def comes(number: int) -> str:
            person = CROWD.persons[number]
            who = Standing(person, IDENTITIES[person.name], person.site)
            step = next(step for step in person.steps if step.verb is Verb.PRE_REGISTER)
            assert (
                await acts.do(who, Step(step.index, AT, step.verb, {**step.fields, "site": "shawan"})) is None
            )
            await streams.rest()
            assert system.clock_control is not None
            system.clock_control.jump(system.clock.now() + RECEIPTS)
            await streams.rest()
            return str(who.registration_id)

        await streams.start()
        try:
            yield comes
        finally:
            await streams.stop()


@pytest.fixture(scope="module")
async def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    directory = tmp_path_factory.mktemp("backup")
    directory.chmod(0o711)
    async with (
        LocalSystem(directory / "system", CYCLE, "virtual", starts_at=AT) as system,
        people_come(system) as comes,
    ):
        before = [await comes(number) for number in range(3)]
        async with standing(system.data) as place:
            file = (await back_up(place, directory)).file
        after = [await comes(number) for number in range(3, 5)]
        with pytest.raises(InUse, match="end it first"):
            async with standing(system.data, stopped=True):
                pass
    return Left(system.data, file, before, after)


def rewritten(backup: Path, file: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy whose members somebody has changed."""
    with tarfile.open(backup) as old, tarfile.open(file, "w") as new:
        for entry in old.getmembers():
            stream = old.extractfile(entry)
            assert stream is not None
            content = change(entry.name, stream.read())
            entry.size = len(content)
            new.addfile(entry, io.BytesIO(content))
    return file


def with_manifest(**changes: object) -> Callable[[str, bytes], bytes]:
    return lambda name, content: (
        json.dumps({**json.loads(content), **changes}).encode() if name == MANIFEST else content
    )


def damaged(name: str, content: bytes) -> bytes:
    return content[:-100] + bytes(100) if name == "payment.dump" else content


async def said(left: Left, source: Path, **only: Any) -> str:
    """Why this is not restored."""
    async with standing(left.data, stopped=True) as place:
        with pytest.raises(CannotRestore) as refused:
            await restore(place, source, **only)
        async with place.server.connection(place.database_of("registration")) as connection:
            assert await connection.fetchval("select count(*) from registrations") == 5, (
                "something was changed"
            )
    return str(refused.value)


def test_who_was_told_what_is_shown_of_a_system_that_was_left(left: Left) -> None:
    shown = CliRunner().invoke(app, ["messages", "--data", str(left.data), "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert sum(item["messages"] for item in found["funnel"]["items"]) == 2 * 5
    assert [item["provider"] for item in found["providers"]["items"]] == ["aliyun", "tencent"]
    one = CliRunner().invoke(app, ["messages", left.after[1], "--data", str(left.data)])
    assert "预报名成功 pre-registered · 短信" in one.stdout


async def test_what_is_no_backup_of_this_system_is_refused_and_changes_nothing(
    left: Left, tmp_path: Path
) -> None:
    assert "there is no backup" in await said(left, tmp_path / "nowhere")
    assert "there is no backup" in await said(left, tmp_path)
    text = tmp_path / "text"
    text.write_text("no archive")
    assert "no backup of kaowu's, or damaged" in await said(left, text)
    other = tmp_path / "other"
    with tarfile.open(other, "w") as tar:
        tar.add(text, arcname="text")
    assert "it has no manifest.json" in await said(left, other)
    halved = tmp_path / "halved"
    halved.write_bytes(left.backup.read_bytes()[: left.backup.stat().st_size // 2])
    assert "damaged" in await said(left, halved)

    changed = {
        "payment.dump is not what was written": damaged,
        "holds 2024-health-leshan": with_manifest(cycle="2025-health-leshan"),
        "this version of kaowu reads 1": with_manifest(format=2),
        "was made on a system clock": with_manifest(clock="system"),
        "its manifest.json is wrong at": with_manifest(services={"payment": {}}),
    }
    for number, (complaint, change) in enumerate(changed.items()):
        assert complaint in await said(left, rewritten(left.backup, tmp_path / str(number), change))
    assert "holds no examination" in await said(left, left.backup, only=["examination"])


async def test_a_backup_sealed_with_other_keys_is_refused(left: Left) -> None:
    vault = left.data / "keys" / "vault-payment.json"
    kept = vault.read_bytes()
    try:
        vault.write_bytes(kept.replace(b"encryption-1", b"encryption-2"))
        assert "sealed with other keys" in await said(left, left.backup)
        vault.unlink()
        assert "this system's keys are lost" in await said(left, left.backup)
    finally:
        vault.touch(mode=0o600)
        vault.write_bytes(kept)


async def test_a_database_that_somebody_uses_is_not_replaced(left: Left) -> None:
    async with standing(left.data, stopped=True) as place:
        login = DatabaseLogin.of(place.databases["payment"])
        connection = await asyncpg.connect(login.dsn, server_settings={"application_name": "payment-relay"})
        try:
            with pytest.raises(
                CannotRestore, match=r"in use by payment-relay \(1\): stop every process of payment"
            ):
                await restore(place, left.backup)
        finally:
            await connection.close()


def test_the_command_line_says_in_one_line_what_is_wrong(left: Left, tmp_path: Path) -> None:
    for command in (["backup", str(tmp_path)], ["restore", str(left.backup)]):
        outcome = CliRunner().invoke(app, [*command, "--data", str(tmp_path / "nothing")])
        assert isinstance(outcome.exception, Mismatch)
        assert "no local system in" in str(outcome.exception)
    assert not (tmp_path / "nothing").exists() or not list((tmp_path / "nothing").iterdir())


def test_a_backup_says_what_it_holds_and_only_its_owner_may_read_it(left: Left) -> None:
    manifest = read_manifest(left.backup)
    assert set(manifest.services) == {"registration", "confirmation", "payment", "notification"}
    assert manifest.services["registration"].said == 3
    assert manifest.services["confirmation"].heard == 3
    assert manifest.at == AT + 3 * RECEIPTS
    assert left.backup.stat().st_mode & 0o077 == 0
    assert list(left.backup.parent.glob(".backup-*")) == []


async def test_registration_put_back_knows_what_it_said_and_names_whom_no_event_gives_back(
    left: Left,
) -> None:
    done = await left.restored(only=("registration",))
    one = done.services["registration"]
    assert sorted(map(str, one.strangers)) == sorted(left.after)
    assert (one.folded, one.to_go_out) == (2, 0)
    async with standing(left.data, stopped=True) as place:
        verified = await verify(place, source="topics")
        assert [str(difference) for difference in verified.differences] == []
        assert await place.server.has_database(done.kept["registration"])
        async with place.server.connection(done.kept["registration"]) as connection:
            assert await connection.fetchval("select count(*) from people") == 5, "what was replaced is kept"


async def test_on_a_new_server_everything_is_there_again_and_what_is_said_from_now_on_goes_out(
    left: Left,
) -> None:
    """Another server counts its transactions from the beginning. The relay goes by them."""
    shutil.rmtree(left.data / "postgres")
    done = await left.restored()
    assert {service: one.to_go_out for service, one in done.services.items()} == dict.fromkeys(
        done.services, 0
    )
    assert done.services["confirmation"].heard == 2
    assert done.services["notification"].folded > 0
    async with LocalSystem.of(left.data) as system:
        async with people_come(system) as comes:
            newest = await comes(6)  # the one before has a number of which no carrier says anything
        connection = await asyncpg.connect(
            DatabaseLogin.of(system.surroundings.databases["confirmation"]).dsn
        )
        try:
            cases = {str(row[0]) for row in await connection.fetch("select registration_id from cases")}
        finally:
            await connection.close()
        assert cases == {*left.before, *left.after, newest}
        findings = judge(await evidence_of(system, canaries_of(CROWD, IDENTITIES)))
    assert [violation for finding in findings for violation in finding.violations] == []
    async with standing(left.data, stopped=True) as place:
        assert [str(difference) for difference in (await verify(place)).differences] == []


async def test_a_database_put_back_by_hand_is_not_worked_on_until_it_is_caught_up(
    left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a PostgreSQL that somebody else runs: their own tools, then `kaowu catch-up`."""
    manifest = read_manifest(left.backup)
    dump = unpack(left.backup, manifest, ["registration"], tmp_path)["registration"]
    async with standing(left.data, stopped=True) as place:
        login = DatabaseLogin.of(place.databases["registration"])
        await place.server.drop_database(login.database)
        await place.server.make_database(login.database, owner=login.role)
        await put_back(login, dump)
    with pytest.raises(
        StartFailed, match=r"(?s)registration did not start.*its database does not know it.*kaowu catch-up"
    ):
        await LocalSystem.of(left.data).start()

    async with standing(left.data, stopped=True) as place:
        environ = {
            "REGISTRATION_DATABASE_URL": place.databases["registration"],
            "KAFKA_BOOTSTRAP_SERVERS": place.bootstrap,
            "KAOWU_CYCLE_FILE": str(CYCLE),
        }
        with pytest.raises(CannotRestore, match="set PAYMENT_DATABASE_URL to say"):
            await catch_up_given(environ, ["payment"], AT)
        with pytest.raises(CannotRestore, match="is not past"):
            await catch_up_given(environ, ["registration"], datetime.now(UTC) + timedelta(minutes=1))
        assert await catch_up_given(environ, ["registration"], AT) == 0
        assert "caught up with 3 events of its own" in capsys.readouterr().out
        assert await catch_up_given(environ, ["registration"], AT) == 0
        assert "caught up with 0 events of its own" in capsys.readouterr().out, (
            "a second time there is nothing to do"
        )
    async with LocalSystem.of(left.data) as system:
        findings = judge(await evidence_of(system, canaries_of(CROWD, IDENTITIES)))
    assert [violation for finding in findings for violation in finding.violations] == []

"""A backup as a file: one dump per service and a manifest that says what each must be, byte for byte."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
_CHUNK: Final = 1 << 20
_SUFFIX: Final = ".kaowu-backup"
_TOO_LARGE: Final = 16 << 20  # for a manifest


class CannotRestore(Exception):
    """Why nothing was restored, and what to do."""


class CannotBackUp(Exception):
    """Why nothing was backed up, and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dump(_Part):
    """One service's database."""

    file: str = Field(pattern=r"^[a-z]+\.dump$")
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    revision: str
    """Of its tables."""
    said: int
    """Events in its log."""
    heard: int
    """Events in its inbox."""
    sealed_with: str
    """Tells its vault keys from others, and says nothing about them."""


class Manifest(_Part):
    """What a backup is of. `at` is the system's own moment, `made_at` the real one; they differ on a virtual clock."""

    format: int
    cycle: str
    fingerprint: str
    clock: str
    at: AwareDatetime
    made_at: AwareDatetime
    postgres: str
    services: dict[str, Dump]
    offsets: dict[str, dict[str, dict[int, int]]]
    """group → topic → partition → where the group stood before the dumps were begun."""


def target_of(typed: str) -> Path:
    """What was typed as a target. With a slash at its end it is a directory, made if there is none. Raises CannotBackUp."""
    target = Path(typed)
    if typed.endswith("/"):
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotBackUp(f"{target} cannot be made a directory: {error.strerror}") from None
    return target


def place_for(target: Path, cycle: str, at: datetime) -> Path:
    """The file to write: `target`, or one named for its moment where `target` is a directory. Raises CannotBackUp."""
    if target.is_dir():
        return target / f"{cycle}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}{_SUFFIX}"
    if not target.parent.is_dir():
        raise CannotBackUp(f"there is no directory {target.parent}: make it, or name another")
    if target.exists():
        try:
            read_manifest(target)
        except CannotRestore:
            raise CannotBackUp(
                f"{target} is there and is no backup of kaowu's: it is left as it is, name another file or a directory"
            ) from None
    return target


def find(source: Path) -> Path:
    """The file meant: `source`, or the latest backup where `source` is a directory."""
    if not source.is_dir():
        if not source.exists():
            raise CannotRestore(f"there is no backup {source}")
        return source
    found = sorted(source.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CannotRestore(f"there is no backup (*{_SUFFIX}) in {source}")
    return found[-1]


def pack(file: Path, manifest: Manifest, dumps: Mapping[str, Path]) -> None:
    """Write it, whole or not at all, readable by its owner only: it holds what the databases hold."""
    scratch = file.with_name(file.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
            content = manifest.model_dump_json(indent=1).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            for service, dump in dumps.items():
                tar.add(dump, arcname=manifest.services[service].file, recursive=False)
            out.flush()
            os.fsync(out.fileno())
        scratch.replace(file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def read_manifest(file: Path) -> Manifest:
    """What the file is of. Raises CannotRestore."""
    try:
        with tarfile.open(file, mode="r:") as tar:
            entry = tar.getmember(MANIFEST)
            stream = tar.extractfile(entry)
            if stream is None or entry.size > _TOO_LARGE:
                raise CannotRestore(f"{file} is no backup of kaowu's")
            manifest = Manifest.model_validate_json(stream.read())
    except KeyError:
        raise CannotRestore(f"{file} is no backup of kaowu's: it has no {MANIFEST}") from None
    except (tarfile.TarError, EOFError) as error:
        raise CannotRestore(f"{file} is no backup of kaowu's, or damaged ({error})") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CannotRestore(f"{file} is damaged: its {MANIFEST} is wrong at {where}") from None
    except OSError as error:
        raise CannotRestore(f"{file} cannot be read: {error.strerror}") from None
    if manifest.format != FORMAT:
        raise CannotRestore(
            f"{file} has format {manifest.format}, this version of kaowu reads {FORMAT}: use the version that made it"
        )
    return manifest


def unpack(
    file: Path,
    manifest: Manifest,
    services: list[str],
    directory: Path,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, Path]:
    """The dumps of these services, each compared with what the manifest says of it. Raises CannotRestore."""
    found = {}
    try:
        with tarfile.open(file, mode="r:") as tar:
            for service in services:
                found[service] = _unpack_one(tar, manifest.services[service], file, directory, tick)
    except KeyError as error:
        raise CannotRestore(f"{file} is damaged: {error} is missing") from None
    except (tarfile.TarError, EOFError) as error:
        raise CannotRestore(f"{file} is damaged: {error}") from None
    return found


def _unpack_one(
    tar: tarfile.TarFile, dump: Dump, file: Path, directory: Path, tick: Callable[[int], None]
) -> Path:
    stream = tar.extractfile(tar.getmember(dump.file))
    if stream is None:
        raise CannotRestore(f"{file} is damaged: {dump.file} is no file")
    digest, size = hashlib.sha256(), 0
    path = directory / dump.file
    with path.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
            tick(len(chunk))
    if (size, digest.hexdigest()) != (dump.size, dump.sha256):
        raise CannotRestore(
            f"{file} is damaged: {dump.file} is not what was written (its checksum differs); take another backup"
        )
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_of(vault_file: Path) -> str:
    """Equal for equal vault keys. The keys are random: this leads nobody back to them."""
    return hashlib.sha256(b"kaowu.backup.v1" + vault_file.read_bytes()).hexdigest()[:32]

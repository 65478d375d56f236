"""The committed schemas: generated from the classes, never changed incompatibly, and not to be talked round.

A schema file can be generated again by anybody. What was published cannot: the record is a chain of hashes, and
the hashes it had at each release are written down here.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from contracts.catalogue import EVENTS, Unknown, look_up
from contracts.event import Event, Fen, Moment, RegistrationEvent
from contracts.schemas.compatibility import incompatibilities
from contracts.schemas.generation import (
    COMMAND,
    FOLDER,
    PUBLISHED,
    Edition,
    RecordBroken,
    broken_promises,
    files,
    next_edition,
    published,
    reader_schema,
    unpublished,
    writer_schema,
)

# Editions of the record at a release, and the hash of the last of them. Lines are added here, never changed: whoever
# must change one is breaking a promise to every reader of the topics.
RELEASES: dict[str, tuple[int, str]] = {
    "0.1.0": (23, "7f629b6d2e82b0deb7493bb7a8ec795776fd4ef6636000e3dfed64282bd2303d"),
}

TYPES = sorted(EVENTS)


@pytest.mark.parametrize("type_", TYPES)
def test_no_promise_is_broken(type_: str) -> None:
    broken = broken_promises(EVENTS[type_], published())
    assert broken == [], (
        "\n".join(map(str, broken)) + "\nAn incompatible change needs a new major: contracts/README.md"
    )


@pytest.mark.parametrize(("release", "pin"), RELEASES.items())
def test_what_a_release_published_is_still_there(release: str, pin: tuple[int, str]) -> None:
    count, digest = pin
    assert published()[count - 1].digest == digest, (
        f"published.jsonl no longer begins with what {release} published: restore its first {count} lines"
    )


def test_the_files_are_what_the_classes_say() -> None:
    texts = files()
    stale = [
        path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], f"run `{COMMAND}`"
    assert set(FOLDER.rglob("*.json")) == set(texts), "a schema file without a class"


def test_every_shape_is_published() -> None:
    assert unpublished(published()) == [], f"run `{COMMAND}`"


def test_no_published_type_is_forgotten() -> None:
    for edition in published():
        assert not isinstance(look_up(edition.type), Unknown), (
            f"{edition.type} was published; add an upcaster"
        )


@pytest.mark.parametrize("type_", TYPES)
def test_a_class_reads_what_it_writes(type_: str) -> None:
    event = EVENTS[type_]
    assert incompatibilities(writer_schema(event), reader_schema(event)) == []


@pytest.mark.parametrize("type_", TYPES)
def test_a_writer_is_closed_and_a_reader_open(type_: str) -> None:
    def objects(schema: Any) -> list[dict[str, Any]]:
        if isinstance(schema, dict):
            own = [schema] if schema.get("type") == "object" else []
            return own + [found for inner in schema.values() for found in objects(inner)]
        return [found for inner in schema for found in objects(inner)] if isinstance(schema, list) else []

    event = EVENTS[type_]
    assert all(each["additionalProperties"] is False for each in objects(writer_schema(event)))
    assert all("additionalProperties" not in each for each in objects(reader_schema(event)))


# The guards above, seen failing: one fact, published, then edited.


class Fined(RegistrationEvent):
    """When: a test fines somebody."""

    topic: ClassVar[str] = "exam.test"
    source: ClassVar[str] = "/services/test"
    type: ClassVar[str] = "kaowu.test.fined.v1"

    amount_fen: Fen
    until: Moment


class FinedWithWord(Fined):
    word: str | None = None


class FinedWithNumberAsWord(Fined):
    word: int | None = None


class FinedForGood(RegistrationEvent):
    topic: ClassVar[str] = "exam.test"
    source: ClassVar[str] = "/services/test"
    type: ClassVar[str] = "kaowu.test.fined.v1"

    amount_fen: str


EXAMPLE = {"amount_fen": 1}


def recorded(*events: type[Event]) -> list[Edition]:
    editions: list[Edition] = []
    for event in events:
        editions.append(next_edition(event, editions, EXAMPLE))
    return editions


def test_an_incompatible_edit_is_a_broken_promise_in_both_directions() -> None:
    assert [str(one) for one in broken_promises(FinedForGood, recorded(Fined))] == [
        f"{Fined.type} {promise}"
        for promise in (
            "$.amount_fen: cannot read what edition 1 wrote: the writer writes integer, the reader reads string",
            "$.until: writes what edition 1 cannot read: the reader requires it, the writer may leave it out",
            "$.amount_fen: writes what edition 1 cannot read: the writer writes string, the reader reads integer",
        )
    ]


def test_publishing_the_edit_does_not_hide_it() -> None:
    """Whoever generates everything again after a breaking change still meets the first edition."""
    assert broken_promises(FinedForGood, recorded(Fined, FinedForGood)) != []


def test_compatibility_is_with_every_edition_not_only_the_last() -> None:
    assert broken_promises(FinedWithWord, recorded(Fined)) == []
    # dropped again, then back with another type: the last edition alone would let it pass
    assert broken_promises(FinedWithNumberAsWord, recorded(Fined)) == []
    found = broken_promises(FinedWithNumberAsWord, recorded(Fined, FinedWithWord, Fined))
    assert {one.path for one in found} == {"kaowu.test.fined.v1 $.word"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "published.jsonl"
    path.write_text(
        "".join(edition.line() + "\n" for edition in recorded(Fined, FinedWithWord)), encoding="utf-8"
    )
    return path


def test_the_record_is_read_as_it_was_written(record: Path) -> None:
    assert published(record) == recorded(Fined, FinedWithWord)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: [lines[0].replace('"integer"', '"string"'), lines[1]],
        lambda lines: [lines[0].replace('"amount_fen":1', '"amount_fen":2'), lines[1]],
        lambda lines: [lines[1]],
        lambda lines: [lines[1], lines[0]],
        lambda lines: [lines[0], lines[1].replace('"edition":2', '"edition":3')],
        lambda lines: [lines[0], " " + lines[1]],
    ],
    ids=[
        "schema edited",
        "example edited",
        "line removed",
        "lines swapped",
        "number edited",
        "spelled otherwise",
    ],
)
def test_a_record_that_was_tampered_with_is_refused(record: Path, tamper: Any) -> None:
    lines = record.read_text(encoding="utf-8").splitlines()
    changed = tamper(lines)
    assert changed != lines
    record.write_text("\n".join(changed) + "\n", encoding="utf-8")
    with pytest.raises(RecordBroken, match=r"published\.jsonl, line [12]: changed after it was published"):
        published(record)


def test_a_record_written_anew_no_longer_has_the_hash_of_the_release() -> None:
    """The one way round the chain, all of it written again, is what RELEASES is for."""
    honest, forged = recorded(Fined, FinedWithWord), recorded(FinedForGood, FinedWithWord)
    assert honest[0].digest != forged[0].digest
    assert honest[1].digest != forged[1].digest


def test_prose_is_not_a_new_edition() -> None:
    due = EVENTS["kaowu.payment.due.v1"]
    original = due.__doc__
    try:
        due.__doc__ = "Other words."
        due.model_rebuild(force=True)
        assert writer_schema(due)["description"] == "Other words."
        assert unpublished(published()) == []
    finally:
        due.__doc__ = original
        due.model_rebuild(force=True)


def test_the_command_is_satisfied() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "contracts.schemas", "--check"],
        cwd=FOLDER.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wrong = subprocess.run(
        [sys.executable, "-m", "contracts.schemas", "--force"],
        cwd=FOLDER.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2


def test_the_command_refuses_to_break_a_promise(tmp_path: Path) -> None:
    """A copy of contracts/ in which a published field changes its type: nothing is written, the field is named."""
    root = FOLDER.parent.parent
    for path in (root / "contracts").rglob("*"):
        if path.suffix in {".py", ".json", ".jsonl", ".toml"} and path.is_file():
            copy = tmp_path / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    module = tmp_path / "contracts" / "payment.py"
    source = module.read_text(encoding="utf-8")
    assert "proof_id: UUID" in source
    module.write_text(source.replace("proof_id: UUID", "proof_id: Count"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "contracts.schemas"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "kaowu.payment.expired.v1 $.proof_id: cannot read what edition 1 wrote" in done.stderr
    assert "Nothing was written" in done.stderr
    copied = tmp_path / "contracts" / "schemas"
    assert (copied / PUBLISHED.name).read_bytes() == PUBLISHED.read_bytes()
    schema = json.loads((copied / "payment" / "expired.v1.json").read_text(encoding="utf-8"))
    assert schema["properties"]["proof_id"]["format"] == "uuid"

    # a compatible change is published as a new edition
    module.write_text(
        source.replace("    proof_id: UUID\n", "    proof_id: UUID\n    proofs: Count | None = None\n"),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "contracts.schemas"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "published: kaowu.payment.expired.v1, edition 2" in done.stdout
    lines = (copied / PUBLISHED.name).read_text(encoding="utf-8").splitlines()
    assert lines[:-1] == PUBLISHED.read_text(encoding="utf-8").splitlines()

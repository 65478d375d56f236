"""`python -m contracts.schemas`: write the schema files and publish new editions; refuses to break a promise.

With `--check` nothing is written: exit 1 if something would be.
"""

import json
import sys
from pathlib import Path

from contracts.catalogue import EVENTS
from contracts.schemas.generation import (
    PUBLISHED,
    Edition,
    RecordBroken,
    broken_promises,
    example_file,
    files,
    next_edition,
    published,
    unpublished,
)


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python -m contracts.schemas [--check]", file=sys.stderr)
        return 2
    try:
        editions = published()
    except RecordBroken as error:
        print(error, file=sys.stderr)
        return 1
    broken = [one for event in EVENTS.values() for one in broken_promises(event, editions)]
    if broken:
        for one in broken:
            print(one, file=sys.stderr)
        print(
            "Nothing was written. Undo the change, or add a v2 beside it: contracts/README.md",
            file=sys.stderr,
        )
        return 1
    stale = {path: text for path, text in files().items() if not path.exists() or _text(path) != text}
    added: list[Edition] = []
    for event in unpublished(editions):
        example = example_file(event)
        if not example.exists():
            print(f"{event.type} has no example: write {example} first", file=sys.stderr)
            return 1
        added.append(next_edition(event, editions + added, json.loads(_text(example))["payload"]))
    if not arguments:
        _write(stale, added)
    for path in stale:
        print(f"{'stale' if arguments else 'written'}: {path.parent.name}/{path.name}")
    for edition in added:
        print(f"{'unpublished' if arguments else 'published'}: {edition.type}, edition {edition.number}")
    return 1 if arguments and (stale or added) else 0


def _write(stale: dict[Path, str], added: list[Edition]) -> None:
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    with PUBLISHED.open("a", encoding="utf-8", newline="\n") as record:
        record.writelines(edition.line() + "\n" for edition in added)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

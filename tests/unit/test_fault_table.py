"""docs/faults.md says where each row of the fault matrix is played and what proves it. Here it is held to the tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = ROOT / "docs" / "faults.md"
ROWS: Final = range(1, 60)
PLACES: Final = {"tests/faults/": "f", "tests/cluster/": "c", "tests/interleavings/": "i"}


@dataclass(frozen=True)
class Row:
    number: int
    tests: tuple[str, ...]
    counters: tuple[str, ...]
    where: frozenset[str]

    @property
    def files(self) -> set[str]:
        return {test.partition("::")[0] for test in self.tests}


def quoted(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def read() -> dict[int, Row]:
    rows: dict[int, Row] = {}
    before: tuple[str, ...] = ()
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        found = re.match(r"\| (\d+) \|", line)
        if found is None:
            continue
        number = int(found[1])
        assert number not in rows, f"row {number} is there twice"
        _, _, _, cell, counters, where, _ = (part.strip() for part in line.split("|"))
        tests = quoted(cell)
        if "the same" in cell:
            tests = (*before, *tests)
        for other, first in re.findall(r"row (\d+)'s( first)?", cell):
            theirs = rows[int(other)].tests
            tests = (*(theirs[:1] if first else theirs), *tests)
        rows[number] = Row(number, tests, quoted(counters), frozenset(where.split()))
        before = tests
    return rows


@pytest.fixture(scope="module")
def rows() -> dict[int, Row]:
    return read()


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@cache
def constants(path: str) -> str:
    """Every text that stands in it, docstrings left out: a counter that is only spoken about proves nothing."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    spoken = {
        id(one.body[0].value)
        for one in ast.walk(tree)
        if isinstance(one, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and one.body
        and isinstance(one.body[0], ast.Expr)
    }
    return "\n".join(
        one.value
        for one in ast.walk(tree)
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in spoken
    )


def texts(row: Row) -> Iterator[str]:
    """Of its tests, and of what they play with: modules beside them that are no tests."""
    for file in row.files:
        yield constants(file)
        for beside in sorted((ROOT / file).parent.glob("*.py")):
            if not beside.name.startswith("test_"):
                yield constants(str(beside.relative_to(ROOT)))


def test_every_row_of_the_matrix_is_there(rows: dict[int, Row]) -> None:
    assert list(rows) == list(ROWS)


@pytest.mark.parametrize("number", ROWS)
def test_what_a_row_names_is_there(rows: dict[int, Row], number: int) -> None:
    row = rows[number]
    assert row.tests, "no test is named"
    for test in row.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), file
        assert not name or name in functions(file), test
    found = "\n".join(texts(row))
    for counter in row.counters:
        assert counter in found, f"{counter}: nobody counts it"


@pytest.mark.parametrize("number", ROWS)
def test_a_row_is_played_where_its_tests_are(rows: dict[int, Row], number: int) -> None:
    row = rows[number]
    assert row.where <= set("tfcisr")
    for place, letter in PLACES.items():
        if any(file.startswith(place) for file in row.files):
            assert letter in row.where, f"{place} is one of {row.files}"
    assert row.counters or number == 29, "only what a test brings about with its own hands needs no counter"

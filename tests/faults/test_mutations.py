"""Each protection is switched off once, in a run that really needs it, and an invariant says so by name; the same run with
the protection is clean."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console
from rich.table import Table

from deploy.local.environment import ROOT
from tests.conftest import ServiceDatabase
from tests.faults.mutations import ELSEWHERE, MUTATIONS, STANDS_FOR, Mutation, Off
from tests.faults.pair import pair
from tests.support.kafka import TestKafka
from tests.support.postgres import TestDatabases

ROWS: Final = (*range(1, 8), *range(10, 36), *range(37, 40), 56, 57)  # those of the issue

pytestmark = [pytest.mark.faults, pytest.mark.broker]


class Ground:
    """Plays a mutation's scene on databases and topics of its own."""

    def __init__(
        self, kafka: TestKafka, databases: TestDatabases, give: ServiceDatabase, directory: Path
    ) -> None:
        self._kafka, self._databases, self._give, self._directory = kafka, databases, give, directory
        self._plays = 0

    async def play(self, mutation: Mutation, *off: Off) -> tuple[list[str], Counter[str]]:
        """What was violated, and what was reached."""
        self._plays += 1
        async with pair(
            self._kafka, self._databases, self._give, self._directory / f"play-{self._plays}"
        ) as made:
            with contextlib.ExitStack() as stack:
                for one in (*mutation.behind, *off):
                    stack.enter_context(one())
                await mutation.scene(made)
            return [*made.found, *await made.violations()], made.reached


@pytest.fixture
async def ground(
    kafka: TestKafka, databases: TestDatabases, service_database: ServiceDatabase, tmp_path: Path
) -> Ground:
    return Ground(kafka, databases, service_database, tmp_path)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """Shown at the end, whatever pytest captures."""
    found = Table(
        "protection", "fault", "caught by", "violations", title="protections switched off, one at a time"
    )
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        Console(width=150).print("", found)


def names(violations: Sequence[str]) -> set[str]:
    return {violation.partition(" ")[0] for violation in violations}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.protection)
async def test_a_protection_that_is_gone_is_missed_by_an_invariant_and_by_none_while_it_is_there(
    ground: Ground, table: Table, mutation: Mutation
) -> None:
    kept, reached = await ground.play(mutation)
    assert not kept, "\n".join(kept[:10])
    assert reached[mutation.reached], dict(reached)
    gone, reached = await ground.play(mutation, mutation.off)
    assert reached[mutation.reached], dict(reached)
    assert names(gone) & mutation.caught, f"caught by {names(gone) or 'nothing'}"
    by = ", ".join(sorted(names(gone), key=lambda name: int(name[1:])))
    table.add_row(
        mutation.protection, f"{mutation.reached} ({reached[mutation.reached]})", by, str(len(gone))
    )


def test_every_row_of_the_matrix_has_a_protection_that_was_seen_missing_or_a_test_of_its_own() -> None:
    assert not STANDS_FOR.keys() & ELSEWHERE.keys()
    assert sorted(STANDS_FOR.keys() | ELSEWHERE.keys()) == sorted(ROWS)
    protections = {mutation.protection for mutation in MUTATIONS}
    assert len(protections) == len(MUTATIONS)
    assert set(STANDS_FOR.values()) <= protections
    for row, path in ELSEWHERE.items():
        assert row in rows_of((ROOT / path).read_text(encoding="utf-8")), (
            f"{path} does not speak of row {row}"
        )


def rows_of(text: str) -> set[int]:
    """The rows that a file says it is about: `row 7`, `rows 34 to 37 and 39`."""
    found: set[int] = set()
    for listed in re.findall(r"[Rr]ows? ((?:\d+(?: to |, | and )?)+)", text):
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", listed):
            found |= set(range(int(first), int(last or first) + 1))
    return found

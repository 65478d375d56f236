"""How `kaowu bench` ends: with 1 where an invariant broke or nothing was measured, and then its record is left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.bench import commands, messages, record, streams
from deploy.bench.contender import Failed, Violated
from deploy.bench.figures import Figure, Goal
from deploy.bench.scale import FULL, SCALES, Scale
from deploy.bench.stage import Stage
from deploy.bench.streams import Part

Advance = Callable[[str], None]
SLOW = Figure("sending", "SMS/s", 1.0, 2.0, "a bare loop", Goal("≥", 0.8), checked=["all there"])


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it would be recorded; nothing is started."""

    @asynccontextmanager
    async def nowhere(data: Path) -> AsyncIterator[None]:
        (data / "logs").mkdir(parents=True)
        yield

    monkeypatch.setattr(streams, "standing", nowhere)
    monkeypatch.setattr(record, "DOCUMENT", tmp_path / "recorded.md")
    return tmp_path / "recorded.md"


@pytest.mark.parametrize(
    ("comes_to", "code"),
    [
        (SLOW, 0),  # a goal that was missed is told, and is no broken invariant
        (Violated("a message went 2 times, 0 of its tries were ambiguous"), 1),
        (Failed("there were too few messages"), 1),
    ],
    ids=["slow", "violated", "not-measured"],
)
async def test_only_what_held_is_recorded(
    document: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    comes_to: Figure | Exception,
    code: int,
) -> None:
    async def measured(_stage: Stage, _scale: Scale, _advance: Advance) -> list[Figure]:
        if isinstance(comes_to, Exception):
            raise comes_to
        return [comes_to]

    monkeypatch.setattr(messages, "PARTS", {"sending": Part("P8 sending", measured, lambda _: 1)})
    ended = await commands.messages(
        "full", ["sending"], as_json=True, directory=tmp_path / "bench", recorded=True
    )
    assert ended == code
    assert document.exists() == (code == 0)


def test_a_smaller_storm_is_the_same_in_proportion_and_is_not_called_the_whole() -> None:
    tenth = FULL.of_people(100_000)
    assert (tenth.forfeited, tenth.waiting) == (100_000, 200_000)
    assert tenth.name not in SCALES
    assert FULL.of_people(FULL.forfeited).sending_seconds == FULL.sending_seconds

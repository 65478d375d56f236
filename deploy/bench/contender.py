"""One program that is measured, seen from outside: a process of its own that never outlives the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deploy.local import processes

ROOT = Path(__file__).resolve().parents[2]


def _die_with_parent() -> None:
    if processes._PRCTL is not None:  # noqa: SLF001 - loaded there before any fork, for this
        processes._PRCTL(processes.PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # noqa: SLF001


class Failed(Exception):
    """A measurement could not be made: says which, and what was seen."""


class Violated(Failed):
    """What a measurement left behind is wrong: something is missing, or there twice, or out of order."""


class Contender:
    """A program of ours (a module's name) or of a peer (a file): told a task, asked for a result."""

    def __init__(
        self,
        name: str,
        program: str | Path,
        task: Mapping[str, object],
        log: Path,
        *,
        python: Path | None = None,
    ) -> None:
        """`python`: of the environment that a peer's packages are in."""
        self.name = name
        self.log = log
        where = ["-m", program] if isinstance(program, str) else [str(program)]
        self._command = [str(python or sys.executable), *where]
        self._task = task
        self._process: asyncio.subprocess.Process | None = None
        self.facts: Mapping[str, Any] = {}

    @property
    def pid(self) -> int:
        assert self._process is not None, "started"
        return self._process.pid

    async def start(self, *, within: float = 60.0) -> None:
        """Until it says that it is ready."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
                preexec_fn=_die_with_parent,
                limit=1 << 26,
            )
        await self._write(json.dumps(dict(self._task)))
        self.facts = (await self._answer(within))["ready"]

    async def go(self) -> None:
        """The measurement begins."""
        await self._write("go")

    async def tell(self, word: str) -> None:
        await self._write(word)

    async def result(self, *, within: float) -> Mapping[str, Any]:
        """What it measured. Raises Failed when it ends or stays silent."""
        found: Mapping[str, Any] = (await self._answer(within))["result"]
        return found

    async def stop(self) -> None:
        """Its whole group, at once: nothing it could still do matters."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()

    async def _answer(self, within: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise Failed(f"{self.name} did not answer within {within:.0f} s{self._tail()}") from None
        if not line:
            raise Failed(f"{self.name} ended without an answer{self._tail()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-25:]
        return "".join(f"\n  {line}" for line in (f"its log {self.log}:", *lines))


@asynccontextmanager
async def running(*contenders: Contender) -> AsyncIterator[None]:
    """Started together, and gone when the block ends."""
    try:
        for each in contenders:
            await each.start()
        yield
    finally:
        for each in contenders:
            await each.stop()


async def measured(contender: Contender, *, within: float) -> Mapping[str, Any]:
    """Start, let it work, and take its result."""
    async with running(contender):
        await contender.go()
        return await contender.result(within=within)

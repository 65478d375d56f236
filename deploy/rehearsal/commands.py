"""`kaowu rehearse` and `kaowu check`, as coroutines that give an exit code."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console

from contracts.cycle import Cycle
from deploy.evidence.commands import prove_one
from deploy.evidence.reaching import CannotProve, of_system
from deploy.local.system import LocalSystem
from deploy.rehearsal import checking, outcomes, people_file
from deploy.rehearsal.acts import Acts, Addresses
from deploy.rehearsal.agenda import Agenda
from deploy.rehearsal.crowd import crowd
from deploy.rehearsal.doors import Doors, Minting, RehearsalStopped, on_this_machine
from deploy.rehearsal.driver import Driver
from deploy.rehearsal.identity import Identity, invent_all
from deploy.rehearsal.invariants import judge
from deploy.rehearsal.invariants.evidence import Finding
from deploy.rehearsal.invariants.privacy import Canaries, no_personal_data, search
from deploy.rehearsal.invariants.reading import search_file
from deploy.rehearsal.people import People
from deploy.rehearsal.progress import Progress
from deploy.rehearsal.report import Run, summary, tables
from deploy.rehearsal.report.page import page
from deploy.rehearsal.standing import Standing
from deploy.rehearsal.streams import Streams
from deploy.rehearsal.world import World
from services.chassis.wire import Wires

PROOF: Final = "evidence.json"
# Everybody of a moment acts at once: their events go out together, one publish and one batch instead of ten (nobody
# waits out a pace for whom a rehearsal waits), and there is a kept database connection for each request in flight and
# for what runs beside them.
TOGETHER: Final = {"KAOWU_DATABASE_POOL_SIZE": "16", "KAOWU_PACE_SECONDS": "0.2"}


@dataclass(slots=True)
class Rehearsal:
    """One rehearsal under way: the system, the people, and what was learnt."""

    system: LocalSystem
    people: People
    identities: Mapping[str, Identity]
    standings: dict[str, Standing]
    console: Console
    seed: int
    doors: Callable[[Wires, Minting, datetime], Doors] = Doors
    beside: Callable[[Driver, Streams], Coroutine[Any, Any, None]] | None = None
    """What else happens to the system meanwhile; the rehearsal ends when both have."""

    async def run(self, report: Path) -> Run:
        cycle, agenda = self.system.cycle, Agenda(self.people, self.system.cycle, self.standings)
        outside = self.system.outside
        assert outside is not None
        assert self.system.clock_control is not None
        async with on_this_machine() as wire:
            doors = self.doors(wire, self.system.keys.tokens, self.system.clock.now())
            office = doors.headers("office", "office")
            ops = doors.headers("ops", "ops")
            publics = {name: service.public_url for name, service in self.system.services.items()}
            internals = {name: service.internal_url for name, service in self.system.services.items()}
            streams = Streams(doors, internals, outside.control_url, self.system.kafka_bootstrap, ops)
            addresses = Addresses(
                publics["registration"], publics["confirmation"], publics["payment"], outside.control_url
            )
            second = doors.headers("office", "office-second")
            world = World(
                doors, addresses, self.system, office, second, cycle.windows.payment, self._registration_of
            )
            steps = sum(len(person.steps) for person in self.people.persons)
            progress = Progress(cycle, steps, streams, self.console)
            driver = Driver(
                agenda, self.system.clock_control, streams, Acts(doors, addresses, cycle), world, progress
            )
            await streams.start()
            clock = _Stopwatch()
            try:
                with progress:
                    await self._drive(driver, streams)
            finally:
                await streams.stop()
            clock.lap("cycle")
            lists = await outcomes.read_lists(doors, publics, office)
            found = outcomes.outcomes(self.standings.values(), lists)
            outcomes.write(found, report / "outcomes.jsonl")
            clock.lap("outcomes")
            # Before the evidence is collected: that is this process's own, not the system's.
            runtime = _runtime(self.system)
            evidence = await checking.evidence_of(self.system, self.canaries())
            clock.lap("evidence")
            world.faults.update(await _reached(doors, outside.control_url))
            return Run(
                cycle=cycle,
                seed=self.seed,
                people=self.people,
                standings=self.standings,
                outcomes=found,
                lists=lists,
                evidence=evidence,
                world=world,
                runtime=runtime,
                timing={**clock.laps, "stages": progress.stages, **_driven(driver, streams, doors)},
            )

    def _registration_of(self, person: str) -> str | None:
        return self.standings[person].registration_id

    async def _drive(self, driver: Driver, streams: Streams) -> None:
        if self.beside is None:
            await driver.run()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(driver.run())
            group.create_task(self.beside(driver, streams))

    def canaries(self) -> Canaries:
        return checking.canaries_of(self.people, self.identities)


class _Stopwatch:
    def __init__(self) -> None:
        self._at = time.monotonic()
        self.laps: dict[str, Any] = {}

    def lap(self, what: str) -> None:
        now = time.monotonic()
        self.laps[what] = round(now - self._at, 2)
        self._at = now


def _driven(driver: Driver, streams: Streams, doors: Doors) -> dict[str, Any]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "moments": driver.timing.moments,
        "steps": driver.timing.steps,
        "refused": driver.timing.refused,
        "requests": doors.counts.requests,
        "repeated": doors.counts.repeated,
        "hops": streams.flow.hops,
        "looks": streams.flow.looks,
        "rests": streams.flow.rests,
        "rest_seconds": round(streams.flow.rest_seconds, 2),
        "acting_seconds": round(driver.timing.acting, 2),
        "outside_seconds": round(driver.timing.outside, 2),
        "answer_seconds": round(doors.counts.seconds, 2),
        "slowest_rest": streams.flow.slowest,
        "gate_seconds": round(streams.flow.gate_seconds, 2),
        "driver_peak_mib": round(usage.ru_maxrss / 1024, 1),
        "driver_cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
    }


async def _reached(doors: Doors, simulators: str) -> dict[str, int]:
    answer = await doors.get(f"{simulators}/sim/rest", {})
    return {fault: times for fault, times in answer["reached"].items() if times}


def _runtime(system: LocalSystem) -> dict[str, Any]:
    memory = {name: round(mib, 1) for name, mib in system.memory().items()}
    return {
        "rungs": system.rungs,
        "cpu_seconds": {name: _cpu(child.pid) for name, child in system.processes().items() if child.pid},
        "versions": _versions(),
        "started_in_seconds": round(system.started_in, 2),
        "memory_mib": memory,
    }


def _cpu(pid: int) -> float:
    """Processor seconds of a process and of those it started that still live, since their start."""
    try:
        leader = psutil.Process(pid)
        spent = [process.cpu_times() for process in (leader, *leader.children(recursive=True))]
        own = leader.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # Those that have ended and were waited for (PostgreSQL's sessions) count through their parent.
    return round(sum(one.user + one.system for one in spent) + own.children_user + own.children_system, 1)


def _versions() -> dict[str, str]:
    packages = ("faststream", "aiokafka", "sqlmodel", "pydantic", "fastapi", "asyncpg")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


async def rehearse(
    *, cycle: Path, candidates: int, seed: int, people: Path | None, report: Path, data: Path
) -> int:
    """Run a cycle to its end. 0: every invariant holds; 1: one does not, or the rehearsal could not go on."""
    console = Console(stderr=False)
    notice = Cycle.read(cycle)
    try:
        crowded = crowd(notice, candidates, seed) if people is None else people_file.read(people)
    except people_file.PeopleFileInvalid as error:
        tables.say(console, (f"{people} cannot be rehearsed:", "red"))
        for problem in error.problems:
            tables.say(console, f"  {problem}")
        return 1
    try:
        report.mkdir(parents=True, exist_ok=True)
        if people is None or people.resolve() != (report / "people.jsonl").resolve():
            people_file.write(crowded, report / "people.jsonl")
    except OSError as error:
        refused = (f"no report can be written to {report}:", "red")
        tables.say(console, refused, f" {error.strerror}; name a directory")
        return 1
    identities = invent_all(crowded, seed)
    standings = {one.name: Standing(one, identities[one.name], one.site) for one in crowded.persons}
    first_at = Agenda(crowded, notice, standings).first_at
    started = time.monotonic()
    say = _speaker(console)
    async with LocalSystem(
        data, cycle, "virtual", starts_at=first_at, fresh=True, say=say, extra=TOGETHER
    ) as system:
        say(
            f"the system is ready after {time.monotonic() - started:.1f} s; {len(crowded.persons)} people begin"
        )
        rehearsal = Rehearsal(system, crowded, identities, standings, console, seed)
        began = time.monotonic()
        try:
            run = await rehearsal.run(report)
            run.proof = await _prove_one(system, report, console)
        except RehearsalStopped as stopped:
            tables.say(console, ("the rehearsal stopped:", "red"), f" {stopped}")
            return 1
    run.timing["rehearsal"] = round(time.monotonic() - began, 2)
    findings = _write(run, rehearsal.canaries(), report)
    tables.show(run, findings, report, console)
    return 0 if all(finding.ok for finding in findings) else 1


async def _prove_one(system: LocalSystem, report: Path, console: Console) -> str | None:
    """The evidence file of one forfeiture. Whether the rehearsal was good is the invariants' matter."""
    try:
        async with of_system(system) as reach:
            return await prove_one(reach, report / PROOF)
    except CannotProve as reason:
        tables.say(console, ("no evidence file:", "red"), f" {reason}")
        return None


def _speaker(console: Console) -> Any:
    return lambda line: tables.say(console, (line, "dim"))


def _write(run: Run, canaries: Canaries, report: Path) -> list[Finding]:
    """Judge, and write the report, which is itself searched for personal data first."""
    findings = judge(run.evidence)
    drafts = (("report.json", _json(run, findings)), ("report.html", page(run, findings)))
    search(run.evidence, canaries, "reports", [(name, text.encode()) for name, text in drafts])
    search_file(run.evidence, canaries, report / "outcomes.jsonl", "reports")
    if run.proof:
        search_file(run.evidence, canaries, report / run.proof, "reports")
    findings = [*findings[:-1], no_personal_data(run.evidence)]
    (report / "report.json").write_text(_json(run, findings), encoding="utf-8")
    (report / "report.html").write_text(page(run, findings), encoding="utf-8")
    return findings


def _json(run: Run, findings: list[Finding]) -> str:
    return json.dumps(summary(run, findings), ensure_ascii=False, indent=1, default=str)


async def check(*, data: Path, given: bool, as_json: bool) -> int:
    """The invariants over a system at rest. 1 on a violation."""
    console = Console()
    try:
        evidence = await (checking.given(os.environ) if given else checking.local(data))
    except (checking.CannotCheck, RehearsalStopped) as error:
        tables.say(console, ("nothing was checked:", "red"), f" {error}")
        return 1
    findings = judge(evidence)
    if as_json:
        print(
            json.dumps(
                {"invariants": [finding.facts() for finding in findings]}, ensure_ascii=False, indent=1
            )
        )
    else:
        tables.show_findings(findings, console)
    return 0 if all(finding.ok for finding in findings) else 1

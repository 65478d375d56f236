"""The whole system on this machine: what services stand on, the outside, the services. Up together, down together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from contracts.cycle import Cycle
from deploy.local import memory
from deploy.local.data_directory import DataDirectory, Mismatch
from deploy.local.environment import ROOT, SERVICES, SIMULATORS, Address, Surroundings
from deploy.local.foundations import Foundations
from deploy.local.keys import LocalKeys
from deploy.local.outside import Outside, OutsideStart
from deploy.local.processes import Child
from deploy.local.readiness import wait_until_ready
from services.chassis.clock import Clock, ClockControl, RehearsalClock, SystemClock

ClockKind = Literal["system", "virtual"]
RECEIPTS_PATH = "/carriers/{carrier}/receipts/"


@dataclass(frozen=True, slots=True)
class Service:
    """One running service, as its callers see it."""

    name: str
    process: Child
    address: Address

    @property
    def public_url(self) -> str:
        return self.address.public_url

    @property
    def internal_url(self) -> str:
        return self.address.internal_url


class LocalSystem:
    """`async with LocalSystem(data, cycle) as system:` it is ready inside, and nothing of it runs afterwards."""

    def __init__(
        self,
        data: Path,
        cycle: Path,
        clock: ClockKind = "system",
        *,
        only: Sequence[str] = (*SERVICES, SIMULATORS),
        starts_at: datetime | None = None,
        say: Callable[[str], None] = lambda _: None,
        fresh: bool = False,
        environ: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
        code: Mapping[str, Path] | None = None,
    ) -> None:
        """`starts_at`: where a new virtual clock stands. `fresh`: forget what an earlier system left in `data`.

        `extra`: more environment for the services. `code`: the checkout of a service that is not of this version; its
        database is made by the same.
        """
        self.directory = DataDirectory(data)
        self.cycle_file = cycle.resolve()
        self.cycle = Cycle.read(self.cycle_file)
        self.services: dict[str, Service] = {}
        self.replicas: dict[str, Service] = {}
        """Further processes of services, by a name of their own: `registration-2`."""
        self.outside: Outside | None = None
        self.clock: Clock = SystemClock()
        self.clock_control: ClockControl | None = None
        self.started_in = 0.0
        self._clock_kind: ClockKind = clock
        self._wanted = [name for name in SERVICES if name in only]
        self._with_outside = SIMULATORS in only
        self._starts_at = starts_at
        self._fresh = fresh
        self._say = say
        self._environ = os.environ if environ is None else environ
        self._extra = dict(extra or {})
        self._code = dict(code or {})
        self._owns_state = False
        self._keys: LocalKeys | None = None
        self._surroundings: Surroundings | None = None
        self._outside_start: OutsideStart | None = None
        self._foundations = Foundations(
            self.data,
            self._environ,
            say=say,
            started=self.directory.started,
            thrown_away=fresh,
            code=self._code,
        )

    @classmethod
    def of(cls, data: Path, *, say: Callable[[str], None] = lambda _: None) -> Self:
        """The system that was last started in this directory, with its cycle and its kind of clock."""
        state = DataDirectory(data).state()
        if not state:
            raise Mismatch(f"no local system in {data}: start one with `kaowu up` or `kaowu rehearse`")
        return cls(data, Path(state["cycle_file"]), state["clock"], say=say)

    @property
    def data(self) -> Path:
        return self.directory.path

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def keys(self) -> LocalKeys:
        assert self._keys is not None, "the system was not started"
        return self._keys

    @property
    def surroundings(self) -> Surroundings:
        assert self._surroundings is not None, "the system was not started"
        return self._surroundings

    @property
    def kafka_bootstrap(self) -> str:
        return self._foundations.broker.bootstrap

    @property
    def rungs(self) -> Mapping[str, Mapping[str, str]]:
        """Which PostgreSQL and which Kafka it runs on, and why."""
        return self._foundations.rungs

    def mint(self, roles: Sequence[str] | str, subject: str) -> str:
        """A bearer token this system accepts, counted from its own clock."""
        return self.keys.tokens.mint(roles, subject, at=self.clock.now())

    # Start and stop.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Everything up and ready; or an exception that says what is missing, and nothing left running."""
        began = time.monotonic()
        for left in self.directory.hold():
            self._say(f"ended {left.name} (process {left.pid}), left over by a system that died")
        try:
            if self._fresh:
                self.directory.empty()
            if self.directory.fits(self.cycle, self._clock_kind):
                self._say("the cycle file has changed since this directory was last used")
            # From here on the directory's state is ours to write; a refused start leaves it as it was.
            self._owns_state = True
            self._prepare_clock()
            await self._start_all()
        except BaseException:
            await self.stop()
            raise
        self.started_in = time.monotonic() - began
        self._write_state(running=True)

    async def stop(self) -> None:
        """Services first, then what they stand on. Safe to call twice, and after a start that failed."""
        every = (*self.services.values(), *self.replicas.values())
        await asyncio.gather(*(service.process.stop() for service in every))
        if self._outside_start is not None:
            await self._outside_start.process.stop()
        await self._foundations.stop()
        if self.directory.held:
            if self._owns_state:
                self._write_state(running=False)
            self.directory.let_go()

    async def _start_all(self) -> None:
        self.logs.mkdir(exist_ok=True)
        earlier = self.directory.state()
        ports = earlier.get("services", {})
        addresses = {name: Address.choose(ports.get(name, {})) for name in self._wanted}
        keys = self._keys = LocalKeys.of(self.data / "keys", SERVICES)
        outside = self._outside_start = OutsideStart(
            self.data / "simulators", keys.directory, self.logs / "simulators.log"
        )
        if self._with_outside:
            receipts = None
            if "notification" in addresses:
                receipts = addresses["notification"].public_url + RECEIPTS_PATH + keys.receipts_secret
            outside.spawn(
                self._environ,
                clock_file=self._clock_file,
                receipts_url=receipts,
                earlier=earlier.get("simulators") or {},
            )
            self.directory.started(SIMULATORS, outside.process.pid or 0)
        databases = await self._foundations.start(self._wanted)
        if self._with_outside:
            self.outside = await outside.ready()
        self._surroundings = Surroundings(
            cycle_file=self.cycle_file,
            keys=keys,
            clock_file=self._clock_file,
            bootstrap=self.kafka_bootstrap,
            databases=databases,
            addresses=addresses,
            service_tokens={
                name: keys.service_token_file(name, at=self.clock.now()) for name in self._wanted
            },
            accounts=self.outside.accounts if self.outside else {},
            bounces=self.outside.bounces if self.outside else "",
            real_broker=self.rungs["kafka"]["rung"] != "last resort",
            extra=self._extra,
        )
        for name in self._wanted:
            self.services[name] = Service(name, Child(name, self.logs / f"{name}.log"), addresses[name])
            self._spawn(name)
        await asyncio.gather(*(self._ready(name) for name in self._wanted))

    def _spawn(
        self, name: str, extra: Mapping[str, str] | None = None, module: Sequence[str] | None = None
    ) -> None:
        process = self.services[name].process
        command = [sys.executable, "-m", *(module or (f"services.{name}", "run"))]
        root = self._code.get(name, ROOT)
        # A version from before account files named an authority trusts what the machine does.
        trusted = {} if root == ROOT or not self.outside else {"SSL_CERT_FILE": self.outside.authority}
        process.start(command, cwd=root, env={**self.surroundings.of(name), **trusted, **(extra or {})})
        self.directory.started(name, process.pid or 0)

    async def _ready(self, name: str) -> None:
        service = self.services[name]
        await wait_until_ready(service.process, service.address.internal_port)

    # Faults, and the way back. All from outside, as they come.

    async def kill(self, name: str) -> None:
        """SIGKILL to a service or to the simulators."""
        await self._process(name).kill()

    async def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP for this many real seconds, then SIGCONT."""
        self.suspend(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.resume(name)

    async def restart(
        self,
        name: str,
        extra: Mapping[str, str] | None = None,
        *,
        module: Sequence[str] | None = None,
        wait: bool = True,
    ) -> None:
        """Start a service that was killed (or stop and start it), and wait until it is ready unless told otherwise.

        `extra`: more environment for this start alone. `module`: what runs instead of `services.<name> run`.
        """
        await self.services[name].process.stop()
        self._spawn(name, extra, module)
        if wait:
            await self._ready(name)

    async def roll_out(self, name: str) -> None:
        """A service that ran from another checkout is started again from this one."""
        self._code.pop(name, None)
        await self.restart(name)

    async def add_replica(
        self,
        name: str,
        extra: Mapping[str, str] | None = None,
        *,
        module: Sequence[str] | None = None,
        root: Path = ROOT,
    ) -> str:
        """One more process of a service, on ports of its own, ready to work. Returns its name.

        `module`: what runs instead of `services.<name> run`. `root`: the checkout it runs from, of another version perhaps.
        """
        number = 2 + sum(1 for replica in self.replicas if replica.startswith(f"{name}-"))
        replica = f"{name}-{number}"
        address = Address.choose({})
        service = Service(replica, Child(replica, self.logs / f"{replica}.log"), address)
        prefix = name.upper()
        env = {
            **self.surroundings.of(name),
            f"{prefix}_PUBLIC_PORT": str(address.public_port),
            f"{prefix}_INTERNAL_PORT": str(address.internal_port),
            f"{prefix}_GROUP_INSTANCE_ID": replica,
            **(extra or {}),
        }
        command = [sys.executable, "-m", *(module or (f"services.{name}", "run"))]
        service.process.start(command, cwd=root, env=env)
        self.replicas[replica] = service
        self.directory.started(replica, service.process.pid or 0)
        await wait_until_ready(service.process, address.internal_port)
        return replica

    async def remove_replica(self, replica: str) -> None:
        """Stop it in order; its name is free for the next one."""
        await self.replicas.pop(replica).process.stop()

    async def stop_broker(self) -> None:
        """Kafka away. What it holds stays."""
        await self._foundations.stop_broker()

    async def start_broker(self) -> None:
        await self._foundations.start_broker()

    async def restart_database(self, extra: Mapping[str, str] | None = None) -> None:
        """PostgreSQL restarted under the running services. `extra`: more environment for it from now on."""
        await self._foundations.restart_database(extra)

    async def kill_database(self) -> None:
        """PostgreSQL killed as a power cut would, and started again: it recovers from its log."""
        await self._foundations.kill_database()

    def suspend(self, name: str) -> None:
        """SIGSTOP, until `resume`."""
        self._process(name).signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._process(name).signal(signal.SIGCONT)

    def _process(self, name: str) -> Child:
        if name == SIMULATORS and self._outside_start is not None:
            return self._outside_start.process
        return (self.replicas.get(name) or self.services[name]).process

    def processes(self) -> dict[str, Child]:
        """Everything that was started as a process of ours."""
        found = {
            **self._foundations.processes(),
            **{name: one.process for name, one in (self.services | self.replicas).items()},
        }
        if self.outside is not None:
            found[SIMULATORS] = self.outside.process
        return found

    def memory(self) -> dict[str, float]:
        """MiB each part really holds (PSS); `driver` is the process that asks."""
        alive = {name: child.pid for name, child in self.processes().items() if child.alive and child.pid}
        return {name: memory.tree_mib(pid) for name, pid in alive.items()} | {
            "driver": memory.own_mib(os.getpid())
        }

    # The directory it lives in.

    @property
    def _clock_file(self) -> Path | None:
        return self.data / "clock" if self._clock_kind == "virtual" else None

    def _prepare_clock(self) -> None:
        if self._clock_file is None:
            return
        new = not self._clock_file.exists()
        starts_at = self._starts_at or self.cycle.windows.pre_registration.opens
        self.clock_control = ClockControl(self._clock_file, starts_at if new else None)
        self.clock = RehearsalClock(self._clock_file)

    def _write_state(self, *, running: bool) -> None:
        state: dict[str, Any] = {
            "running": running,
            "pid": os.getpid(),
            "cycle": self.cycle.id,
            "cycle_file": str(self.cycle_file),
            "fingerprint": self.cycle.fingerprint,
            "clock": self._clock_kind,
            "written_at": datetime.now(UTC).isoformat(),
            "kafka": self.surroundings.bootstrap if self._surroundings else None,
            "rungs": {what: dict(facts) for what, facts in self.rungs.items()},
            "services": {
                name: {
                    **asdict(service.address),
                    "public_url": service.public_url,
                    "internal_url": service.internal_url,
                }
                for name, service in self.services.items()
            },
            "simulators": dict(self.outside.whereabouts) if self.outside else None,
        }
        with contextlib.suppress(OSError):
            self.directory.write_state(state)

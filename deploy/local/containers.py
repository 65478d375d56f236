"""PostgreSQL and Kafka in containers, where a Docker engine answers. Image names are settings.

testcontainers' own KafkaContainer drives one vendor's image only, so the broker is a small subclass of ours.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import asyncpg

from deploy.local.databases import SUPERUSER, ServerDatabases
from deploy.local.kafka import Missing, kafka_version
from deploy.local.processes import StartFailed, free_port

LABEL = "kaowu.directory"  # whose container it is
KAFKA_IMAGE = "KAOWU_KAFKA_IMAGE"
POSTGRES_IMAGE = "KAOWU_POSTGRES_IMAGE"


def kafka_images() -> list[str]:
    """The one that is named; else the official one, else ours of deploy/images."""
    named = os.environ.get(KAFKA_IMAGE)
    return [named] if named else [f"apache/kafka:{kafka_version()}", f"kaowu/kafka:{kafka_version()}"]


def postgres_images() -> list[str]:
    """The same for PostgreSQL."""
    named = os.environ.get(POSTGRES_IMAGE)
    return [named] if named else ["postgres:18", "kaowu/postgres:18"]


def engine_answers() -> bool:
    """Whether there is a Docker engine to ask."""
    import docker  # noqa: PLC0415  its import costs half a second and most machines never come here

    try:
        client = docker.from_env(timeout=3)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return False


class Container:
    """One container of ours: a port on this machine's loopback, an end, and its last words when it fails."""

    def __init__(self, image: str, inner_port: int, owner: Path) -> None:
        # Its reaper is an image of its own that cannot be pulled everywhere; we end what we start.
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        self.image = image
        self.port = free_port()
        self._container = cast("Any", DockerContainer(image))
        self._container.ports[inner_port] = ("127.0.0.1", self.port)
        self._container.with_kwargs(labels={LABEL: str(owner)})
        self._made = False

    def tell(self, environment: Mapping[str, str]) -> None:
        """Its environment, before it is started."""
        for key, value in environment.items():
            self._container.with_env(key, value)

    async def start(self) -> None:
        """Make it, or start it again after `halt`."""
        if self._made:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        else:
            await asyncio.to_thread(self._container.start)
            self._made = True

    async def halt(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().stop, timeout=15)

    async def remove(self) -> None:
        await asyncio.to_thread(self._container.stop)

    async def answers(self, ask: Callable[[], Awaitable[object]], *, what: str, timeout: float) -> None:
        """Until `ask` no longer raises, the container dies, or the time is over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                await ask()
                return
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                late = time.monotonic() > deadline
                if late or not await asyncio.to_thread(self._runs):
                    state = f"does not answer after {timeout:.0f} s" if late else "ended"
                    last = await asyncio.to_thread(self._last_words)
                    raise StartFailed(
                        f"{what} {state} ({type(error).__name__}). It last wrote:\n{last}"
                    ) from None
                await asyncio.sleep(0.2)

    def _runs(self) -> bool:
        inner = self._container.get_wrapped_container()
        inner.reload()
        return bool(inner.status in {"running", "created", "restarting"})

    def _last_words(self) -> str:
        logs: bytes = self._container.get_wrapped_container().logs(tail=20)
        return logs.decode("utf-8", "replace").strip() or "(nothing)"


def find_image(images: Sequence[str], owner: Path) -> str:
    """The first that is on this machine, else the first pulled. Raises Missing.

    A container that an earlier system of this directory left behind when it was killed is removed on the way.
    """
    import docker  # noqa: PLC0415

    if not engine_answers():
        raise Missing("no Docker engine answers; start one, or set DOCKER_HOST")
    client = docker.from_env()
    try:
        for left in client.containers.list(all=True, filters={"label": f"{LABEL}={owner}"}):
            left.remove(force=True)
        here = {tag for image in client.images.list() for tag in image.tags}
        if chosen := next((image for image in images if image in here), None):
            return chosen
        try:
            client.images.pull(images[0])
        except docker.errors.DockerException as error:
            raise Missing(
                f"the image {images[0]} is not on this machine and cannot be pulled ({type(error).__name__}); "
                f"make one with deploy/images/build, or name another with {KAFKA_IMAGE} or {POSTGRES_IMAGE}"
            ) from None
        return images[0]
    finally:
        client.close()


class ContainerKafka:
    """One broker in a container. It keeps its topics over stop and start, not over the end of the system."""

    rung = "containers"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._container: Container | None = None

    @property
    def _running(self) -> Container:
        assert self._container is not None, "it was not started"
        return self._container

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._running.port}"

    @property
    def description(self) -> str:
        return f"Kafka in a container of {self._running.image}"

    async def start(self, *, timeout: float = 120.0) -> None:
        if self._container is None:
            image = await asyncio.to_thread(find_image, kafka_images(), self.directory)
            self._container = Container(image, 9092, self.directory)
            self._container.tell(self._environment())
        await self._running.start()
        await self._running.answers(self._ask, what=self.description, timeout=timeout)

    async def stop(self) -> None:
        if self._container is not None:
            container, self._container = self._container, None
            await container.remove()

    async def halt(self) -> None:
        """Stop it so that `start` goes on with its topics."""
        await self._running.halt()

    def _environment(self) -> dict[str, str]:
        """For apache/kafka; an image of deploy/images reads the same names."""
        return {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{self._running.port}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_HEAP_OPTS": "-Xms96m -Xmx288m",
        }

    async def _ask(self) -> None:
        """The port is open as soon as the container is: only an answer of the broker counts."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._running.port)
        try:
            async with asyncio.timeout(5):
                # ApiVersions v0: size, key 18, version 0, correlation 1, no client id.
                writer.write(bytes.fromhex("0000000a 0012 0000 00000001 ffff"))
                await reader.readexactly(4)
        except EOFError as error:
            raise ConnectionResetError("the broker is not there yet") from error
        finally:
            writer.close()


class ContainerPostgres(ServerDatabases):
    """A server in a container. It keeps its databases over stop and start, not over the end of the system."""

    rung = "containers"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._container: Container | None = None

    @property
    def _running(self) -> Container:
        assert self._container is not None, "it was not started"
        return self._container

    @property
    def description(self) -> str:
        return f"PostgreSQL in a container of {self._running.image}"

    async def start(self, *, timeout: float = 60.0) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._container is None:
            image = await asyncio.to_thread(find_image, postgres_images(), self.directory)
            self.passwords = {SUPERUSER: secrets.token_urlsafe(24)}
            self._container = Container(image, 5432, self.directory)
            self._container.tell({"POSTGRES_PASSWORD": self.passwords[SUPERUSER]})
            self.port = self._container.port
        await self._running.start()
        await self._running.answers(self._ask, what=self.description, timeout=timeout)

    async def stop(self) -> None:
        if self._container is not None:
            container, self._container = self._container, None
            await container.remove()

    async def restart(self) -> None:
        await self._running.halt()
        await self.start()

    async def _ask(self) -> None:
        """The image starts a first server for its own set-up, without TCP: a login over TCP is the real one."""
        async with self.connection():
            pass

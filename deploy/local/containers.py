"""PostgreSQL and Kafka in containers, where a Docker engine answers. Image names are settings.

testcontainers' own KafkaContainer drives one vendor's image only, so the broker is a small subclass of ours.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from deploy.local.databases import SUPERUSER, ServerDatabases
from deploy.local.kafka import Missing, kafka_version
from deploy.local.processes import StartFailed, free_port

KAFKA_IMAGE = "KAOWU_KAFKA_IMAGE"
POSTGRES_IMAGE = "KAOWU_POSTGRES_IMAGE"
_DATABASE_PASSWORD = "local"  # noqa: S105  a container that only this machine's loopback reaches


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


def _container(images: Sequence[str]) -> Any:
    """A container of the first image that is here, else of the first that can be pulled."""
    import docker  # noqa: PLC0415

    # Its reaper is an image of its own that cannot be pulled everywhere; we end what we start.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    if not engine_answers():
        raise Missing("no Docker engine answers; start one, or set DOCKER_HOST")
    client = docker.from_env()
    try:
        here = {tag for image in client.images.list() for tag in image.tags}
        if chosen := next((image for image in images if image in here), None):
            return DockerContainer(chosen)
        try:
            client.images.pull(images[0])
        except docker.errors.DockerException as error:
            raise Missing(
                f"the image {images[0]} is not on this machine and cannot be pulled ({type(error).__name__}); "
                f"make one with deploy/images/build, or name another with {KAFKA_IMAGE} or {POSTGRES_IMAGE}"
            ) from None
        return DockerContainer(images[0])
    finally:
        client.close()


class ContainerKafka:
    """One broker in a container. It keeps its topics over stop and start, not over the end of the system."""

    rung = "containers"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.image = ""
        self.port = 0
        self._container: Any = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def description(self) -> str:
        return f"Kafka in a container of {self.image}"

    async def start(self, *, timeout: float = 120.0) -> None:
        if self._container is None:
            self.port = free_port()
            container = await asyncio.to_thread(_container, kafka_images())
            self.image = container.image
            container.with_bind_ports(9092, self.port)
            for key, value in self._environment().items():
                container.with_env(key, value)
            self._container = container
            await asyncio.to_thread(container.start)
        else:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        await self._accepts(timeout)

    async def stop(self) -> None:
        if self._container is not None:
            container, self._container = self._container, None
            await asyncio.to_thread(container.stop)

    async def halt(self) -> None:
        """Stop it so that `start` goes on with its topics."""
        await asyncio.to_thread(self._container.get_wrapped_container().stop, timeout=15)

    def _environment(self) -> dict[str, str]:
        """For apache/kafka; an image of deploy/images reads the same names."""
        return {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{self.port}",
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

    async def _accepts(self, timeout: float) -> None:
        from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        deadline = time.monotonic() + timeout
        while True:
            # The port is open as soon as the container is: only an answer of the broker counts.
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            try:
                await admin.start()
                return
            except (KafkaError, OSError):
                if time.monotonic() > deadline:
                    raise StartFailed(f"{self.description} does not answer after {timeout:.0f} s") from None
                await asyncio.sleep(0.2)
            finally:
                await admin.close()


class ContainerPostgres(ServerDatabases):
    """A server in a container. It keeps its databases over stop and start, not over the end of the system."""

    rung = "containers"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.image = ""
        self._container: Any = None

    @property
    def description(self) -> str:
        return f"PostgreSQL in a container of {self.image}"

    async def start(self, *, timeout: float = 60.0) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._container is None:
            self.port = free_port()
            self.passwords = {SUPERUSER: _DATABASE_PASSWORD}
            container = await asyncio.to_thread(_container, postgres_images())
            self.image = container.image
            container.with_bind_ports(5432, self.port).with_env("POSTGRES_PASSWORD", _DATABASE_PASSWORD)
            self._container = container
            await asyncio.to_thread(container.start)
        else:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        await self._accepts(timeout)

    async def stop(self) -> None:
        if self._container is not None:
            container, self._container = self._container, None
            await asyncio.to_thread(container.stop)

    async def restart(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().restart, timeout=15)
        await self._accepts(60.0)

    async def _accepts(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                # The image starts a first server for its own set-up, without TCP: a login over TCP is the real one.
                async with self.connection():
                    return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if time.monotonic() > deadline:
                    raise StartFailed(f"{self.description} takes no connections") from None
                await asyncio.sleep(0.2)

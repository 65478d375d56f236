"""The container engine that clusters run on: where it answers, which images it has, and an end for what we start.

Each cluster has two networks. `inside` is the nodes' own, under their names, with no way out. `outside` carries the
ports that are published on this machine's loopback. So a node can be cut from its peers and stay reachable from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import docker
import psutil
from testcontainers.core.container import DockerContainer

from deploy.local.containers import engine_answers, find_image, kafka_images, postgres_images
from deploy.local.kafka import Missing, cache_directory
from deploy.local.processes import StartFailed

LABEL: Final = "kaowu.cluster"  # the process whose it is
OURS: Final = cache_directory() / "engine" / "docker.sock"  # where deploy/images/engine starts one


def images() -> tuple[str, str]:
    """Kafka's and PostgreSQL's. Raises Missing that says what is needed, and the remedy."""
    # Its reaper is an image of its own that cannot be pulled everywhere; we end what we start.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    if "DOCKER_HOST" not in os.environ and not engine_answers() and OURS.exists():
        os.environ["DOCKER_HOST"] = f"unix://{OURS}"
    if not engine_answers():
        asked = os.environ.get("DOCKER_HOST", "its usual socket")
        raise Missing(
            f"clusters run in containers and no Docker engine answers at {asked}. Start one, or set DOCKER_HOST to one; or, "
            "as root on Debian with a mirror in reach, run deploy/images/engine start (fetches and starts an engine) and "
            "deploy/images/build (makes the images; needs debootstrap)"
        )
    _remove_what_the_dead_left()
    return find_image(kafka_images(), Path("/cluster")), find_image(postgres_images(), Path("/cluster"))


def _remove_what_the_dead_left() -> None:
    """A run that was killed could not remove its containers."""
    client = docker.from_env()
    try:
        containers = [(one, one.labels) for one in client.containers.list(all=True, filters={"label": LABEL})]
        networks = [(one, one.attrs["Labels"]) for one in client.networks.list(filters={"label": LABEL})]
        for left, labels in (*containers, *networks):
            if not psutil.pid_exists(int(labels[LABEL])):
                left.remove(**({"force": True, "v": True} if (left, labels) in containers else {}))
    finally:
        client.close()


class Networks:
    """The two networks of one cluster."""

    def __init__(self) -> None:
        self._client = docker.from_env()
        self.inside = self._make(internal=True)
        self.outside = self._make(internal=False)

    def _make(self, *, internal: bool) -> Any:
        name = f"kaowu-{secrets.token_hex(4)}"
        return self._client.networks.create(name, internal=internal, labels={LABEL: str(os.getpid())})

    def remove(self) -> None:
        self.inside.remove()
        self.outside.remove()
        self._client.close()


class Node(DockerContainer):
    """One member of a cluster. Its ports are published once it is `reachable`."""

    def __init__(
        self,
        image: str,
        networks: Networks,
        name: str,
        *,
        ports: Mapping[int, int],
        environment: Mapping[str, str],
        command: Sequence[str] | None = None,
    ) -> None:
        """`ports`: of the node, and where on this machine's loopback each is published."""
        super().__init__(
            image,
            env=dict(environment),
            network=networks.inside,
            network_aliases=[name],
            labels={LABEL: str(os.getpid())},
        )
        self.name = name
        self.networks = networks
        self._is_cut = False
        if command is not None:
            self.with_command(list(command))
        published: dict[str, Any] = self.ports
        for inner, outer in ports.items():
            published[f"{inner}/tcp"] = ("127.0.0.1", outer)

    async def run(self) -> None:
        await asyncio.to_thread(self.start)

    async def reachable(self) -> None:
        """Publish its ports on this machine."""
        await asyncio.to_thread(self.networks.outside.connect, self.get_container_id())

    async def kill(self) -> None:
        """SIGKILL, as a power cut would. What it has written stays."""
        await asyncio.to_thread(self.get_wrapped_container().kill, "SIGKILL")

    async def again(self) -> None:
        """Start it after `kill`."""
        await asyncio.to_thread(self.get_wrapped_container().start)

    async def cut(self) -> None:
        """From its peers: its interface to them is taken away, and they hear nothing of that."""
        self._is_cut = True
        await asyncio.to_thread(self.networks.inside.disconnect, self.get_container_id(), force=True)

    async def heal(self) -> None:
        await asyncio.to_thread(self.networks.inside.connect, self.get_container_id(), aliases=[self.name])
        self._is_cut = False

    async def mend(self) -> None:
        """Whatever a test that failed has left of it: it runs, and its peers reach it."""
        inner = self.get_wrapped_container()
        await asyncio.to_thread(inner.reload)
        if inner.status != "running":
            await self.again()
        if self._is_cut:
            await self.heal()

    async def remove(self) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            await asyncio.to_thread(self.stop)

    async def tells(self, *command: str) -> str:
        """What a command in it says. Raises StartFailed when it fails."""
        done = await asyncio.to_thread(self.get_wrapped_container().exec_run, list(command))
        text: str = done.output.decode("utf-8", "replace").strip()
        if done.exit_code != 0:
            raise StartFailed(f"{self.name}: {command[0]} ended with {done.exit_code}: {text}")
        return text

    async def log(self) -> str:
        """All it has written."""
        written: bytes = await asyncio.to_thread(self.get_wrapped_container().logs)
        return written.decode("utf-8", "replace")

    async def until(self, look: Callable[[], Awaitable[object]], what: str, *, within: float = 120.0) -> None:
        """Until `look` is true, and neither the node ends nor the time."""
        deadline = time.monotonic() + within
        reason = ""
        while True:
            try:
                if await look():
                    return
            except (OSError, StartFailed) as error:
                reason = f" ({error})"
            inner = self.get_wrapped_container()
            await asyncio.to_thread(inner.reload)
            if inner.status == "exited" or time.monotonic() > deadline:
                last = "\n".join((await self.log()).splitlines()[-20:])
                raise StartFailed(
                    f"{self.name} is {inner.status}, waiting for: {what}{reason}. It last wrote:\n{last}"
                )
            await asyncio.sleep(0.2)

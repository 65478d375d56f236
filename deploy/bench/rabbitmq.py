"""A RabbitMQ for the peer that needs one: Debian's, unpacked by tests/benchmarks/rabbitmq-install, run as our own process."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.local.kafka import cache_directory
from deploy.local.processes import Child, free_port, wait_for_port


def home() -> Path | None:
    """Where it lies, if it was installed."""
    place = cache_directory() / "rabbitmq"
    return place / "root" if (place / "complete").exists() else None


def absent() -> str:
    """Why a row cannot be measured."""
    return (
        "RabbitMQ is not installed: run tests/benchmarks/rabbitmq-install (Debian's packages), or make bench"
    )


def version() -> str:
    root = home()
    return "?" if root is None else _server(root).name.partition("-")[2]


def _server(root: Path) -> Path:
    return next((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))


class LocalRabbitMQ:
    """One node over one directory, on ports of its own, open to this machine only."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory = directory.resolve()
        self._root = root
        self._names = Child("epmd", self.directory / "epmd.log")
        self.process = Child("rabbitmq", self.directory / "rabbitmq.log")
        self.port = 0

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    async def start(self, *, timeout: float = 60.0) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        erlang, server = self._root / "usr/lib/erlang", _server(self._root)
        self.port, names, distribution = free_port(), free_port(), free_port()
        # Its names' daemon would otherwise put itself in the background and outlive us.
        epmd = next(erlang.glob("erts-*/bin/epmd"))
        self._names.start([epmd, "-port", str(names), "-address", "127.0.0.1"])
        await wait_for_port(self._names, names, timeout=timeout)
        environment = {
            "PATH": f"{erlang}/bin:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),
            "RABBITMQ_PLUGINS_DIR": str(server / "plugins"),
            "RABBITMQ_LOGS": "-",
        }
        self.process.start([server / "sbin" / "rabbitmq-server"], env=environment)
        await wait_for_port(self.process, self.port, timeout=timeout)

    async def stop(self) -> None:
        await self.process.stop(patience=10.0)
        await self._names.stop(patience=2.0)

"""Bad links in a fault run: a proxy between all services and the broker, or between one service and its database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.local.kafka import DETOUR
from deploy.local.processes import free_port
from deploy.local.system import LocalSystem
from tests.support.proxy import Proxy


@dataclass(frozen=True)
class BrokerLink:
    """`given` makes the broker tell clients the proxy's port, `extra` sends the services there. The run itself goes straight."""

    proxy: Proxy
    given: Mapping[str, str]
    extra: Mapping[str, str]


@asynccontextmanager
async def broker_link() -> AsyncIterator[BrokerLink]:
    """For `fight(..., given=link.given, extra=link.extra)`."""
    port = free_port()
    async with Proxy(port) as proxy:
        yield BrokerLink(
            proxy,
            {DETOUR: f"{port}:{proxy.port}"},
            {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{proxy.port}"},
        )


@asynccontextmanager
async def database_link(
    system: LocalSystem, service: str, extra: Mapping[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """The service started again with its database behind a proxy; straight again afterwards."""
    url = system.surroundings.databases[service]
    port = urlsplit(url).port
    assert port is not None
    async with Proxy(port) as proxy:
        through = url.replace(f":{port}/", f":{proxy.port}/")
        assert through != url
        await system.restart(service, {f"{service.upper()}_DATABASE_URL": through, **(extra or {})})
        assert proxy.accepted, "the service went another way"
        yield proxy
        await system.restart(service)

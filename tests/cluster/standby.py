"""A PostgreSQL primary with a synchronous standby, reached through one address: a proxy on this machine that leads to
the primary, and after a failover to the standby. When it moves it ends every session that it leads to, as whatever
moves addresses in production must (docs/runbooks/failover.md).

A commit is acknowledged when the standby has it on disk. Nothing that was acknowledged is lost with the primary.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

from deploy.local.processes import free_port
from tests.cluster.engine import Networks, Node
from tests.support.proxy import Proxy

SUPERUSER: Final = "postgres"
_DATA: Final = "/var/lib/postgresql/pair"
# The same in the official image and in ours of deploy/images, which differ in where their binaries are.
_SERVE: Final = f"""
set -eu
PATH=$PATH:/opt/postgres/pginstall18/bin
as="setpriv --reuid=postgres --regid=postgres --init-groups"
if [ ! -s {_DATA}/PG_VERSION ]; then
    install -d -o postgres -g postgres -m 700 {_DATA}
    if [ -n "$COPY_OF" ]; then
        $as pg_basebackup -D {_DATA} -R -X stream -c fast -d "host=$COPY_OF user={SUPERUSER} application_name=$NODE"
    else
        install -o postgres -m 600 /dev/null /tmp/password
        printf '%s' "$PGPASSWORD" >/tmp/password
        $as initdb -D {_DATA} -U {SUPERUSER} --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 \
            --locale=C.UTF-8 --no-instructions
        rm /tmp/password
        echo 'host all,replication all all scram-sha-256' >>{_DATA}/pg_hba.conf
    fi
fi
exec $as postgres -D {_DATA} -c listen_addresses=* -c max_connections=200 -c shared_buffers=96MB -c jit=off \
    -c unix_socket_directories=/tmp
"""


class PostgresContainer(Node):
    """One server of the pair."""

    def __init__(
        self, image: str, networks: Networks, name: str, *, password: str, copy_of: str = ""
    ) -> None:
        self.port = free_port()
        super().__init__(
            image,
            networks,
            name,
            ports={5432: self.port},
            environment={"NODE": name, "COPY_OF": copy_of, "PGPASSWORD": password},
            command=["sh", "-c", _SERVE],
        )

    async def ask(self, statement: str, database: str = SUPERUSER) -> str:
        """What the administrator is told on this node, whoever has the address. Raises StartFailed."""
        return await self.tells(
            "sh",
            "-c",
            'PATH=$PATH:/opt/postgres/pginstall18/bin; exec psql -h 127.0.0.1 -U "$0" -d "$1" -Atqc "$2"',
            SUPERUSER,
            database,
            statement,
        )

    async def in_recovery(self) -> bool:
        """Whether it is a standby."""
        return await self.ask("select pg_is_in_recovery()") == "t"

    async def waiting(self) -> list[str]:
        """Whose commits wait for the standby at this moment; a client that has gone is waited for all the same."""
        found = await self.ask("select application_name from pg_stat_activity where wait_event = 'SyncRep'")
        return found.split()

    async def events(self) -> set[str]:
        """The ids of all events that anybody can see here, of every service."""
        names = await self.ask("select datname from pg_database where datname like 'kaowu%'")
        found = [await self.ask("select event_id from outbox", name) for name in names.split()]
        return {event for events in found for event in events.split()}


@dataclass
class Pair:
    """`async with Pair.of(image) as pair:` the primary has the address, the standby follows it synchronously."""

    image: str
    networks: Networks
    address: Proxy
    password: str
    primary: PostgresContainer
    standby: PostgresContainer

    @classmethod
    @asynccontextmanager
    async def of(cls, image: str) -> AsyncIterator[Self]:
        networks, password = Networks(), secrets.token_urlsafe(24)
        primary = PostgresContainer(image, networks, "first", password=password)
        standby = PostgresContainer(image, networks, "second", password=password, copy_of="first")
        pair = cls(image, networks, Proxy(primary.port), password, primary, standby)
        try:
            await primary.run()
            await primary.until(lambda: primary.ask("select 1"), "the primary answering")
            await pair.follow()
            await primary.reachable()
            await standby.reachable()
            await pair.address.open()
            yield pair
        finally:
            await pair.address.shut()
            await standby.remove()
            await primary.remove()
            networks.remove()

    @property
    def given(self) -> dict[str, str]:
        """For the local system: the one address."""
        return {
            "DATABASE_URL": f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.address.port}/postgres"
        }

    async def follow(self) -> None:
        """Start the standby on a copy of the primary, and let commits wait for it from then on."""
        await self.standby.run()
        await self.standby.until(self.standby.in_recovery, "the standby answering")
        await self.primary.ask(f"alter system set synchronous_standby_names = '{self.standby.name}'")
        await self.primary.ask("select pg_reload_conf()")
        await self.primary.until(self.follows, "the standby following")

    async def follows(self) -> bool:
        """Whether the primary's commits wait for the standby, which is there."""
        found = await self.primary.ask("select application_name, sync_state, state from pg_stat_replication")
        return found == f"{self.standby.name}|sync|streaming"

    async def lets_go(self) -> None:
        """Commits no longer wait for the standby: what the asynchronous case is."""
        await self.primary.ask("alter system reset synchronous_standby_names")
        await self.primary.ask("select pg_reload_conf()")

    def address_moves(self) -> int:
        """To the standby, whether it is promoted or not. Returns how many sessions it ended."""
        self.address.upstream = self.standby.port
        return self.address.cut_all()

    async def promote(self) -> None:
        """The standby becomes the primary: from now on it takes writes."""
        await self.standby.ask("select pg_promote(wait => true)")
        await self.standby.until(lambda: self._leads(self.standby), "the standby promoted")

    @staticmethod
    async def _leads(node: PostgresContainer) -> bool:
        return not await node.in_recovery()

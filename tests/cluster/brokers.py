"""Three brokers in KRaft mode, each also a controller: three copies of everything, two of which must have it.

What the services use leads through a proxy per broker, so that a broker can be cut from its clients and stay in touch
with its peers. `asking` goes past the proxies.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from contracts.topics import TOPICS
from deploy.local.processes import free_port
from tests.cluster import asking
from tests.cluster.asking import Led
from tests.cluster.engine import Networks, Node
from tests.support.proxy import DOWN, UP, Proxy, Timeout

Where: TypeAlias = tuple[str, int]
"""Topic and partition."""

NUMBERS: Final = (1, 2, 3)
OFFSETS: Final = "__consumer_offsets"
TOPIC_NAMES: Final = (*TOPICS, OFFSETS)
GROUPS: Final = sorted({group for topic in TOPICS.values() for group in topic.consumers})
_CLIENTS, _CONTROLLERS, _PEERS = 9092, 9093, 9094


class BrokerContainer(Node):
    """One broker of three, by apache/kafka's names; an image of deploy/images reads the same ones."""

    def __init__(self, image: str, networks: Networks, number: int, *, cluster: str, advertised: int) -> None:
        self.number = number
        self.port = free_port()
        voters = ",".join(f"{one}@kafka-{one}:{_CONTROLLERS}" for one in NUMBERS)
        super().__init__(
            image,
            networks,
            f"kafka-{number}",
            ports={_CLIENTS: self.port},
            environment={
                "CLUSTER_ID": cluster,
                "KAFKA_NODE_ID": str(number),
                "KAFKA_PROCESS_ROLES": "broker,controller",
                "KAFKA_CONTROLLER_QUORUM_VOTERS": voters,
                "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLERS",
                "KAFKA_LISTENERS": f"CLIENTS://:{_CLIENTS},PEERS://:{_PEERS},CONTROLLERS://:{_CONTROLLERS}",
                "KAFKA_ADVERTISED_LISTENERS": f"CLIENTS://127.0.0.1:{advertised},PEERS://kafka-{number}:{_PEERS}",
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": (
                    "CLIENTS:PLAINTEXT,PEERS:PLAINTEXT,CONTROLLERS:PLAINTEXT"
                ),
                "KAFKA_INTER_BROKER_LISTENER_NAME": "PEERS",
                "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
                "KAFKA_DEFAULT_REPLICATION_FACTOR": "3",
                "KAFKA_MIN_INSYNC_REPLICAS": "2",
                "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
                "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "3",
                "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
                # A broker that its controller no longer hears is replaced after four seconds.
                "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
                "KAFKA_BROKER_SESSION_TIMEOUT_MS": "4000",
                # A node that was cut off comes back under another address.
                "KAFKA_HEAP_OPTS": "-Xms96m -Xmx320m -Dsun.net.inetaddr.ttl=1 -Dsun.net.inetaddr.negative.ttl=1",
            },
        )


@dataclass
class Brokers:
    """`async with Brokers.of(image) as brokers:` three of them, in sync."""

    networks: Networks
    nodes: Mapping[int, BrokerContainer]
    proxies: Mapping[int, Proxy]

    @classmethod
    @asynccontextmanager
    async def of(cls, image: str) -> AsyncIterator[Self]:
        networks = Networks()
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        advertised = {number: free_port() for number in NUMBERS}
        nodes = {
            number: BrokerContainer(image, networks, number, cluster=cluster, advertised=advertised[number])
            for number in NUMBERS
        }
        proxies = {number: Proxy(nodes[number].port, port=advertised[number]) for number in NUMBERS}
        brokers = cls(networks, nodes, proxies)
        try:
            for number in NUMBERS:
                await proxies[number].open()
                await nodes[number].run()
                await nodes[number].reachable()
            for node in nodes.values():
                await node.until(brokers.whole, "three brokers in one cluster")
            yield brokers
        finally:
            for node in nodes.values():
                await node.remove()
            for proxy in proxies.values():
                await proxy.shut()
            networks.remove()

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{one.port}" for one in self.proxies.values())

    @property
    def given(self) -> dict[str, str]:
        """For the local system: where they are."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap}

    async def as_new(self) -> None:
        """For the next test: three in sync, no topic of ours, and no group that has read anything."""
        for node in self.nodes.values():
            await node.mend()
        for node in self.nodes.values():
            await node.until(self.whole, "three brokers in one cluster")
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            await admin.start()
            if left := [name for name in await admin.list_topics() if name in TOPICS]:
                await admin.delete_topics(left)

            async def empty() -> bool:
                known = [name for number in NUMBERS for name, _ in await self.partitions(number)]
                return set(known) <= {OFFSETS} and not any(
                    [await self._read(admin, group) for group in GROUPS]
                )

            await self.nodes[NUMBERS[0]].until(empty, "three brokers without topics")
        finally:
            await admin.close()

    async def _read(self, admin: AIOKafkaAdminClient, group: str) -> dict[object, object]:
        """Up to where a group has read; nothing where no group has ever been."""
        if not [where for where in await self.partitions(NUMBERS[0]) if where[0] == OFFSETS]:
            return {}
        try:
            return dict(await admin.list_consumer_group_offsets(group))
        except KafkaError as error:
            raise ConnectionError(str(error)) from error

    def others(self, number: int) -> list[int]:
        return [one for one in NUMBERS if one != number]

    async def controller(self, asked: int) -> Led:
        """The active controller, as this broker knows it. Raises OSError when it knows none."""
        try:
            return await asking.quorum(self.nodes[asked].port)
        except (KafkaError, TimeoutError) as error:
            raise ConnectionError(str(error)) from error

    async def partitions(self, asked: int) -> Mapping[Where, Led]:
        """Every partition of our topics and of the groups' offsets, as this broker knows it."""
        try:
            return await asking.partitions(self.nodes[asked].port, TOPIC_NAMES)
        except (KafkaError, TimeoutError) as error:
            raise ConnectionError(str(error)) from error

    async def led_by(self, number: int, asked: int) -> dict[Where, Led]:
        """What this broker leads, as another one knows it."""
        return {where: led for where, led in (await self.partitions(asked)).items() if led.leader == number}

    async def whole(self) -> bool:
        """Whether all three agree on a controller and every copy of every partition is in sync."""
        said = {await self.controller(number) for number in NUMBERS}
        if len(said) != 1 or said.pop().replicas != set(NUMBERS):
            return False
        known = [led for number in NUMBERS for led in (await self.partitions(number)).values()]
        return all(led.in_sync == led.replicas for led in known)

    async def start_again(self, number: int) -> None:
        """After it was killed, until everything has three copies in sync again."""
        await self.nodes[number].again()
        await self.nodes[number].until(self.whole, "all copies in sync again")

    @asynccontextmanager
    async def cut_from_peers(self, number: int) -> AsyncIterator[None]:
        """Its clients reach it; the other brokers and controllers do not, nor does it reach them."""
        await self.nodes[number].cut()
        try:
            yield
        finally:
            await self.nodes[number].heal()
            await self.nodes[number].until(self.whole, "all copies in sync again")

    @asynccontextmanager
    async def cut_from_clients(self, number: int) -> AsyncIterator[tuple[Timeout, Timeout]]:
        """Its peers reach it; connections of clients stay open, and nothing comes through."""
        proxy = self.proxies[number]
        with proxy.poisoned(UP, Timeout()) as up, proxy.poisoned(DOWN, Timeout()) as down:
            yield up, down

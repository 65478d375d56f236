"""What one broker of a cluster says of the cluster: who leads, who is in sync, who is the active controller.

aiokafka's clients ask whom they like and know neither request: here one broker is asked, on a connection of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

METADATA: Final = "__cluster_metadata"
_TEXT: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
_ENOUGH: Final = 1000  # partitions in one answer


class _QuorumDescribed(Response):  # type: ignore[misc]  # aiokafka is published without types
    API_KEY = 55
    API_VERSION = 0
    _REPLICAS = CompactArray(("replica_id", Int32), ("log_end_offset", Int64), _TAGS)
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "topics",
            CompactArray(
                ("name", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("leader", Int32),
                        ("epoch", Int32),
                        ("high_watermark", Int64),
                        ("voters", _REPLICAS),
                        ("observers", _REPLICAS),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _DescribeQuorum(RequestStruct):  # type: ignore[misc]  # aiokafka is published without types
    FLEXIBLE_VERSION = True
    API_KEY = 55
    API_VERSION = 0
    RESPONSE_TYPE = _QuorumDescribed
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("name", _TEXT), ("partitions", CompactArray(("partition", Int32), _TAGS)), _TAGS),
        ),
        _TAGS,
    )


class DescribeQuorum(Request[_DescribeQuorum]):  # type: ignore[misc]  # aiokafka is published without types
    API_KEY = 55

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([(METADATA, [(0, {})], {})], {})


class _PartitionsDescribed(Response):  # type: ignore[misc]  # aiokafka is published without types
    API_KEY = 75
    API_VERSION = 0
    _NODES = CompactArray(Int32)
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("id_high", Int64),
                ("id_low", Int64),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("epoch", Int32),
                        ("replicas", _NODES),
                        ("isr", _NODES),
                        ("eligible", _NODES),
                        ("last_known", _NODES),
                        ("offline", _NODES),
                        _TAGS,
                    ),
                ),
                ("operations", Int32),
                _TAGS,
            ),
        ),
        ("next_cursor", Int8),  # -1: there is none, since the limit is never reached
        _TAGS,
    )


class _DescribePartitions(RequestStruct):  # type: ignore[misc]  # aiokafka is published without types
    FLEXIBLE_VERSION = True
    API_KEY = 75
    API_VERSION = 0
    RESPONSE_TYPE = _PartitionsDescribed
    SCHEMA = Schema(
        ("topics", CompactArray(("name", _TEXT), _TAGS)), ("limit", Int32), ("cursor", Int8), _TAGS
    )


class DescribePartitions(Request[_DescribePartitions]):  # type: ignore[misc]  # aiokafka is published without types
    API_KEY = 75

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = sorted(topics)

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([(name, {}) for name in self._topics], _ENOUGH, -1, {})


@dataclass(frozen=True, slots=True)
class Led:
    """A partition, or the controllers' quorum: who leads it, since which election, and who is in sync."""

    leader: int
    epoch: int
    replicas: frozenset[int]
    in_sync: frozenset[int]


async def _ask(port: int, request: Any) -> Any:
    connection = await create_conn("127.0.0.1", port, request_timeout_ms=5000)
    try:
        return (await connection.send(request)).to_object()
    finally:
        connection.close()


async def quorum(port: int) -> Led:
    """Of the controllers. Raises OSError or KafkaError where nobody leads."""
    answer = await _ask(port, DescribeQuorum())
    if answer["error_code"] or answer["topics"][0]["partitions"][0]["error_code"]:
        raise ConnectionError("the controllers have no leader")
    (partition,) = answer["topics"][0]["partitions"]
    voters = frozenset(voter["replica_id"] for voter in partition["voters"])
    return Led(partition["leader"], partition["epoch"], voters, voters)


async def partitions(port: int, topics: Sequence[str]) -> Mapping[tuple[str, int], Led]:
    """Of these topics, as far as they exist."""
    answer = await _ask(port, DescribePartitions(topics))
    return {
        (topic["name"], one["partition"]): Led(
            one["leader"], one["epoch"], frozenset(one["replicas"]), frozenset(one["isr"])
        )
        for topic in answer["topics"]
        if not topic["error_code"]
        for one in topic["partitions"]
    }

"""Protections, each of which can be switched off from outside, and what then breaks: the proof that a fault is really met.

A mutation that nothing catches means that the fault was not reached, or that nobody needs the protection. Where a second
protection stands behind the first, it is off in both runs (`behind`), so that the first is seen to hold alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tests.faults import scenes, switching
from tests.faults.scenes import Scene
from tests.support import switched_off

Off: TypeAlias = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutation:
    """One protection. `caught` are the invariants of faults.md of which at least one must report that it is gone."""

    protection: str
    off: Off
    scene: Scene
    reached: str
    caught: frozenset[str]
    behind: Sequence[Off] = ()


MUTATIONS: Final = (
    Mutation("inbox", switched_off.no_inbox, scenes.read_once_more, "events read again", frozenset({"I6"})),
    Mutation(
        "inbox, after a death between the two commits",
        switched_off.no_inbox,
        scenes.a_member_dies_after_its_commit,
        "died before its offsets",
        frozenset({"I6"}),
    ),
    Mutation(
        "inbox in the transaction of the effect",
        switching.inbox_apart,
        scenes.a_member_dies_in_its_transaction,
        "died in its transaction",
        frozenset({"I13"}),
    ),
    Mutation(
        "event in the transaction of its fact",
        switching.events_apart,
        scenes.a_process_dies_after_its_commit,
        "died after its commit",
        frozenset({"I13"}),
    ),
    Mutation(
        "key-ordered parking",
        switched_off.no_parking_order,
        scenes.a_poisoned_key,
        "an event that never works",
        frozenset({"I12"}),
    ),
    Mutation(
        "relay's horizon",
        switched_off.no_horizon,
        scenes.an_early_transaction_that_commits_late,
        "a later transaction committed first",
        frozenset({"I5"}),
    ),
    Mutation(
        "relay's pull-forward",
        switched_off.no_pull_forward,
        scenes.an_early_fact_beyond_the_horizon,
        "a later fact had the older transaction",
        frozenset({"I4"}),
    ),
    Mutation(
        "relay's cursor behind what is acknowledged",
        switching.cursor_first,
        scenes.a_relay_loses_its_broker,
        "a page never arrived",
        frozenset({"I5"}),
    ),
    Mutation(
        "relay's advisory lock",
        switching.no_leader_lock,
        scenes.a_frozen_leader,
        "the leader was frozen",
        frozenset({"I6"}),
        behind=(switched_off.no_inbox,),
    ),
    Mutation(
        "version predicate",
        switching.no_version_predicate,
        scenes.two_decisions_at_once,
        "two had read the same version",
        frozenset({"I3"}),
        behind=(switching.no_row_locks,),
    ),
    Mutation(
        "offsets after the database's commit",
        switching.offsets_first,
        scenes.a_member_dies_in_its_transaction,
        "died in its transaction",
        frozenset({"I5"}),
    ),
    Mutation(
        "key of idempotence in the transaction of its answer",
        switching.keys_apart,
        scenes.a_request_is_cut_off,
        "died before its commit",
        frozenset({"I9"}),
    ),
    Mutation(
        "text that every column can hold",
        switching.raw_text,
        scenes.a_record_that_no_column_can_hold,
        "records that nobody can read",
        frozenset({"I5", "I11"}),
    ),
    Mutation(
        "a newer form of a fact is parked",
        switching.newer_majors_skipped,
        scenes.a_newer_form_of_a_fact,
        "said in a newer form",
        frozenset({"I5"}),
    ),
    Mutation(
        "size of an event",
        switching.no_size,
        scenes.an_event_too_large_for_the_broker,
        "an event was too large",
        frozenset({"I5", "I11"}),
    ),
    Mutation(
        "the log is kept",
        switching.log_emptied,
        scenes.topics_are_lost,
        "records were lost",
        frozenset({"I13"}),
    ),
)

# Which protection stands between each fault and the invariants. A row is here or in ELSEWHERE.
STANDS_FOR: Final[dict[int, str]] = {
    1: "event in the transaction of its fact",
    2: "key of idempotence in the transaction of its answer",
    3: "inbox",
    4: "relay's cursor behind what is acknowledged",
    5: "inbox, after a death between the two commits",
    6: "inbox in the transaction of the effect",
    7: "event in the transaction of its fact",
    10: "version predicate",
    11: "offsets after the database's commit",
    12: "relay's cursor behind what is acknowledged",
    13: "relay's cursor behind what is acknowledged",
    14: "relay's cursor behind what is acknowledged",
    15: "relay's cursor behind what is acknowledged",
    16: "inbox",
    17: "inbox",
    18: "relay's pull-forward",
    19: "text that every column can hold",
    20: "size of an event",
    21: "a newer form of a fact is parked",
    22: "key-ordered parking",
    23: "inbox",
    24: "the log is kept",
    25: "relay's advisory lock",
    26: "event in the transaction of its fact",
    29: "inbox in the transaction of the effect",
    30: "offsets after the database's commit",
    31: "key of idempotence in the transaction of its answer",
    32: "key of idempotence in the transaction of its answer",
}
# What no invariant of a system at rest can miss: time that passed, a wrong clock, another machine. There the fault's own test
# looks at what its protection does.
ELSEWHERE: Final[dict[int, str]] = {
    27: "tests/cluster/test_standby.py",
    28: "tests/faults/test_database.py",
    33: "tests/faults/test_restore.py",
    34: "tests/faults/test_time.py",
    35: "tests/faults/test_time.py",
    37: "tests/faults/test_time.py",
    38: "tests/faults/test_sweep.py",
    39: "tests/faults/test_time.py",
    56: "tests/faults/test_change.py",
    57: "tests/faults/test_change.py",
}

"""What a process remembers of the keys it has heard of (decision 0018)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from services.chassis.heard import Heard
from services.chassis.turns import Taken


def taken(key: str, version: int, topic: str = "exam.payment") -> Taken:
    envelope = SimpleNamespace(sequence=version)
    return Taken(cast("Any", None), cast("Any", None), cast("Any", envelope), "handler", (topic, key))


def test_only_what_comes_after_a_later_version_of_its_key_on_its_topic_was_passed() -> None:
    heard = Heard()
    heard.remember([taken("one", 3), taken("one", 5), taken("one", 4)])
    assert heard.past(taken("one", 4)) == 5
    assert heard.past(taken("one", 5)) is None
    assert heard.past(taken("one", 6)) is None
    assert heard.past(taken("two", 1)) is None
    assert heard.past(taken("one", 1, "exam.confirmation")) is None


def test_of_many_keys_those_are_remembered_that_came_last() -> None:
    heard = Heard(keys=3)
    heard.remember(taken(key, 7) for key in "abc")
    heard.remember([taken("a", 8)])
    heard.remember(taken(key, 7) for key in "de")
    assert {key for key in "abcde" if heard.past(taken(key, 1))} == set("ade")
    assert heard.past(taken("a", 7)) == 8

"""`kill -9` at a named point, inside a test."""

from __future__ import annotations

from services.chassis import crash


class Killed(BaseException):
    """Stands for `kill -9`: nothing below catches it."""


def kill_at(name: str, count: int = 1) -> None:
    """Die where this is passed the so-manieth time; "" for nowhere any more."""
    crash._name, crash._left = name, count

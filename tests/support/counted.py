"""What a service in this process has counted: the proof that something was reached, read where operators read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY


def counted(name: str, **labels: str) -> float:
    """By its name on `/metrics`; 0 for what was never counted."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@contextmanager
def counts(times: int, name: str, **labels: str) -> Iterator[None]:
    """Inside, this is counted so often."""
    before = counted(name, **labels)
    yield
    assert counted(name, **labels) - before == times, (name, labels)

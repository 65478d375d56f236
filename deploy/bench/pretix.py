"""Where pretix lives: an environment of its own beside the caches, made by tests/benchmarks/pretix-install."""

from __future__ import annotations

import hashlib
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from deploy.bench.contender import ROOT
from deploy.local.kafka import cache_directory

LOCK: Final = ROOT / "requirements" / "pretix.lock"
INSTALL: Final = "tests/benchmarks/pretix-install"


def directory() -> Path:
    """Of exactly this lock file."""
    return cache_directory() / f"pretix-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"


def interpreter() -> Path | None:
    """Its Python, if it was installed."""
    place = directory()
    return place / "bin" / "python" if (place / "complete").exists() else None


def absent() -> str:
    """Why its row cannot be measured."""
    return f"pretix of requirements/pretix.lock is not installed: run {INSTALL}, or make bench"


def version() -> str:
    """Of pretix in its environment."""
    found = [str(path) for path in directory().glob("lib/python3*/site-packages")]
    for one in distributions(name="pretix", path=found):
        return one.version
    return "?"

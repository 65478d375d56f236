"""Where the peers live: an environment of their own beside the caches, made by tests/benchmarks/peers-install."""

from __future__ import annotations

import hashlib
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from deploy.bench.contender import ROOT
from deploy.local.kafka import cache_directory

LOCK: Final = ROOT / "requirements" / "bench.lock"
PROGRAMS: Final = ROOT / "tests" / "benchmarks" / "peers"
INSTALL: Final = "tests/benchmarks/peers-install"


def directory() -> Path:
    """Of exactly this lock file."""
    return cache_directory() / f"peers-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"


def interpreter() -> Path | None:
    """Their Python, if they were installed."""
    place = directory()
    return place / "bin" / "python" if (place / "complete").exists() else None


def absent() -> str:
    """Why a row cannot be measured."""
    return f"the peers of requirements/bench.lock are not installed: run {INSTALL}, or make bench"


def version(package: str) -> str:
    """Of a package in their environment."""
    found = [str(path) for path in directory().glob("lib/python3*/site-packages")]
    for one in distributions(name=package, path=found):
        return one.version
    return "?"

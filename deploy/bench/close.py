"""`kaowu bench close`: the sweep, the instant with payments meanwhile, and callbacks, each on a stage of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deploy.bench.callbacks import callbacks
from deploy.bench.instant import instant
from deploy.bench.streams import Part
from deploy.bench.sweeping import sweep

PARTS: Final[Mapping[str, Part]] = {
    "sweep": Part("P1 P2 P7 sweep", sweep, lambda scale: 1 + 4 * scale.rounds),
    "instant": Part("P3 P7 the instant", instant, lambda _: 4),
    "callbacks": Part("P9 callbacks", callbacks, lambda scale: 1 + 2 * (1 + scale.rounds)),
}

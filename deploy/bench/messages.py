"""`kaowu bench messages`: the storm after a close, from what payment says to what the carriers report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deploy.bench.creating import creating
from deploy.bench.reported import receipts
from deploy.bench.sending import sending
from deploy.bench.streams import Part

PARTS: Final[Mapping[str, Part]] = {
    "creating": Part("P8 creating", creating, lambda scale: 2 + 2 * scale.storm_rounds),
    "sending": Part("P8 sending", sending, lambda scale: 2 + 3 * scale.rounds),
    "receipts": Part("receipts", receipts, lambda scale: 2 + 2 * scale.rounds),
}

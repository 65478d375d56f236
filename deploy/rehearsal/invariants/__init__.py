"""The invariants of faults.md §1 that apply to this version, as pure functions over loaded evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from deploy.rehearsal.invariants import delivery, history, messages, money, privacy
from deploy.rehearsal.invariants.evidence import Evidence, Finding

# I15 (audit chain) and I17 (counties) are not facts of a system at rest in this version: the one has no chain yet,
# the other is tested route by route.
ALL: Final[tuple[Callable[[Evidence], Finding], ...]] = (
    money.money,
    money.never_both,
    history.transitions,
    delivery.versions,
    delivery.nothing_lost,
    delivery.once,
    money.forfeiture,
    messages.told,
    delivery.keys,
    history.reversals,
    delivery.caught_up,
    delivery.parked,
    history.folds,
    history.origins,
    privacy.no_personal_data,
)


def judge(evidence: Evidence) -> list[Finding]:
    """Every invariant over this evidence."""
    return [invariant(evidence) for invariant in ALL]

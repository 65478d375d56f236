"""What is no longer true of somebody, as conditions of statements: the domain's tables, and nothing besides them."""

from __future__ import annotations

from services.notification.domain.life import HOLDS_WHILE, OVERTAKEN_BY
from services.notification.tables import one_of


def untrue(occasion: str, standing: str) -> str:
    """What the occasion tells is not true of somebody of this standing."""
    return " or ".join(
        f"({occasion} = '{told}' and not ({one_of(standing, standings)}))"
        for told, standings in sorted(HOLDS_WHILE.items())
    )


def overtaken(earlier: str, later: str) -> str:
    """What the one occasion tells was undone by the other, which came after it."""
    return " or ".join(
        f"({earlier} = '{told}' and {one_of(later, undone_by)})"
        for told, undone_by in sorted(OVERTAKEN_BY.items())
    )

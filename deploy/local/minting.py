"""`kaowu token`: a bearer token that only the local system in one directory accepts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from deploy.local.keys import Tokens
from deploy.local.processes import StartFailed
from services.chassis.clock import RehearsalClock, SystemClock

# `candidate` alone may pre-register; the other words are limited to a registration, a site or a level.
ROLE = re.compile(
    r"office|ops|service|candidate|candidate:[0-9a-f-]{36}|desk:[a-z][a-z0-9-]*|reviewer:[a-z][a-z0-9-]*"
)


def mint_for(data: Path, roles: Sequence[str], subject: str, *, days: int) -> str:
    """Raises NoKeys where no local system was ever started, StartFailed for a role that no route knows."""
    if wrong := [role for role in roles if not ROLE.fullmatch(role)]:
        raise StartFailed(
            f"no such role: {', '.join(wrong)}. There are office, ops, service, candidate, "
            "candidate:<registration id>, desk:<site>, reviewer:<level>"
        )
    tokens = Tokens.of(data / "keys")
    clock_file = data / "clock"
    clock = RehearsalClock(clock_file) if clock_file.exists() else SystemClock()
    return tokens.mint(roles, subject, at=clock.now(), lifetime=timedelta(days=days))

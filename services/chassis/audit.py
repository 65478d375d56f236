"""Who did or tried what. Kept in the database in the transaction of the act; refused tries go to the log.

`detail` holds codes, ids and counts, never a person's data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter

if TYPE_CHECKING:
    from services.chassis.db import UnitOfWork
    from services.chassis.tokens import Actor

log = structlog.get_logger("audit")

ACCESS_REFUSED = Counter("kaowu_access_refused", "Requests by somebody who may not", ["route", "why"])

_INSERT = """
insert into audit (at, actor_kind, actor, action, subject, outcome, detail)
values ($1, $2, $3, $4, $5, $6, $7::text::jsonb)
"""


async def record(
    uow: UnitOfWork,
    actor: Actor,
    action: str,
    *,
    subject: str | None = None,
    outcome: str = "done",
    detail: Mapping[str, object] | None = None,
) -> None:
    """One line of the audit trail: this actor did `action` to `subject` (an id)."""
    await uow.sql(
        _INSERT,
        uow.at,
        actor.kind,
        actor.subject,
        action,
        subject,
        outcome,
        json.dumps(dict(detail or {}), default=str),
    )


def refused_access(method: str, route: str, why: str, who: str, subject: str = "") -> None:
    """Somebody was kept out. There is no transaction to keep it in, so it is a line of the audit log."""
    ACCESS_REFUSED.labels(route, why).inc()
    log.warning("access-refused", method=method, route=route, why=why, who=who, subject=subject)

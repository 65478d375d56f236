"""How often one caller may do something, counted in the database: for every process of a service together."""

from __future__ import annotations

import math
from datetime import timedelta

from contracts.refusals import Code, Refused
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor


async def once_every(uow: UnitOfWork, actor: Actor, key: str, every: timedelta) -> None:
    """Refuse (429) what this caller did less than `every` ago, in whichever process. Counts once the work is committed."""
    done = await uow.sql(
        "insert into idempotency_keys as k (caller, key, request_hash, answer, created_at) values ($1, $2, '', '{}', $3) "
        "on conflict (caller, key) do update set created_at = excluded.created_at "
        "where k.created_at <= $3 - $4::interval or k.created_at > $3 returning 1",
        actor.subject,
        key,
        uow.at,
        every,
    )
    if not done:
        seconds = math.ceil(every.total_seconds())
        raise Refused(Code.TOO_SOON, f"操作太频繁，请在{seconds}秒后再试。", hints={"seconds": seconds})

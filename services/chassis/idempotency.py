"""Repeating a request safely: the same request with the same key is done once, and gets the first answer again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pydantic import BaseModel

from contracts.refusals import Code, Refused
from services.chassis.db import UnitOfWork
from services.chassis.tokens import Actor

_KEY: Final = re.compile(r"[\x21-\x7e]{1,100}")


async def idempotent(
    uow: UnitOfWork,
    *,
    actor: Actor,
    key: str | None,
    request: bytes | BaseModel,
    run: Callable[[], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """Do it once per caller and key: the same request again gets the first answer, another one is refused.

    The key is written in the same transaction as its work, so a crash leaves both or neither; a second request
    that comes meanwhile waits for the first. Refusals are not stored: they are meant to be tried again.
    """
    if key is None:
        return await run()
    if not _KEY.fullmatch(key):
        raise Refused(Code.INVALID, "Idempotency-Key 应为 1 至 100 个可见字符。")
    body = request if isinstance(request, bytes) else request.model_dump_json().encode()
    digest = hashlib.sha256(body).digest()
    mine = await uow.sql(
        "insert into idempotency_keys (caller, key, request_hash, created_at) values ($1, $2, $3, $4) "
        "on conflict do nothing returning 1 as mine",
        actor.subject,
        key,
        digest,
        uow.at,
    )
    if not mine:
        stored = (
            await uow.sql(
                "select request_hash, answer::text as answer from idempotency_keys where caller = $1 and key = $2",
                actor.subject,
                key,
            )
        )[0]
        if bytes(stored.request_hash) != digest:
            raise Refused(
                Code.IDEMPOTENCY_CONFLICT, "同一个 Idempotency-Key 不能用于两个不同的请求，请换一个。"
            )
        first: dict[str, Any] = json.loads(stored.answer)
        return first
    answer = await run()
    await uow.sql(
        "update idempotency_keys set answer = $3::text::jsonb where caller = $1 and key = $2",
        actor.subject,
        key,
        json.dumps(answer, default=str, ensure_ascii=False),
    )
    return answer

"""A forfeiture with everything that may belong to one, its evidence file, and every way to alter one value of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from contracts import payment
from deploy.evidence.form import values
from deploy.evidence.making import make
from deploy.evidence.reaching import Reach
from deploy.simulators.order_book import TradeState
from services.chassis.clock_guard import Readings
from tests.service.payment.system import CLOSES, System, moment

LAST = "2024-02-08 23:57:59"


async def told(system: System, reach: Reach, candidate: UUID) -> None:
    """What notification keeps of the messages that payment's events led to."""
    for event in await system.rows("select * from outbox where key = $1 order by id", str(candidate)):
        occasion = event["type"].split(".")[2]
        if occasion not in {"closing-soon", "expired"}:
            continue
        for channel, state in (("sms", "delivered"), ("email", "undelivered")):
            async with reach.notification.unit_of_work(event["occurred_at"]) as uow:
                await uow.changed(
                    "insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts, "
                    "created_at, state_at, not_before, template_version, reason_code, provider_ref, correlation_id, "
                    "caused_by, body) values ($1, $2, $3, '', $4, $5, $6, '{}', $7, $7, $7, 3, $8, '900619746936498440^0', "
                    "'c', $9, '考生1234：……') on conflict do nothing",
                    uuid7(),
                    candidate,
                    occasion,
                    f"payment-{event['sequence']}",
                    channel,
                    state,
                    event["occurred_at"],
                    "mailbox-full" if state == "undelivered" else None,
                    event["event_id"],
                )


async def forfeited(system: System, reach: Reach, *, others: int = 6) -> UUID:
    """Somebody who was reminded, ordered four times, at both gateways, paid once too late, and was forfeited among others."""
    candidate, *_ = await system.approved(1 + others)
    system.at("2024-02-05 00:00")
    await system.remind()
    first = await system.ordered(candidate)
    system.at("2024-02-05 03:00")
    await system.settle()
    assert (await system.order_row(first))["status"] == "closed"
    opened = await system.ordered(candidate, "alipay")
    system.world.alipay.book.open(opened, system.clock.now())
    system.at("2024-02-05 05:00")
    await system.settle()
    assert (await system.order_row(opened))["status"] == "closed"
    await system.write(
        "insert into orders (order_no, registration_id, channel, amount_fen, currency, status, created_at, expires_at, "
        "ask_at, refusal, decided_at) values ('20240129REFUSED', $1, 'wechat', 20000, 'CNY', 'failed', $2, $3, $3, "
        "'PARAM_ERROR', $2)",
        candidate,
        moment("2024-02-05 04:00"),
        moment("2024-02-05 06:00"),
    )
    system.at("2024-02-08 00:00")
    await system.remind()
    system.at(LAST)
    third = await system.ordered(candidate)
    order = system.world.wechat.book.find(third)
    assert order is not None
    order.state, order.paid_at, order.transaction_id = TradeState.SUCCESS, moment(CLOSES), "42000000000000001"
    system.at(CLOSES)
    now = moment(CLOSES)
    system.turns.guard.agreed = Readings(now, now + timedelta(seconds=1), now - timedelta(milliseconds=3))
    await system.close()
    assert await system.status(candidate) == "expired"
    await told(system, reach, candidate)
    return candidate


async def written(
    system: System, reach: Reach, candidate: UUID, *, made_at: str = "2024-02-10 09:00"
) -> dict[str, Any]:
    made = await make(reach, candidate, made_at=moment(made_at))
    loaded: dict[str, Any] = json.loads(json.dumps(made, ensure_ascii=False))
    return loaded


def bytes_of(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


async def root_of(system: System) -> str:
    """As somebody has it who reads the topic, not the file."""
    (event,) = await system.said(system.cycle.id)
    assert isinstance(event, payment.WindowClosed)
    return event.proof_root


MUTANTS: dict[type, Callable[[Any], list[Any]]] = {
    str: lambda text: [text + "0", ("0" if text[:1] != "0" else "1") + text[1:]] if text else ["x"],
    int: lambda number: [number + 1],
    bool: lambda flag: [not flag],
    type(None): lambda _: ["x", 1],
    list: lambda _: [["x"], [{}]],
    dict: lambda _: [{"x": "y"}],
}


def put(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with another value at this place."""
    changed = copy.deepcopy(content)
    at: Any = changed
    steps: list[str | int] = []
    kept = path
    while kept:
        if match := re.match(r"\[(\d+)\]\.?", kept):
            steps.append(int(match[1]))
        else:
            holder = at
            for step in steps:
                holder = holder[step]
            # A key may hold dots and brackets itself: the longest that is there.
            key = max((k for k in holder if kept == k or kept.startswith((f"{k}.", f"{k}["))), key=len)
            steps.append(key)
            kept = kept[len(key) :].removeprefix(".")
            continue
        kept = kept[match.end() :]
    for step in steps[:-1]:
        at = at[step]
    at[steps[-1]] = value
    return changed


def mutants(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each value altered, one at a time; of the cycle's thousand and the checksums only some."""
    found: list[tuple[str, dict[str, Any]]] = []
    for number, (path, value) in enumerate(values(content)):
        if path.startswith(("cycle.content", "checksums")) and number % 150:
            continue
        found.extend(
            (path, put(content, path, other)) for other in MUTANTS[type(value)](value) if other != value
        )
    return found


# What only our own word stands for: docs/evidence.md says so, and `verify` says it with every file.
STATED = re.compile(
    r"made_at|notices\[\d+\]\.(message_id|channel|template_version|state|state_at|created_at|provider_ref|reason_code)"
    r"|reminders\[\d+\]\.messages\[\d+\]\.(message_id|channel|template_version|state|state_at|created_at|provider_ref|reason_code)"
    r"|(earlier\[\d+\]\.)?published\.(event_id|sequence|occurred_at|closed_at|proofs_before|counts\.\w+|sums_fen\.\w+)"
)

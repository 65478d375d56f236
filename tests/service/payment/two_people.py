"""Two people of the office with a token each, and what their tests ask of the service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
from uuid_utils.compat import uuid7

from contracts import payment
from tests.service.payment.system import System, approved, moment

INSTANT = timedelta(microseconds=1)
LATER = "2024-02-11 00:00"
ASKS, DECIDES = "office-li", "office-wang"


class Office:
    """Two people of the office, each with a token of their own."""

    def __init__(self, system: System) -> None:
        self.system = system

    async def call(
        self,
        who: str,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        language: str | None = None,
    ) -> httpx2.Response:
        headers = {
            "authorization": f"Bearer {self.system.tokens.mint('office', who, at=moment('2024-01-29 00:00'))}"
        }
        headers |= {"idempotency-key": key} if key else {}
        headers |= {"accept-language": language} if language else {}
        return await self.system.http.request(method, path, json=body, headers=headers)

    async def ask(self, closes_at: str, site: str | None = None, **more: Any) -> httpx2.Response:
        body = {
            "kind": "extend-payment",
            "closes_at": moment(closes_at).isoformat(),
            "reason": "系统故障，顺延两天",
            "reason_code": "outage",
        }
        if site is not None:
            body["site"] = site
        return await self.call(ASKS, "POST", "/office/decisions", body, **more)

    async def asked(self, closes_at: str = LATER, site: str | None = None) -> dict[str, Any]:
        answer = await self.ask(closes_at, site)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def say(
        self, decision: dict[str, Any], word: str, who: str = DECIDES, **more: Any
    ) -> httpx2.Response:
        return await self.call(who, "POST", f"/office/decisions/{decision['decision_id']}/{word}", {}, **more)

    async def approve(self, decision: dict[str, Any]) -> dict[str, Any]:
        answer = await self.say(decision, "approve")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def extend(self, closes_at: str = LATER, site: str | None = None) -> dict[str, Any]:
        """Asked for, approved and carried out."""
        decision = await self.asked(closes_at, site)
        await self.approve(decision)
        await self.system.carry_out_job.run()
        return await self.read(decision)

    async def read(self, decision: dict[str, Any]) -> dict[str, Any]:
        answer = await self.call(DECIDES, "GET", f"/office/decisions/{decision['decision_id']}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def owing_at(system: System, *sites: str) -> list[UUID]:
    """One candidate of each of these desks who owes the fee."""
    found = [uuid7() for _ in sites]
    await system.deliver(*(approved(one, site_id=site) for one, site in zip(found, sites, strict=True)))
    return found


async def words(system: System, candidates: Sequence[UUID]) -> list[list[str]]:
    return [await system.words(one) for one in candidates]


async def closes(system: System, candidate: UUID) -> datetime:
    found: datetime = (await system.obligation(candidate))["closes_at"]
    return found


async def without_desk(system: System, many: int) -> list[UUID]:
    """As version n-1 wrote them down that approved them: it did not note their desks."""
    found = await system.approved(many)
    await system.write("update obligations set site_id = null where registration_id = any($1::uuid[])", found)
    return found


async def closed(system: System) -> list[datetime]:
    """The closes whose totals are published."""
    found = await system.said(system.cycle.id)
    return [event.closes_at for event in found if isinstance(event, payment.WindowClosed)]

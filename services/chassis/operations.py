"""Operator routes that every service has, on the internal listener only."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from contracts.refusals import Code, Refused
from services.chassis import audit, parked
from services.chassis.http import allow, open_to_all, who_may_call
from services.chassis.telemetry import UNPUBLISHED
from services.chassis.tokens import Actor

if TYPE_CHECKING:
    from services.chassis.process import Process

_OUTBOX = """
with c as (select * from relay_cursor where id = 1)
select coalesce((select max(id) from outbox), 0) as added,
       count(o.id) as unpublished,
       (select count(*) from parked where status = 'parked') as parked,
       coalesce(extract(epoch from clock_timestamp() - min(uuid_extract_timestamp(o.event_id))), 0)::float8 as age
from c left join outbox o on o.xid >= c.lower and not (c.upper is not null and o.xid < c.upper and o.id <= c.last_id)
"""
_STALE_AFTER = 60.0  # seconds an event may wait for the broker before this process is not ready
# Real seconds that whoever waits for rest is kept waiting by something under way, and between two looks at it.
_KEPT_WAITING = 0.1
_BETWEEN_LOOKS = 0.004


class Note(BaseModel):
    """Why an operator decided so."""

    note: Annotated[str, Field(min_length=1, max_length=500)]


def operator_routes(process: Process) -> APIRouter:  # noqa: C901, PLR0915 - a table of routes
    """The routes of one running service."""
    router = APIRouter()
    plumbing = process.plumbing
    database = plumbing.database

    async def outbox() -> Any:
        rows = await database.glance(_OUTBOX)
        if not rows:
            raise Refused(Code.UNAVAILABLE, "relay_cursor has no row: the database is not migrated")
        UNPUBLISHED.set(rows[0].unpublished)
        return rows[0]

    @router.get("/live", dependencies=[open_to_all("a supervisor asks whether the process answers")])
    async def live() -> dict[str, str]:
        return {"service": plumbing.name, "status": "live"}

    @router.get("/ready", dependencies=[open_to_all("a load balancer asks whether to send requests here")])
    async def ready() -> Response:
        checks: dict[str, Any] = {"fingerprint": plumbing.cycle.fingerprint, "leader": process.relay.leading}
        faults: list[str] = []
        try:
            row = await outbox()
            checks |= {"outbox_unpublished": row.unpublished, "outbox_age_seconds": round(row.age, 3)}
            if row.age > _STALE_AFTER:
                faults.append("the oldest unpublished event is too old")
        except Exception as error:  # readiness reports every fault instead of raising it
            faults.append(f"database: {type(error).__name__}")
        if not await process.broker.ping(timeout=2):
            faults.append("the broker does not answer")
        if process.consumers.topics and not assigned(process):
            faults.append("no partition is assigned to this consumer")
        body = {"service": plumbing.name, "ready": not faults, "faults": faults, **checks}
        return JSONResponse(body, status_code=503 if faults else 200)

    @router.get("/metrics", dependencies=[open_to_all("metrics hold no personal data")])
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/ops/rest", dependencies=[allow("ops")])
    async def rest(soon: bool = False, hurry: bool = False) -> dict[str, Any]:
        """Whether this service is at rest, and when it next has something to do.

        `hurry`: no pace is waited out. `soon`: moreover what is under way may end first, which costs less than to be asked
        again."""
        if soon:
            await settled(process)
        elif hurry:
            hasten(process)
        row = await outbox()
        if soon and not row.unpublished and not process.consumers.busy:
            progress = row.added, process.consumers.handled
            if process.jobs.hurry(progress):
                await settled(process)
                row = await outbox()
        return {
            "service": plumbing.name,
            "at": plumbing.clock.now().isoformat(),
            "events_added": row.added,
            "events_unpublished": row.unpublished,
            "handled": process.consumers.handled,
            "consuming": process.consumers.busy,
            "parked": row.parked,
            "jobs": [
                {
                    "name": job.name,
                    "running": job.running or job.awake.is_set(),
                    "due_at": None if job.due_at is None else job.due_at.isoformat(),
                    "runs": job.runs,
                }
                for job in process.jobs.jobs
            ],
            "fingerprint": plumbing.cycle.fingerprint,
        }

    @router.get("/ops/routes", dependencies=[allow("ops")])
    async def routes() -> dict[str, Any]:
        """Every route of both listeners, and who may call it."""
        doors = {"public": who_may_call(process.public), "internal": who_may_call(process.internal)}
        return {listener: [asdict(door) for door in found] for listener, found in doors.items()}

    @router.get("/ops/parked")
    async def list_parked(_: Annotated[Actor, allow("ops")], status: str = "parked") -> dict[str, Any]:
        async with database.reading() as uow:
            found = await parked.list_parked(uow, status=status)
        return {"parked": [one.facts() for one in found]}

    @router.post("/ops/parked/{parked_id}/replay")
    async def replay(parked_id: int, actor: Annotated[Actor, allow("ops")]) -> dict[str, Any]:
        try:
            one = await parked.replay(database, process.consumers, parked_id)
        except parked.CannotReplay as error:
            raise Refused(Code.NOT_ALLOWED, str(error)) from None
        await _audited(actor, "replay-parked", one)
        return {"replayed": one.facts()}

    @router.post("/ops/parked/{parked_id}/discard")
    async def discard(parked_id: int, note: Note, actor: Annotated[Actor, allow("ops")]) -> dict[str, Any]:
        try:
            one = await parked.discard(database, parked_id, note.note)
        except parked.CannotReplay as error:
            raise Refused(Code.NOT_ALLOWED, str(error)) from None
        await _audited(actor, "discard-parked", one)
        return {"discarded": one.facts()}

    async def _audited(actor: Actor, action: str, one: parked.Parked) -> None:
        async with database.unit_of_work() as uow:
            await audit.record(
                uow, actor, action, subject=one.key, detail={"parked": one.id, "type": one.type}
            )

    return router


def hasten(process: Process) -> None:
    """Somebody waits: what gathers more does so no longer."""
    process.jobs.hurry()
    process.consumers.hurry()
    process.relay.hurry()


async def settled(process: Process) -> None:
    """Until nothing is under way here, or a moment has passed."""
    until = time.monotonic() + _KEPT_WAITING
    while True:
        hasten(process)
        now = process.plumbing.clock.now()
        if not process.consumers.busy and not any(job.moves(now) for job in process.jobs.jobs):
            return
        if time.monotonic() > until:
            return
        await asyncio.sleep(_BETWEEN_LOOKS)


def assigned(process: Process) -> bool:
    """Whether every subscriber holds at least one partition; `ping` alone is green while consumers are dead."""
    consumers = [getattr(subscriber, "consumer", None) for subscriber in process.broker.subscribers]
    return bool(consumers) and all(c is not None and bool(c.assignment()) for c in consumers)

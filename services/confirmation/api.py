"""Door 1, people: desks, reviewers, the office, and the candidate who looks at the own case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from contracts.cycle import Cycle
from contracts.reasons import Decision, ReasonCode, WindowReason
from services.chassis.db import Database
from services.chassis.http import allow
from services.chassis.idempotency import idempotent
from services.chassis.tokens import Actor
from services.chassis.vault import Vault
from services.confirmation import handlers
from services.confirmation.domain import DeskCheck, Mark, State
from services.confirmation.handlers import Answer, Verdict

MAX_BODY = 1024 * 1024  # 500 decisions, each with a note

Note = Annotated[str, Field(min_length=1, max_length=500)]
Reasons = Annotated[tuple[ReasonCode, ...], Field(max_length=len(ReasonCode))]


class Body(BaseModel):
    """What somebody sends; an unknown field is a mistake that must be seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ConfirmBody(Body):
    """The desk's checklist."""

    form_version: Annotated[int, Field(strict=True, ge=1)]
    identity_seen: Annotated[bool, Field(strict=True)]
    stamped: Annotated[bool, Field(strict=True)]
    documents: Annotated[dict[str, Mark], Field(max_length=100)] = {}


class RejectBody(Body):
    """Why not."""

    reason_codes: Reasons = ()
    note: Note | None = None


class ReturnBody(RejectBody):
    """Why it goes back, and until when it must be put right."""

    fix_until: AwareDatetime | None = None


class OneDecision(ReturnBody):
    """One decision of a list."""

    registration_id: UUID
    decision: Decision

    def verdict(self) -> Verdict:
        return Verdict(self.registration_id, self.decision, self.reason_codes, self.note, self.fix_until)


class DecisionsBody(Body):
    """A list of decisions, each on its own."""

    decisions: Annotated[list[OneDecision], Field(min_length=1, max_length=500)]


class DeskWindowBody(Body):
    """A desk's new window. Without `opens` it opens when it did."""

    opens: AwareDatetime | None = None
    closes: AwareDatetime
    reason: Annotated[str, Field(min_length=1, max_length=200)]
    reason_code: WindowReason | None = None


SiteInPath = Annotated[str, Path(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32)]
After = Annotated[UUID | None, Query()]
Limit = Annotated[int, Query(ge=1, le=1000)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
OfDesk = Annotated[Actor, allow("desk:{site_id}")]
Reviewer = Annotated[Actor, allow("reviewer:{level}")]
Office = Annotated[Actor, allow("office")]
Reader = Annotated[Actor, allow("candidate:{registration_id}", "office")]


def routes(database: Database, cycle: Cycle, vault: Vault, wake_lapse: Callable[[], None]) -> APIRouter:
    """The public routes of this service."""
    router = APIRouter()

    @router.post("/desks/{site_id}/cases/{registration_id}/confirm")
    async def confirm(
        site_id: SiteInPath,
        registration_id: UUID,
        body: ConfirmBody,
        actor: OfDesk,
        key: IdempotencyKey = None,
    ) -> JSONResponse:
        check = DeskCheck(body.form_version, body.identity_seen, body.stamped, body.documents)
        async with database.unit_of_work() as uow:
            answer = await idempotent(
                uow,
                actor=actor,
                key=key,
                request=_request("confirm", registration_id, body),
                run=lambda: handlers.confirm(
                    uow,
                    actor=actor,
                    site_id=site_id,
                    registration_id=registration_id,
                    check=check,
                    cycle=cycle,
                ),
            )
        return JSONResponse(answer)

    @router.post("/desks/{site_id}/cases/{registration_id}/return")
    async def return_to_candidate(
        site_id: SiteInPath,
        registration_id: UUID,
        body: ReturnBody,
        actor: OfDesk,
        key: IdempotencyKey = None,
    ) -> JSONResponse:
        verdict = Verdict(registration_id, Decision.RETURN, body.reason_codes, body.note, body.fix_until)
        return JSONResponse(await at_desk(actor, site_id, verdict, body, key))

    @router.post("/desks/{site_id}/cases/{registration_id}/reject")
    async def reject(
        site_id: SiteInPath,
        registration_id: UUID,
        body: RejectBody,
        actor: OfDesk,
        key: IdempotencyKey = None,
    ) -> JSONResponse:
        verdict = Verdict(registration_id, Decision.REJECT, body.reason_codes, body.note)
        return JSONResponse(await at_desk(actor, site_id, verdict, body, key))

    async def at_desk(
        actor: Actor, site_id: str, verdict: Verdict, body: BaseModel, key: str | None
    ) -> Answer:
        async with database.unit_of_work() as uow:
            return await idempotent(
                uow,
                actor=actor,
                key=key,
                request=_request(verdict.decision, verdict.registration_id, body),
                run=lambda: handlers.decide_at_desk(
                    uow,
                    actor=actor,
                    site_id=site_id,
                    verdict=verdict,
                    cycle=cycle,
                    vault=vault,
                    wake_lapse=wake_lapse,
                ),
            )

    @router.post("/review/{level}/decisions")
    async def decide(
        level: SiteInPath, body: DecisionsBody, actor: Reviewer, key: IdempotencyKey = None
    ) -> JSONResponse:
        async with database.unit_of_work() as uow:

            async def run() -> Answer:
                results = await handlers.review(
                    uow,
                    actor=actor,
                    level=level,
                    verdicts=[row.verdict() for row in body.decisions],
                    cycle=cycle,
                    vault=vault,
                    wake_lapse=wake_lapse,
                )
                return {"results": results}

            answer = await idempotent(uow, actor=actor, key=key, request=body, run=run)
        return JSONResponse(answer)

    @router.post("/office/desk-windows/{site_id}")
    async def set_desk_window(
        site_id: SiteInPath, body: DeskWindowBody, actor: Office, key: IdempotencyKey = None
    ) -> JSONResponse:
        code = body.reason_code
        if code is None and body.reason in set(WindowReason):
            code = WindowReason(body.reason)
        async with database.unit_of_work() as uow:
            answer = await idempotent(
                uow,
                actor=actor,
                key=key,
                request=body,
                run=lambda: handlers.set_desk_window(
                    uow,
                    actor=actor,
                    site_id=site_id,
                    opens=body.opens,
                    closes=body.closes,
                    reason=body.reason,
                    reason_code=code,
                    cycle=cycle,
                    wake_lapse=wake_lapse,
                ),
            )
        return JSONResponse(answer)

    _verdict_routes(router, database, cycle, wake_lapse)

    @router.get("/desks/{site_id}/cases")
    async def cases_of_desk(
        site_id: SiteInPath,
        actor: OfDesk,
        state: Annotated[State | None, Query()] = None,
        after: After = None,
        limit: Limit = 200,
    ) -> JSONResponse:
        async with database.reading() as uow:
            found = await handlers.cases_of_desk(
                uow, site_id=site_id, state=state, after=after, limit=limit, cycle=cycle
            )
        return JSONResponse(found)

    @router.get("/desks/{site_id}/cases/{registration_id}")
    async def case_at_desk(site_id: SiteInPath, registration_id: UUID, actor: OfDesk) -> JSONResponse:
        return JSONResponse(await read(actor, registration_id, site_id))

    @router.get("/review/{level}/cases/{registration_id}")
    async def case_in_review(level: SiteInPath, registration_id: UUID, actor: Reviewer) -> JSONResponse:
        return JSONResponse(await read(actor, registration_id))

    @router.get("/cases/{registration_id}")
    async def case(registration_id: UUID, actor: Reader) -> JSONResponse:
        return JSONResponse(await read(actor, registration_id))

    async def read(actor: Actor, registration_id: UUID, site_id: str | None = None) -> Answer:
        async with database.unit_of_work() as uow:
            return await handlers.read_case(
                uow, actor=actor, registration_id=registration_id, cycle=cycle, vault=vault, site_id=site_id
            )

    @router.get("/office/cases")
    async def all_cases(actor: Office, after: After = None, limit: Limit = 200) -> JSONResponse:
        async with database.reading() as uow:
            return JSONResponse(await handlers.all_cases(uow, after=after, limit=limit, cycle=cycle))

    @router.get("/office/undecided")
    async def undecided(actor: Office, after: After = None, limit: Limit = 200) -> JSONResponse:
        async with database.reading() as uow:
            return JSONResponse(await handlers.undecided(uow, after=after, limit=limit, cycle=cycle))

    return router


def _verdict_routes(
    router: APIRouter, database: Database, cycle: Cycle, wake_lapse: Callable[[], None]
) -> None:
    """What a second person of the office says to another window of a dated desk."""

    @router.post("/office/desk-windows/{site_id}/{ask_id}/approve")
    async def approve_desk_window(
        site_id: SiteInPath, ask_id: UUID, actor: Office, key: IdempotencyKey = None
    ) -> JSONResponse:
        return JSONResponse(await decide_window(site_id, ask_id, "approved", actor, key))

    @router.post("/office/desk-windows/{site_id}/{ask_id}/reject")
    async def reject_desk_window(
        site_id: SiteInPath, ask_id: UUID, actor: Office, key: IdempotencyKey = None
    ) -> JSONResponse:
        return JSONResponse(await decide_window(site_id, ask_id, "rejected", actor, key))

    async def decide_window(site_id: str, ask_id: UUID, word: str, actor: Actor, key: str | None) -> Answer:
        async with database.unit_of_work() as uow:
            return await idempotent(
                uow,
                actor=actor,
                key=key,
                request=f"{word} {site_id} {ask_id}".encode(),
                run=lambda: handlers.decide_desk_window(
                    uow,
                    actor=actor,
                    site_id=site_id,
                    ask_id=ask_id,
                    word=word,
                    cycle=cycle,
                    wake_lapse=wake_lapse,
                ),
            )


def _request(action: str, registration_id: UUID, body: BaseModel) -> bytes:
    """What a repeated request must repeat: where it went and what it said."""
    return f"{action} {registration_id} {body.model_dump_json()}".encode()

"""Who may call what, and how no is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import pytest
from fastapi import APIRouter
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey
from pydantic import BaseModel, ConfigDict

from contracts.refusals import Code, FieldError, Refused
from services.chassis.http import (
    Doorkeeper,
    RequestScope,
    allow,
    make_app,
    open_to_all,
    signed_by,
    who_may_call,
)
from services.chassis.tokens import ALGORITHM, ISSUER, Actor, TokenVerifier

KEY, FOREIGN = OKPKey.generate_key("Ed25519"), OKPKey.generate_key("Ed25519")
NOON = datetime(2023, 12, 14, 4, tzinfo=UTC)


class Noon:
    virtual = False

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def real_now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None: ...


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int


def application(at: datetime = NOON) -> RequestScope:
    router = APIRouter()

    @router.post("/desks/{site_id}/things")
    async def things(
        site_id: str, body: Body, actor: Annotated[Actor, allow("desk:{site_id}", "office")]
    ) -> Any:
        return {"who": actor.kind, "count": body.count}

    @router.get("/mine/{registration_id}", dependencies=[allow("candidate:{registration_id}")])
    async def mine(registration_id: UUID) -> Any:
        return {"id": str(registration_id)}

    @router.get("/refused", dependencies=[open_to_all("a test")])
    async def refused() -> Any:
        raise Refused(
            Code.DESK_CLOSED, "该报名点已结束。", (FieldError("site_id", "已结束"),), {"open": ["shawan"]}
        )

    @router.post("/fault", dependencies=[signed_by("a test")])
    async def fault() -> Any:
        raise ConnectionRefusedError

    @router.post("/torn", dependencies=[signed_by("a test")])
    async def torn() -> Any:
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    @router.get("/bug", dependencies=[open_to_all("a test")])
    async def bug() -> Any:
        raise KeyError("13800001111")

    return make_app("test", [router], Doorkeeper(TokenVerifier(KeySet([KEY])), Noon(at)))


def token(*roles: str, key: OKPKey = KEY, **claims: object) -> str:
    body = {
        "iss": ISSUER,
        "sub": "account-1",
        "roles": list(roles),
        "exp": int(NOON.timestamp()) + 60,
        **claims,
    }
    return jwt.encode(
        {"alg": ALGORITHM}, {k: v for k, v in body.items() if v is not None}, key, algorithms=[ALGORITHM]
    )


async def call(
    app: RequestScope, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "headers": [(k.encode(), v.encode()) for k, v in given.items()], "http_version": "1.1", "root_path": "",
        "server": ("test", 80), "client": ("test", 1), "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app(scope, receive, send)
    answer = b"".join(m.get("body", b"") for m in sent)
    return (
        sent[0]["status"],
        {k.decode(): v.decode() for k, v in sent[0]["headers"]},
        json.loads(answer) if answer else None,
    )


def bearer(*roles: str, **claims: object) -> dict[str, str]:
    return {"authorization": f"Bearer {token(*roles, key=KEY, **claims)}"}


@pytest.mark.parametrize(
    ("roles", "status", "code"),
    [
        (["desk:shizhong"], 200, None),
        (["office"], 200, None),
        (["desk:shawan"], 403, "forbidden"),
        (["desk"], 403, "forbidden"),
        (["desk:{site_id}"], 403, "forbidden"),
        (["candidate"], 403, "forbidden"),
        ([], 403, "forbidden"),
    ],
)
async def test_a_desk_reaches_its_own_county_only(roles: list[str], status: int, code: str | None) -> None:
    found, _, body = await call(
        application(), "POST", "/desks/shizhong/things", b'{"count": 1}', bearer(*roles)
    )
    assert found == status
    assert body.get("code") == code


@pytest.mark.parametrize(
    "authorization",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Basic eA=="},
        {"authorization": "Bearer x.y.z"},
        {"authorization": f"Bearer {token('office', key=FOREIGN)}"},
        {"authorization": f"Bearer {token('office')[:-4]}AAAA"},
        bearer("office", iss="somebody"),
        bearer("office", exp=None),
        bearer("office", exp=int(NOON.timestamp())),
        bearer("office", sub=None),
        bearer("office", roles="office"),
    ],
)
async def test_who_cannot_be_recognised_is_sent_to_log_in(authorization: dict[str, str]) -> None:
    status, _, body = await call(
        application(), "POST", "/desks/shizhong/things", b'{"count": 1}', authorization
    )
    assert (status, body["code"]) == (401, "unauthenticated")


async def test_a_token_ends_at_its_moment_also_when_it_was_seen_before() -> None:
    clock = Noon()
    verifier, mine = TokenVerifier(KeySet([KEY])), token("office")
    assert verifier.verify(mine, clock.now()).subject == "account-1"
    just_before = NOON + timedelta(seconds=60) - timedelta(microseconds=1)
    assert verifier.verify(mine, just_before).roles == {"office"}
    with pytest.raises(Exception, match="expired"):
        verifier.verify(mine, NOON + timedelta(seconds=60))


async def test_a_token_without_a_signature_is_nobodys() -> None:
    unsigned = "eyJhbGciOiJub25lIn0." + token("office").split(".")[1] + "."
    status, _, _ = await call(
        application(), "POST", "/desks/a/things", b'{"count": 1}', {"authorization": f"Bearer {unsigned}"}
    )
    assert status == 401


async def test_a_refusal_is_a_problem_in_chinese_with_code_fields_and_hints() -> None:
    status, headers, body = await call(application(), "GET", "/refused")
    assert status == 409
    assert headers["content-type"].startswith("application/problem+json")
    assert body == {
        "type": "urn:kaowu:problem:desk-closed",
        "title": "不能办理",
        "status": 409,
        "code": "desk-closed",
        "detail": "该报名点已结束。",
        "fields": [{"field": "site_id", "reason": "已结束"}],
        "hints": {"open": ["shawan"]},
    }


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{}", [{"field": "count", "reason": "必须填写"}]),
        (b'{"count": "x"}', [{"field": "count", "reason": "应为整数"}]),
        (b'{"count": 1, "phone": "13800001111"}', [{"field": "phone", "reason": "没有这一项"}]),
        (b"{", [{"field": "1", "reason": "不是有效的 JSON"}]),
    ],
)
async def test_a_bad_body_names_its_fields_and_repeats_no_value(body: bytes, fields: list[Any]) -> None:
    status, _, answer = await call(application(), "POST", "/desks/a/things", body, bearer("office"))
    assert (status, answer["code"], answer["fields"]) == (422, "invalid", fields)
    assert "13800001111" not in json.dumps(answer)


async def test_a_body_too_large_is_refused_declared_or_not() -> None:
    big = b" " * (128 * 1024 + 1)
    for headers in ({"content-length": str(len(big))}, {}):
        status, _, body = await call(
            application(), "POST", "/desks/a/things", big, {**bearer("office"), **headers}
        )
        assert (status, body["code"]) == (413, "too-large")


@pytest.mark.parametrize("path", ["/fault", "/torn"])
async def test_a_fault_of_the_infrastructure_says_come_again(path: str) -> None:
    status, headers, body = await call(application(), "POST", path)
    assert (status, body["code"], headers["retry-after"]) == (503, "unavailable", "5")


async def test_a_bug_answers_500_and_repeats_nothing() -> None:
    status, _, body = await call(application(), "GET", "/bug")
    assert status == 500
    assert "13800001111" not in json.dumps(body)
    assert body["detail"]


async def test_an_unknown_address_is_a_problem_too() -> None:
    status, _, body = await call(application(), "GET", "/nowhere")
    assert (status, body["code"]) == (404, "not-found")


def test_an_application_with_a_route_for_nobody_in_particular_is_never_served() -> None:
    router = APIRouter()

    @router.get("/open")
    async def forgotten() -> Any:
        return {}

    with pytest.raises(TypeError, match="/open of test must name who may call it"):
        make_app("test", [router], Doorkeeper(TokenVerifier(KeySet([KEY])), Noon()))


def test_every_route_says_who_may_call_it() -> None:
    doors = {(d.method, d.path): d.roles or d.reason for d in who_may_call(application())}
    assert doors[("POST", "/desks/{site_id}/things")] == ("desk:{site_id}", "office")
    assert doors[("GET", "/refused")] == "a test"

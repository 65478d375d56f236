"""Door 1, below the routes: who may call what, and how no is said.

Every route names who may call it with `allow(...)`, `signed_by(...)` or `open_to_all(...)`; a test walks all routes
and fails on one without. Refusals are application/problem+json with a code of contracts.refusals and a sentence in Chinese.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, iter_route_contexts
from opentelemetry.trace import SpanKind
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from contracts.refusals import Code, FieldError, Refused
from services.chassis.audit import refused_access
from services.chassis.cause import Cause, bind_cause, current_cause, new_traceparent
from services.chassis.clock import Clock
from services.chassis.consuming import is_transient
from services.chassis.db import OutcomeUnknown
from services.chassis.giving_way import Visitors
from services.chassis.telemetry import REFUSALS, REQUESTS
from services.chassis.tokens import Actor, TokenVerifier, Unauthenticated
from services.chassis.tracing import Tracing

log = structlog.get_logger(__name__)

MAX_BODY: Final = 128 * 1024
_PLACE = re.compile(r"\{(\w+)\}")
_CORRELATION = re.compile(r"[A-Za-z0-9-]{8,64}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TITLES: Final = {
    Code.UNAUTHENTICATED: "请先登录",
    Code.FORBIDDEN: "无权办理",
    Code.NOT_FOUND: "没有找到",
    Code.INVALID: "填写有误",
    Code.UNAVAILABLE: "系统繁忙，请稍后再试",
    Code.TOO_LARGE: "提交的内容过大",
    Code.TOO_SOON: "请稍后再试",
}
_NOT_DONE: Final = "系统暂时繁忙，您的操作没有生效，请稍后再试。"
# Only the same request with the same key is known to be harmless.
_PERHAPS_DONE: Final = (
    "系统暂时繁忙，尚不能确定您的操作是否生效；请稍后原样重新提交，或先查看办理状态，不会重复办理。"
)
_VALIDATION: Final = {
    "missing": "必须填写",
    "extra_forbidden": "没有这一项",
    "string_type": "应为文字",
    "int_type": "应为整数",
    "int_parsing": "应为整数",
    "bool_type": "应为是或否",
    "list_type": "应为列表",
    "uuid_parsing": "编号格式不对",
    "json_invalid": "不是有效的 JSON",
    "enum": "不在可选范围内",
    "literal_error": "不在可选范围内",
    "timezone_aware": "时间必须带时区",
    "string_too_long": "太长",
    "string_too_short": "太短",
    "greater_than_equal": "超出范围",
    "less_than_equal": "超出范围",
    "too_long": "太多",
    "too_short": "太少",
}


class Access:
    """What a route demands; `roles` with `{name}` are filled from its path."""

    def __init__(self, roles: Sequence[str], reason: str = "") -> None:
        self.roles = tuple(roles)
        self.reason = reason
        self._templates = [(role, _PLACE.findall(role)) for role in roles]

    async def __call__(self, request: Request) -> Actor:
        if not self.roles:
            return Actor("", frozenset())
        plumbing: Doorkeeper = request.app.state.doorkeeper
        try:
            actor = plumbing.recognise(request)
        except Unauthenticated as error:
            refused_access(request.method, _route_of(request.scope), "unauthenticated", str(error))
            raise Refused(Code.UNAUTHENTICATED, "登录信息缺失或已失效，请重新登录后再试。") from None
        for template, names in self._templates:
            role = template
            for name in names:
                role = role.replace("{" + name + "}", str(request.path_params.get(name, "")))
            if role in actor.roles:
                structlog.contextvars.bind_contextvars(actor_kind=actor.kind)
                return actor
        refused_access(request.method, _route_of(request.scope), "forbidden", actor.kind, actor.subject)
        raise Refused(Code.FORBIDDEN, "您的账号无权办理此项业务，如有疑问请联系考点。")


def allow(*roles: str) -> Any:
    """Only these: `Depends(...)` that gives the Actor. `desk:{site_id}` is filled from the route's path."""
    if not roles:
        raise ValueError("a route that nobody may call")
    return Depends(Access(roles))


def signed_by(reason: str) -> Any:
    """The caller proves itself by a signature that the handler verifies; `reason` says whose."""
    return Depends(Access((), reason))


def open_to_all(reason: str) -> Any:
    """Anybody may call this; `reason` says why that is right."""
    return Depends(Access((), reason))


class Doorkeeper:
    """Recognises callers of an application."""

    def __init__(self, tokens: TokenVerifier, clock: Clock) -> None:
        self._tokens, self._clock = tokens, clock

    def recognise(self, request: Request) -> Actor:
        """Who the bearer token speaks for. Raises Unauthenticated."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("no bearer token")
        return self._tokens.verify(token.strip(), self._clock.now())


def make_app(
    title: str,
    routers: Sequence[APIRouter],
    doorkeeper: Doorkeeper,
    *,
    max_body: int = MAX_BODY,
    too_large: Refused | None = None,
    tracing: Tracing | None = None,
    visitors: Visitors | None = None,
) -> RequestScope:
    """An application with these routes; no documentation pages, no route without an Access.

    `too_large` is what is said, unread, to a body over `max_body`, where a service knows better what made it so big;
    `visitors` counts the calls.
    """
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.doorkeeper = doorkeeper
    app.router.routes += _fast_to_find(routers)
    app.state.doors = who_may_call(app)
    _open_what_is_open(app)
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    for kind in (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ):
        app.add_exception_handler(kind, _on_fault)
    app.add_exception_handler(Exception, _on_bug)
    too_large = too_large or Refused(
        Code.TOO_LARGE, f"提交的内容超过 {max_body // 1024} KB，请减少后重新提交。"
    )
    return RequestScope(app, max_body, too_large, tracing or Tracing(title, None), visitors or Visitors())


def _fast_to_find(routers: Sequence[APIRouter]) -> list[BaseRoute]:
    """All their routes in one list, those with a fixed path first: it is searched from its beginning, and a router that is
    included is a search of its own with all that the framework can do to one, which took longer than the rest of the framework.
    """
    routes = [route for router in routers for route in router.routes]
    return sorted(routes, key=lambda route: "{" in getattr(route, "path", ""))


@dataclass(frozen=True, slots=True)
class Door:
    """One route, and who may use it: roles, or the reason why none is asked for."""

    method: str
    path: str
    roles: tuple[str, ...]
    reason: str


def who_may_call(app: FastAPI | RequestScope) -> list[Door]:
    """Every route of an application. Raises TypeError for one that names nobody: such an application is never served."""
    inner = app.app if isinstance(app, RequestScope) else app
    known: list[Door] | None = getattr(inner.state, "doors", None)
    if known is not None:
        return known
    found: list[Door] = []
    for context in iter_route_contexts(inner.routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            raise TypeError(f"{getattr(route, 'path', route)} of {inner.title} is no API route")
        calls = [d.call for d in context.dependant.dependencies if isinstance(d.call, Access)]
        path = str(context.path)
        if len(calls) != 1:
            raise TypeError(f"{path} of {inner.title} must name who may call it, once: allow(...)")
        found += [Door(m, path, calls[0].roles, calls[0].reason) for m in sorted(context.methods or ())]
    return found


def _open_what_is_open(app: FastAPI) -> None:
    """An Access that asks for no role has said what it is there for; the framework need not call it at every request."""
    for context in iter_route_contexts(app.routes):
        asked = context.dependant.dependencies
        asked[:] = [one for one in asked if one.name or not isinstance(one.call, Access) or one.call.roles]


class RequestScope:
    """Around every request: size limit, the chain of causes, one metric. Plain ASGI, because it is on every path."""

    def __init__(
        self, app: FastAPI, max_body: int, too_large: Refused, tracing: Tracing, visitors: Visitors
    ) -> None:
        self.app, self._max_body, self._too_large, self._tracing = app, max_body, too_large, tracing
        self._visitors = visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._visitors.came += 1
        headers = dict(scope["headers"])
        self._bind(headers)
        declared = headers.get(b"content-length", b"")
        received = int(declared) if declared.isdigit() else 0
        status, started = 500, time.perf_counter()

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            if not declared:
                received += len(message.get("body", b""))
            if received > self._max_body:
                raise ValueError("body too large")
            return message

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def unless_too_large(message: Message) -> None:
            # The framework would answer a body that it could not read with a 400 of its own.
            if received <= self._max_body:
                await noting(message)

        try:
            if received <= self._max_body:
                try:
                    with self._tracing.span("request", [current_cause().traceparent], SpanKind.SERVER):
                        await self.app(scope, bounded, unless_too_large)
                except Exception:
                    if received <= self._max_body:
                        raise  # else it is our own: a handler that reads the body itself has met it
            if received > self._max_body:
                REFUSALS.labels(_route_of(scope), str(Code.TOO_LARGE)).inc()
                refused_access(scope["method"], _route_of(scope), "too-large", "unread")
                await problem(self._too_large, Code.TOO_LARGE.status)(scope, receive, noting)
        except Exception as error:
            # Starlette re-raises what no handler took, after the answer went out.
            log.exception("request-failed", route=_route_of(scope), error=type(error).__name__)
        finally:
            REQUESTS.labels(_route_of(scope), str(status)).inc()
            if status >= 500:
                log.warning(
                    "request",
                    route=_route_of(scope),
                    status=status,
                    milliseconds=round((time.perf_counter() - started) * 1000, 1),
                )

    @staticmethod
    def _bind(headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"x-correlation-id", b"").decode("ascii", "replace")
        trace = headers.get(b"traceparent", b"").decode("ascii", "replace")
        command = uuid7()
        correlation = given if _CORRELATION.fullmatch(given) else str(command)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation)
        parent = trace if _TRACEPARENT.fullmatch(trace) else new_traceparent(command)
        bind_cause(Cause(correlation, str(command), parent))


def _route_of(scope: Scope) -> str:
    """The route's template: a path itself would put ids into metric labels."""
    return getattr(scope.get("route"), "path", "unmatched")


def problem(refusal: Refused, status: int | None = None) -> JSONResponse:
    """A refusal as application/problem+json (RFC 9457)."""
    return JSONResponse(
        {
            "type": f"urn:kaowu:problem:{refusal.code}",
            "title": _TITLES.get(refusal.code, "不能办理"),
            "status": status or refusal.status,
            "code": str(refusal.code),
            "detail": refusal.message,
            "fields": [{"field": f.field, "reason": f.reason} for f in refusal.fields],
            "hints": dict(refusal.hints),
        },
        status_code=status or refusal.status,
        media_type="application/problem+json",
    )


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    REFUSALS.labels(_route_of(request.scope), str(error.code)).inc()
    response = problem(error)
    if error.code is Code.TOO_SOON:
        response.headers["retry-after"] = str(error.hints["seconds"])
    return response


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    REFUSALS.labels(_route_of(request.scope), "invalid").inc()
    return problem(invalid(error.errors()))


def invalid(errors: Sequence[Any]) -> Refused:
    """What pydantic found, in Chinese and without the values."""
    fields = tuple(
        FieldError(
            ".".join(str(part) for part in found["loc"] if part not in ("body", "query", "path")) or "body",
            _VALIDATION.get(found["type"], "格式不对"),
        )
        for found in errors
    )
    return Refused(Code.INVALID, "有内容填写不正确，请按提示修改后重新提交。", fields)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        return problem(Refused(Code.NOT_FOUND, "没有这个地址，请检查后再试。"), error.status_code)
    return problem(Refused(Code.INVALID, "请求无法识别，请检查后再试。"), error.status_code)


async def _on_fault(request: Request, error: Exception) -> Response:
    """The infrastructure is away: say so fast, so that the caller comes again; a gateway reads it as 'not taken'."""
    if not is_transient(error):
        raise error
    log.warning("fault", route=_route_of(request.scope), error=type(error).__name__)
    unknown = isinstance(error, OutcomeUnknown)
    response = problem(Refused(Code.UNAVAILABLE, _PERHAPS_DONE if unknown else _NOT_DONE))
    response.headers["retry-after"] = "5"
    return response


async def _on_bug(request: Request, error: Exception) -> Response:
    """Nothing of it was committed. What went wrong is for the log; the answer repeats nothing of it."""
    return problem(Refused(Code.UNAVAILABLE, "系统出了问题，您的操作没有生效，请稍后再试或联系考点。"), 500)

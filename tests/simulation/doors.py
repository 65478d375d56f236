"""What a rehearsal's people use to reach the services, here without sockets: a request that meets a death is repeated."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from deploy.rehearsal.doors import Answer
from tests.simulation.services import Reply, Services, call

_MINTED = datetime(2023, 1, 1, tzinfo=UTC)
_TRIES = 12

Request = Callable[[], Awaitable[None]]
Act = Callable[[Request, str, Request | None], Awaitable[bool]]


class NeverAnswered(AssertionError):
    """A request failed again and again."""


@dataclass
class SimulatedDoors:
    """As deploy.rehearsal.doors.Doors.

    `act` has a service do something, with a second thing at the same time where there is one, and says whether it came to its
    end; `tabs` says whether somebody asks the same from two tabs at once.
    """

    services: Services
    act: Act
    pay: Callable[[str, str, list[float]], str | None]
    """Channel, order number, seconds until each callback → why not."""
    tabs: Callable[[], bool] = lambda: False
    _headers: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    asked: int = 0
    repeated: set[str] = field(default_factory=set)
    """What was asked more than once, because an answer never came."""

    def headers(self, role: str, subject: str) -> dict[str, str]:
        known = self._headers.get((role, subject))
        if known is None:
            token = self.services.keys.tokens.mint([role], subject, at=_MINTED, lifetime=timedelta(days=3650))
            known = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            self._headers[role, subject] = known
        return known

    def account_headers(self, subject: str) -> dict[str, str]:
        return dict(self.headers("candidate", subject))

    async def ask(
        self, what: str, method: str, url: str, headers: Mapping[str, str], body: object | None = None
    ) -> Answer:
        """The first answer that is one; with one and the same key, so that nothing is done twice."""
        _, _, rest = url.partition("://")
        service, _, path = rest.partition("/")
        if service == "simulators":
            return self._outside(path, body)
        content = b"" if body is None else json.dumps(body).encode()
        self.asked += 1
        key = f"question-{self.asked}"

        async def request(key: str, replies: list[Reply]) -> None:
            keyed = {"idempotency-key": key, **headers}
            replies.append(await call(self.services.door(service), method, f"/{path}", keyed, content))

        for _ in range(_TRIES):
            replies: list[Reply] = []
            twin = partial(request, f"{key}-again", []) if self.tabs() else None
            finished = await self.act(partial(request, key, replies), service, twin)
            if finished and replies[0].status < 500:
                return Answer(replies[0].status, _object(replies[0]))
            self.repeated.add(what)
        raise NeverAnswered(f"{what}: no answer after {_TRIES} tries")

    async def get(self, url: str, headers: Mapping[str, str], patience: float | None = None) -> Any:
        """What the office reads; nothing goes wrong with that."""
        _, _, rest = url.partition("://")
        service, _, path = rest.partition("/")
        reply = await call(self.services.door(service), "GET", f"/{path}", headers)
        assert reply.status == 200, reply
        return reply.json()

    def _outside(self, path: str, body: object) -> Answer:
        assert isinstance(body, dict)
        simulators, _, doing = path.partition("/")
        channel, _, verb = doing.partition("/")
        if (simulators, verb) == ("sim", "pay"):
            refusal = self.pay(channel, body["order_no"], body["callbacks"])
            return Answer(200, {}) if refusal is None else Answer(409, {"code": refusal})
        raise AssertionError(path)


def _object(reply: Reply) -> Mapping[str, Any]:
    data = reply.json()
    return data if isinstance(data, dict) else {"items": data}

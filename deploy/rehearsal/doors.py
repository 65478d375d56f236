"""The only way a rehearsal speaks to the system: HTTP routes with real tokens, and the simulated world's control."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import httpx2
import orjson

AT_ONCE: Final = 24
PATIENCE: Final = 20.0  # real seconds that a busy or restarting service is asked again
PAUSE: Final = 0.1
MAY_BE_REFUSED: Final = frozenset({400, 403, 404, 409, 413, 415, 422, 502})


class Minting(Protocol):
    def mint(self, roles: Any, subject: str, *, at: datetime) -> str: ...


class RehearsalStopped(Exception):
    """An answer nobody may give: the rehearsal cannot go on honestly. Says what was asked and what came back."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    data: Mapping[str, Any]

    @property
    def code(self) -> str | None:
        """The refusal's code; None when the answer is yes."""
        if self.status < 300:
            return None
        return str(self.data.get("code", f"http-{self.status}"))


@dataclass(slots=True)
class Counts:
    requests: int = 0
    repeated: int = 0
    seconds: float = 0.0
    by_route: dict[str, int] = field(default_factory=dict)


class Doors:
    def __init__(self, client: httpx2.AsyncClient, tokens: Minting, first_at: datetime) -> None:
        self._client = client
        self._tokens = tokens
        self._first_at = first_at
        self._headers: dict[str, dict[str, str]] = {}
        self.counts = Counts()

    def headers(self, role: str, subject: str) -> dict[str, str]:
        """One token per role and subject, minted once for the whole rehearsal."""
        known = self._headers.get(role)
        if known is None:
            token = self._tokens.mint([role], subject, at=self._first_at)
            known = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            self._headers[role] = known
        return known

    def account_headers(self, subject: str) -> dict[str, str]:
        """A candidate's account before there is a registration to be a candidate of. Used once, not remembered."""
        token = self._tokens.mint(["candidate"], subject, at=self._first_at)
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    async def ask(
        self, what: str, method: str, url: str, headers: Mapping[str, str], body: object | None = None
    ) -> Answer:
        """Yes or a coded no. Where a service is busy or just starting, it is asked again for a bounded time.

        `what` is for people who read why a rehearsal stopped: the verb and the person's name in the file."""
        content = None if body is None else orjson.dumps(body)
        self.counts.requests += 1
        deadline = time.monotonic() + PATIENCE
        started = time.perf_counter()
        while True:
            problem = ""
            try:
                response = await self._client.request(method, url, content=content, headers=headers)
            except httpx2.TransportError as error:
                problem = f"no answer ({type(error).__name__})"
            else:
                self.counts.seconds += time.perf_counter() - started
                if response.status_code < 300 or response.status_code in MAY_BE_REFUSED:
                    return Answer(response.status_code, _object(response.content))
                problem = f"HTTP {response.status_code} {response.text[:300]}"
                if response.status_code not in (429, 500, 503):
                    raise RehearsalStopped(f"{what}: {problem}")
            if time.monotonic() > deadline:
                raise RehearsalStopped(f"{what}: {problem} from {url}, for {PATIENCE:.0f} s")
            self.counts.repeated += 1
            await asyncio.sleep(PAUSE)

    async def get(self, url: str, headers: Mapping[str, str]) -> Any:
        """What ops and the office read. Raises httpx2.TransportError where nobody answers."""
        response = await self._client.get(url, headers=headers)
        if response.status_code != 200:
            raise RehearsalStopped(f"GET {url}: HTTP {response.status_code} {response.text[:300]}")
        return orjson.loads(response.content)


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        data = orjson.loads(content) if content else {}
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {"items": data}

"""The only way a rehearsal speaks to the system: HTTP routes with real tokens, and the simulated world's control."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import orjson

from services.chassis.wire import Lost, NoAnswer, Wires

# In flight at one service; fewer than it keeps database connections (see commands.TOGETHER): beyond those it would open
# and close connections of its own, each dearer than the request it is for.
AT_ONCE: Final = 12
PATIENCE: Final = 20.0  # real seconds that a busy or restarting service is asked again
PAUSE: Final = 0.1
LIFETIME: Final = timedelta(
    days=3650
)  # of the tokens, on the virtual clock: a people file may begin a year early
MAY_BE_REFUSED: Final = frozenset({400, 403, 404, 409, 413, 415, 422, 502})


class Minting(Protocol):
    def mint(self, roles: Any, subject: str, *, at: datetime, lifetime: timedelta) -> str: ...


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


def on_this_machine() -> Wires:
    """Connections to everything a rehearsal asks: as many as people act at once, and no answer is too large."""
    return Wires(connections=1024, patience=30.0, limit=1 << 30)


@dataclass(slots=True)
class Counts:
    requests: int = 0
    repeated: int = 0
    seconds: float = 0.0
    by_route: dict[str, int] = field(default_factory=dict)


class Doors:
    def __init__(self, wire: Wires, tokens: Minting, first_at: datetime) -> None:
        self._wire = wire
        self._tokens = tokens
        self._first_at = first_at
        self._headers: dict[tuple[str, str], dict[str, str]] = {}
        self.counts = Counts()

    def headers(self, role: str, subject: str) -> dict[str, str]:
        """One token per role and subject, minted once for the whole rehearsal."""
        known = self._headers.get((role, subject))
        if known is None:
            token = self._tokens.mint([role], subject, at=self._first_at, lifetime=LIFETIME)
            known = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            self._headers[role, subject] = known
        return known

    def account_headers(self, subject: str) -> dict[str, str]:
        """A candidate's account before there is a registration to be a candidate of. Used once, not remembered."""
        token = self._tokens.mint(["candidate"], subject, at=self._first_at, lifetime=LIFETIME)
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    async def ask(
        self, what: str, method: str, url: str, headers: Mapping[str, str], body: object | None = None
    ) -> Answer:
        """Yes or a coded no. Where a service is busy or just starting, it is asked again for a bounded time.

        `what` is for people who read why a rehearsal stopped: the verb and the person's name in the file."""
        content = b"" if body is None else orjson.dumps(body)
        self.counts.requests += 1
        deadline = time.monotonic() + PATIENCE
        started = time.perf_counter()
        while True:
            problem = ""
            try:
                reply = await self._wire.request(method, url, headers, content)
            except NoAnswer as error:
                problem = str(error)
            else:
                self.counts.seconds += time.perf_counter() - started
                if reply.status < 300 or reply.status in MAY_BE_REFUSED:
                    return Answer(reply.status, _object(reply.body))
                problem = f"HTTP {reply.status} {reply.body[:300].decode('utf-8', 'replace')}"
                if reply.status not in (429, 500, 503):
                    raise RehearsalStopped(f"{what}: {problem}")
            if time.monotonic() > deadline:
                raise RehearsalStopped(f"{what}: {problem} from {url}, for {PATIENCE:.0f} s")
            self.counts.repeated += 1
            await asyncio.sleep(PAUSE)

    async def get(self, url: str, headers: Mapping[str, str], patience: float | None = None) -> Any:
        """What ops and the office read. Raises NoAnswer where nobody answers."""
        reply = await self._wire.request("GET", url, headers, patience=patience)
        if reply.status == 503:
            raise Lost(f"GET {url}: HTTP 503")
        if reply.status != 200:
            raise RehearsalStopped(
                f"GET {url}: HTTP {reply.status} {reply.body[:300].decode('utf-8', 'replace')}"
            )
        return orjson.loads(reply.body)


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        data = orjson.loads(content) if content else {}
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {"items": data}

"""Asking a running service what it shows the office: of a local system, or at an address with a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from services.chassis.wire import NoAnswer, Wires

_PATIENCE: Final = 30.0
_LIMIT: Final = 64 << 20
# Tables of an office are wide; a pipe has no width of its own.
_PIPE_WIDTH: Final = 160


class CannotShow(Exception):
    """The service did not answer as asked, and what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One service, as the office reads it."""

    service: str
    url: str
    token: str
    wires: Wires

    async def get(self, path: str) -> dict[str, Any]:
        """What it shows at this path. Raises CannotShow."""
        try:
            answer = await self.wires.request(
                "GET", f"{self.url.rstrip('/')}{path}", {"authorization": f"Bearer {self.token}"}
            )
        except NoAnswer as error:
            raise CannotShow(
                f"{self.service} at {self.url} does not answer ({error}): is the system running? `kaowu up` starts one"
            ) from None
        except ValueError:
            raise CannotShow(f"{self.url} is no address of a service (http://host:port)") from None
        if answer.status != 200:
            why = {
                401: ": the token is not accepted",
                403: ": the token is not an office's",
                404: f": is this {self.service}'s public address?",
            }
            raise CannotShow(
                f"{self.service} at {self.url} answers {answer.status}{why.get(answer.status, '')}"
            )
        found: dict[str, Any] = orjson.loads(answer.body)
        return found


@asynccontextmanager
async def asking(
    service: str, data: Path | None, url: str | None, token: str | None, *, subject: str
) -> AsyncIterator[Asked]:
    """`url` and `token`, else the local system in `data`, else the one that ran last. Raises CannotShow."""
    if url is not None and token is None:
        raise CannotShow("--url needs the office's token: --token, or KAOWU_TOKEN")
    if url is None or token is None:
        url, token = _running(service, data, subject)
    wires = Wires(connections=1, patience=_PATIENCE, limit=_LIMIT)
    try:
        yield Asked(service, url, token, wires)
    finally:
        await wires.aclose()


def _running(service: str, data: Path | None, subject: str) -> tuple[str, str]:
    """Where the local system's service is, and a token that it accepts."""
    from deploy.cli import latest_data  # noqa: PLC0415  it imports the commands that import this module
    from deploy.local.data_directory import DataDirectory  # noqa: PLC0415
    from deploy.local.minting import mint_for  # noqa: PLC0415

    data = data or latest_data()
    found = DataDirectory(data).state().get("services", {}).get(service)
    if found is None:
        raise CannotShow(
            f"no local system was started in {data}: `kaowu up`, or name it by --url and --token"
        )
    url: str = found["public_url"]
    return url, mint_for(data, ["office"], subject, days=1)


def console_of_office() -> Console:
    """A terminal as wide as it is; a pipe as wide as the tables."""
    return Console(width=None if Console().is_terminal else _PIPE_WIDTH, highlight=False)

"""Registration's internal route for contacts: asked with the service's own token, in one request per batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2

from services.notification.ports import Contact, NoAnswer

PATIENCE: Final = 10.0
_TAIL: Final = 4


class RegistrationContacts:
    """One pooled client for the life of the process; close it with `aclose`.

    The token is read at every request: whoever rotates it only replaces the file.
    """

    def __init__(
        self, base_url: str, token_file: Path, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._token_file = token_file
        self._client = httpx2.AsyncClient(
            base_url=base_url.rstrip("/"),
            timeout=PATIENCE,
            transport=transport,
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def look_up(self, registration_ids: Sequence[UUID]) -> list[Contact]:
        token = self._token_file.read_text(encoding="ascii").strip()
        try:
            response = await self._client.post(
                "/internal/contacts",
                json={"registration_ids": [str(registration_id) for registration_id in registration_ids]},
                headers={"Authorization": f"Bearer {token}"},
            )
        except httpx2.HTTPError as error:
            raise NoAnswer(type(error).__name__, maybe_accepted=False) from None
        if response.status_code != 200:
            raise NoAnswer(f"registration answered {response.status_code}", maybe_accepted=False)
        try:
            return [_contact(entry) for entry in response.json()["contacts"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # `from None`: the error may quote the answer, which is personal.
            raise NoAnswer(f"registration's answer: {type(error).__name__}", maybe_accepted=False) from None


def _contact(entry: dict[str, Any]) -> Contact:
    number = entry["number"]
    if not isinstance(number, str) or len(number) < _TAIL:
        raise ValueError("number")
    return Contact(UUID(entry["registration_id"]), number[-_TAIL:], entry.get("phone"), entry.get("email"))

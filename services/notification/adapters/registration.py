"""Registration's internal route for contacts: asked with the service's own token, in one request per batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from services.chassis import wire
from services.notification.ports import Contact, NoAnswer

PATIENCE: Final = 10.0
ANSWER_LIMIT: Final = 1 << 20  # 500 contacts are about 60 KiB
_TAIL: Final = 4


class RegistrationContacts:
    """A few kept connections for the life of the process; close them with `aclose`.

    The token is read at every request: whoever rotates it only replaces the file.
    """

    def __init__(self, base_url: str, token_file: Path) -> None:
        self._token_file = token_file
        self._wire = wire.Wire(base_url.rstrip("/"), connections=8, patience=PATIENCE, limit=ANSWER_LIMIT)

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def look_up(self, registration_ids: Sequence[UUID]) -> list[Contact]:
        token = self._token_file.read_text(encoding="ascii").strip()
        content = json.dumps({"registration_ids": [str(one) for one in registration_ids]}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            answer = await self._wire.request("POST", "/internal/contacts", headers, content)
        except wire.NoAnswer as error:
            raise NoAnswer(type(error).__name__, maybe_accepted=False) from None
        if answer.status != 200:
            raise NoAnswer(f"registration answered {answer.status}", maybe_accepted=False)
        try:
            return [_contact(entry) for entry in json.loads(answer.body)["contacts"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # `from None`: the error may quote the answer, which is personal.
            raise NoAnswer(f"registration's answer: {type(error).__name__}", maybe_accepted=False) from None


def _contact(entry: dict[str, Any]) -> Contact:
    number = entry["number"]
    if not isinstance(number, str) or len(number) < _TAIL:
        raise ValueError("number")
    return Contact(UUID(entry["registration_id"]), number[-_TAIL:], entry.get("phone"), entry.get("email"))

"""What calling a carrier of SMS is, whichever it is: its account file, kept connections, patience that ends, broken JSON."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from services.chassis import wire
from services.notification.ports import MalformedReceipts, NoAnswer, Pushed, Receipt

PATIENCE: Final = 5.0  # real seconds for one call, connecting included
BODY_LIMIT: Final = 64 * 1024
RECEIPTS_LIMIT: Final = 4 * 1024 * 1024
BEIJING: Final = timezone(timedelta(hours=8))
CODE_LENGTH: Final = 64  # of what a carrier says that is kept
# Control characters and halves of one: no database keeps them.
_NO_TEXT: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_WRITTEN: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
# A carrier's clock may be behind ours: what it took just after our moment stands in its books a little before it.
APART: Final = timedelta(minutes=5)

A = TypeVar("A")


class AccountInvalid(Exception):
    """The account file cannot be used; says which entry and why, never a value."""


def read_account(path: Path, make: Callable[[Mapping[str, Any], str, bytes], A], secret_file: str) -> A:
    """An account file (JSON) with its endpoint and the name of a file beside it that holds the secret."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        endpoint = str(content["endpoint"]).rstrip("/")
        secret = (path.parent / content[secret_file]).read_bytes().strip()
        account = make(content, endpoint, secret)
    except KeyError as error:
        raise AccountInvalid(f"{path.name}: entry {error} is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise AccountInvalid(f"{path.name}: cannot be read ({type(error).__name__})") from None
    if urlsplit(endpoint).scheme not in {"http", "https"} or not secret:
        raise AccountInvalid(f"{path.name}: endpoint is a URL and the secret is not empty")
    return account


class Line:
    """A few kept connections to one carrier for the life of the process."""

    def __init__(self, origin: str, *, connections: int, patience: float) -> None:
        self._wire = wire.Wire(origin, connections=connections, patience=patience, limit=BODY_LIMIT)
        self.host = self._wire.host

    async def post(
        self, target: str, headers: Mapping[str, str], content: bytes = b""
    ) -> tuple[int, dict[str, Any] | None]:
        """Status and JSON object, None if it is none. Raises NoAnswer."""
        try:
            status, _, raw = await self._wire.request("POST", target, headers, content)
        except wire.NoAnswer as error:
            raise NoAnswer(str(error), maybe_accepted=isinstance(error, wire.Lost)) from None
        return status, _object(raw)

    async def aclose(self) -> None:
        await self._wire.aclose()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def keyed(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def said(value: object) -> str:
    """A carrier's word as it can be kept, whatever it says: one odd character must not cost a whole page of receipts."""
    return _NO_TEXT.sub("", "" if value is None else str(value))[:CODE_LENGTH]


def receipts_of(raw: bytes, read: Callable[[Mapping[str, Any]], Receipt]) -> Pushed:
    """A pushed array, one by one. Raises MalformedReceipts where it is none."""
    if len(raw) > RECEIPTS_LIMIT:
        raise MalformedReceipts("too large")
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError):
        raise MalformedReceipts("not JSON") from None
    if not isinstance(entries, list):
        raise MalformedReceipts("not an array")
    return each_of(entries, read)


def each_of(entries: Sequence[object], read: Callable[[Mapping[str, Any]], Receipt]) -> Pushed:
    """What each of them says; of those that cannot be read, why."""
    receipts: list[Receipt] = []
    unreadable: list[str] = []
    for entry in entries:
        try:
            if not isinstance(entry, dict):
                raise MalformedReceipts("an entry is no object")
            receipts.append(read(entry))
        except MalformedReceipts as error:
            unreadable.append(str(error))
    return Pushed(receipts, unreadable)


def in_beijing(text: object) -> datetime | None:
    """A moment as carriers push it; None for what is no moment."""
    written = str(text)
    if not _WRITTEN.fullmatch(written):
        return None
    try:
        return datetime.fromisoformat(written).replace(tzinfo=BEIJING).astimezone(UTC)
    except ValueError:
        return None


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None

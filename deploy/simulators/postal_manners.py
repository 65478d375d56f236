"""How the simulated mail server behaves when told to: greylisting, a smaller limit of size, answers that a script asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from services.chassis.clock import Clock

PLACES: Final = ("mail", "rcpt", "data")


class Manners:
    """`reached`: how often each was met, the proof that it was."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._greylist = timedelta(0)
        self._seen: dict[str, datetime] = {}
        self._size: int | None = None
        self._answers: dict[str, list[bytes]] = {place: [] for place in PLACES}
        self.reached: Counter[str] = Counter()

    def set(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """`greylist`: seconds, `size`: bytes, `answers`: place → replies, given one by one. What is not said is as before.

        Raises ValueError.
        """
        if unknown := set(said) - {"greylist", "size", "answers"}:
            raise ValueError(f"no manners of a mail server: {sorted(unknown)}")
        if "greylist" in said:
            self._greylist, self._seen = timedelta(seconds=float(said["greylist"])), {}
        if "size" in said:
            self._size = None if said["size"] is None else int(said["size"])
        for place, replies in said.get("answers", {}).items():
            if place not in PLACES or not all(str(reply)[:1] in "45" for reply in replies):
                raise ValueError("answers are refusals (4… or 5…) to mail, rcpt or data")
            self._answers[place] = [str(reply).encode("ascii") for reply in replies]
        return {}

    def too_big(self, size: int) -> bytes | None:
        if self._size is None or size <= self._size:
            return None
        self.reached["too-big"] += 1
        return b"552 5.3.4 Message too big"

    def answer(self, place: str) -> bytes | None:
        if not self._answers[place]:
            return None
        self.reached["answers"] += 1
        return self._answers[place].pop(0)

    def greylisted(self, address: str) -> bytes | None:
        """Whoever is written to for the first time is written to again later, or not at all."""
        if not self._greylist:
            return None
        now = self._clock.now()
        if now - self._seen.setdefault(address, now) >= self._greylist:
            return None
        self.reached["greylisted"] += 1
        return b"451 4.7.1 Greylisted, come again later"

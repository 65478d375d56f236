"""Cases to test with, of the Leshan cycle."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from contracts.cycle import Cycle, Interval, Window
from contracts.refusals import Code, Refused
from services.confirmation.domain import Case, Desk, DeskCheck, Form, Mark, State

TINY = timedelta(microseconds=1)
BEIJING = ZoneInfo("Asia/Shanghai")
REGISTRATION = UUID("018c0000-0000-7000-8000-000000000001")


@cache
def leshan() -> Cycle:
    return Cycle.read(Path(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml")


def moment(text: str) -> datetime:
    """A moment as people in Leshan write it."""
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING).astimezone(UTC)


def window(opens: str, closes: str) -> Window:
    return Window(intervals=(Interval(opens=moment(opens), closes=moment(closes)),))


def desk(site_id: str, set_window: Window | None = None) -> Desk:
    return Desk.of(leshan(), site_id, set_window)


def form(site_id: str = "shizhong", version: int = 1, **changed: Any) -> Form:
    facts: dict[str, Any] = {"specialty_code": "203", "level": "junior", "subjects": (1, 2, 3, 4), **changed}
    return Form(site_id=site_id, form_version=version, **facts)


def case(state: State = State.PRE_REGISTERED, **changed: Any) -> Case:
    facts: dict[str, Any] = {
        "registration_id": REGISTRATION,
        "cycle_id": leshan().id,
        "form": form(),
        "returning": False,
        **changed,
    }
    if state is State.CONFIRMED:
        facts.setdefault("passed", 1)
    if state is State.APPROVED:
        facts.setdefault("passed", len(leshan().review_levels))
    return Case(state=state, **facts)


def check(version: int = 1, **changed: Any) -> DeskCheck:
    documents = {document.id: Mark.SEEN for document in leshan().documents}
    documents.update(changed.pop("documents", {}))
    facts: dict[str, Any] = {"identity_seen": True, "stamped": True, **changed}
    return DeskCheck(form_version=version, documents=documents, **facts)


DURING = moment("2023-12-10 09:00")  # 市中区 is open


def refusal(call: Callable[..., object], *args: object) -> Code:
    with pytest.raises(Refused) as refused:
        call(*args)
    assert refused.value.message.endswith("。"), "a person is told in a sentence"
    return refused.value.code

"""In which language somebody is written to is theirs to say; what there is no text for comes in Chinese."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

import pytest
import structlog

from services.chassis.process import CannotStart
from services.notification import app
from services.notification.domain.words import unfit
from services.notification.templates import wording
from tests.service.notification.system import System, due


def path(one: UUID) -> str:
    return f"/registrations/{one}/language"


async def test_a_candidate_is_written_to_in_the_language_they_choose(system: System) -> None:
    one, other = await system.registered(2)
    answer = await system.call("PUT", path(one), f"candidate:{one}", {"language": "en"})
    assert (answer.status_code, answer.json()) == (200, {"registration_id": str(one), "language": "en"})
    system.at("2024-01-29 09:00")
    await system.deliver(due(one), due(other))
    await system.settle()
    mine, theirs = await system.messages(one, "due"), await system.messages(other, "due")
    assert {row["language"] for row in mine.values()} == {"en"}
    assert {row["language"] for row in theirs.values()} == {"zh"}
    tail = system.registry.people[str(one)]["number"]
    assert mine["sms"]["body"].startswith(f"Candidate {(tail or '')[-4:]}: exam fee due: CNY 280.")
    assert mine["sms"]["state"] == "delivered"  # the carrier fills the English text that it approved
    english, chinese = system.mails_to(one)[-1], system.mails_to(other)[-1]
    assert "24:00 Thu 8 Feb 2024 Beijing time" in english["text"]
    assert '<html lang="en">' in english["html"]
    assert "2024年2月8日（星期四）24时（北京时间）前" in chinese["text"]
    assert '<html lang="zh-CN">' in chinese["html"]
    # What was said before stays as it was said.
    assert {row["language"] for row in (await system.messages(one, "pre-registered")).values()} == {"zh"}


@pytest.mark.parametrize(
    ("role", "language", "status"),
    [
        ("candidate:{one}", "de", 422),
        ("candidate:{one}", "", 422),
        ("candidate:{other}", "en", 403),
        ("office", "en", 403),
        (None, "en", 401),
    ],
)
async def test_nobody_else_chooses_and_nothing_that_is_not_there(
    system: System, role: str | None, language: str, status: int
) -> None:
    one, other = await system.registered(2)
    role = role and role.format(one=one, other=other)
    assert (await system.call("PUT", path(one), role, {"language": language})).status_code == status
    assert {row["language"] for row in await system.rows("select language from recipients")} == {"zh"}


async def test_somebody_who_is_not_known_here_is_not_found(system: System) -> None:
    nobody = UUID(int=7)
    answer = await system.call("PUT", path(nobody), f"candidate:{nobody}", {"language": "en"})
    assert answer.status_code == 404


async def test_the_start_says_which_texts_a_language_lacks(
    system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "templates"
    shutil.copytree(wording.TEMPLATES, root)
    (root / "paid/sms.en.txt").unlink()
    monkeypatch.setattr(wording.Wording.load.__func__, "__defaults__", (root,))  # type: ignore[attr-defined]  # a class method's function
    with structlog.testing.capture_logs() as logs:
        app.create_app(system.settings)
    assert [(line["language"], line["texts"]) for line in logs if line["event"] == "sent-in-chinese"] == [
        ("en", ["paid/sms.en.txt"])
    ]


async def test_a_cycle_that_no_sms_has_room_for_stops_the_start(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle = system.cycle
    long = cycle.sites[0].model_copy(update={"place": "路" * 36, "phone": "0833-2422047转8001"})
    long_cycle = cycle.model_copy(update={"sites": (long, *cycle.sites[1:])})
    assert unfit(cycle) == []
    assert unfit(long_cycle) == [
        f"site {long.id}: place has 36 characters, an SMS has room for 35",
        f"site {long.id}: phone has 17 characters, an SMS has room for 15",
    ]
    monkeypatch.setattr(app, "unfit", lambda _: unfit(long_cycle))
    with pytest.raises(CannotStart, match="an SMS has room for 35"):
        app.create_app(system.settings)

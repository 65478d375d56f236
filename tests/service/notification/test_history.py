"""What was sent stays as it was sent; and in a storm whoever would lose something goes first."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from contracts.reasons import Carrier
from services.notification.handlers import delivery
from services.notification.repository import messages
from services.notification.templates import wording
from services.notification.templates.wording import Wording
from tests.service.notification.system import System, closing_soon, expired, paid, pre_registered


async def test_a_message_shows_the_text_that_was_sent_whatever_became_of_its_template(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = await system.registered()
    changed = tmp_path / "templates"
    shutil.copytree(wording.TEMPLATES, changed, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    mail = changed / "pre-registered" / "email.zh.txt"
    mail.write_text(mail.read_text(encoding="utf-8").replace("现场确认", "现场审核"), encoding="utf-8")
    load = Wording.load
    monkeypatch.setattr(Wording, "load", lambda: load(changed))
    system.start()
    (after,) = await system.registered()

    async def text(one: UUID) -> str:
        items = (await system.call("GET", f"/registrations/{one}/messages", f"candidate:{one}")).json()[
            "items"
        ]
        found: str = next(item["text"] for item in items if item["channel"] == "email")
        return found

    assert "现场确认" in await text(before)
    assert "现场审核" not in await text(before)
    assert "现场审核" in await text(after)
    for one in (before, after):
        assert system.mails_to(one)[0]["text"].strip() == (await text(one)).strip()


async def gather(system: System) -> None:
    """Thirty who paid are to be told, then five of a reminder of the last day and five of their forfeiture."""
    people = [uuid7() for _ in range(40)]
    for one in people:
        system.registry.add(one)
    await system.deliver(*(pre_registered(one) for one in people))
    await system.settle()
    system.at("2024-02-08 09:00")
    await system.deliver(*(paid(one) for one in people[:30]))
    system.at("2024-02-08 09:01")
    await system.deliver(
        *(closing_soon(one) for one in people[30:35]), *(expired(one) for one in people[35:])
    )


async def storm(system: System, monkeypatch: pytest.MonkeyPatch, by_age_every: int) -> list[str]:
    """These, sent five at a time: the order of them."""
    monkeypatch.setattr(delivery, "BATCH", 5)
    monkeypatch.setattr(delivery, "BY_AGE_EVERY", by_age_every)
    await gather(system)
    first = len(system.world.sms.messages)
    await system.sms_job.run()
    occasions = {
        str(row["message_id"]): row["occasion"]
        for row in await system.rows("select message_id, occasion from messages")
    }
    sent = [occasions[message.out_id] for message in system.world.sms.messages[first:]]
    assert len(sent) == 40
    return sent


async def test_in_a_storm_last_reminders_and_forfeitures_overtake_what_can_wait(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await storm(system, monkeypatch, by_age_every=1000)
    assert set(sent[:10]) == {"closing-soon", "expired"}
    assert set(sent[10:]) == {"paid"}


async def test_in_a_batch_that_holds_them_all_the_urgent_are_first_too(system: System) -> None:
    await gather(system)
    async with system.database.unit_of_work() as uow:
        picked = [row.occasion for row in await messages.pick(uow, Carrier.SMS, 256)]
    assert set(picked[:10]) == {"closing-soon", "expired"}
    assert picked[10:] == ["paid"] * 30


@pytest.mark.faults(long=True)
async def test_what_can_wait_moves_too_while_the_urgent_go(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await storm(system, monkeypatch, by_age_every=2)
    assert "paid" in sent[:10], "every second batch is by age"
    assert sum(occasion != "paid" for occasion in sent[:20]) == 10

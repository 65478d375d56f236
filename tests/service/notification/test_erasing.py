"""Whoever asked to be forgotten: no address, no text, no call; that they were told stays; and nothing brings them back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from contracts.event import Event
from contracts.registration import ContactChanged, Erased
from deploy.simulators.sms_carrier import SILENT_PREFIX
from services.notification.adapters.registration import RegistrationContacts
from services.notification.domain.calling import CallOutcome
from services.notification.ports import Contact
from tests.service.notification.system import (
    CYCLE,
    System,
    closing_soon,
    due,
    expired,
    pre_registered,
    receipts,
)

SILENT = f"{SILENT_PREFIX}0001"
TOLD = """
select message_id, occasion, channel, state, state_at, provider, provider_ref, parts from messages order by message_id
"""
GONE = ("phone", "email", "tail", "contact_at")


def erased(one: UUID) -> Erased:
    return Erased(cycle_id=CYCLE, registration_id=one)


async def forfeited(system: System) -> UUID:
    """Somebody on the desk's list, told by nothing of the end; a reminder's receipt is still to come."""
    (one,) = await system.registered(phone=SILENT, email=None)
    system.at("2024-02-08 09:00")
    await system.deliver(closing_soon(one))
    await system.settle()
    system.at("2024-02-09 09:00")
    await system.deliver(expired(one))
    await system.settle()
    system.at("2024-02-10 09:00")  # a day after
    await system.calls_job.run()
    return one


async def kept(system: System, one: UUID) -> dict[str, Any]:
    (row,) = await system.rows("select * from recipients where registration_id = $1", one)
    return row


async def test_nothing_of_the_person_is_left_and_that_they_were_told_stays(system: System) -> None:
    one = await forfeited(system)
    (other,) = await system.registered()
    before = await system.rows(TOLD)
    assert await system.rows("select 1 from sms_left")
    assert await system.rows("select 1 from calls where closed_at is null and registration_id = $1", one)
    said = len(await system.told())
    await system.deliver(erased(one))
    row = await kept(system, one)
    assert [row[name] for name in GONE] == [None] * len(GONE)
    assert row["erased_at"] == system.clock.now()
    texts = await system.rows("select subject, body from messages where registration_id = $1", one)
    assert {(text["subject"], text["body"]) for text in texts} == {(None, None)}
    after = await system.rows(TOLD)
    assert after == before, "what was told to whom, when, through whom and what came of it"
    assert {r["registration_id"] for r in await system.rows(
        "select m.registration_id from sms_left l join messages m using (message_id)"
    )} == {other}  # fmt: skip
    outcomes = await system.rows("select outcome from calls where registration_id = $1", one)
    assert {call["outcome"] for call in outcomes} == {CallOutcome.ERASED}
    assert len(await system.told()) == said, "no desk is asked to put a contact right"
    everything = json.dumps(await system.everything(), default=str, ensure_ascii=False)
    assert SILENT not in everything
    assert (await kept(system, other))["phone"] is not None
    page = (await system.call("GET", f"/registrations/{one}/messages", "office")).json()["items"]
    assert {item["text"] for item in page} == {None}


async def test_what_waits_for_them_is_not_sent_and_a_late_receipt_still_counts(system: System) -> None:
    one = await forfeited(system)
    (reference, *_) = [
        str(row["message_id"])
        for row in await system.rows(
            "select message_id from messages where channel = 'sms' and state = 'accepted'"
        )
    ]
    copies = len(system.sms_to(one))
    system.at("2024-02-10 23:00")
    await system.deliver(due(one), erased(one))
    assert set((await system.states(one, "due")).values()) <= {"superseded", "undelivered"}
    system.at("2024-02-11 09:00")
    await system.send()
    assert len(system.sms_to(one)) == copies
    await system.push(receipts([reference]))
    (row,) = await system.rows("select state, body from messages where message_id = $1", UUID(reference))
    assert (row["state"], row["body"]) == ("delivered", None)


async def test_whatever_still_points_at_them_is_sent_to_nobody_and_nobody_is_to_call(system: System) -> None:
    """As if somebody had made it wait again by hand: no statement of ours does."""
    (one,) = await system.registered(phone=SILENT, email=None)
    system.at("2024-02-09 09:00")
    await system.deliver(expired(one))
    await system.settle()
    looked_at = "select call_at from messages where registration_id = $1 and call_at is not null"
    assert await system.rows(looked_at, one)
    await system.deliver(erased(one))
    assert await system.rows(looked_at, one) == [], "nobody looks whether they have heard"
    copies = len(system.sms_to(one))
    await system.write(
        "update messages set state = 'created', due_at = $2, call_at = $2 where registration_id = $1 and channel = 'sms'",
        one,
        system.clock.now(),
    )
    await system.send()
    await system.calls_job.run()
    rows = await system.rows(
        "select state, reason_code from messages where registration_id = $1 and channel = 'sms'", one
    )
    assert {(row["state"], row["reason_code"]) for row in rows} == {("undelivered", "erased")}
    assert len(system.sms_to(one)) == copies
    assert await system.rows("select * from calls") == []


async def test_re_reading_every_topic_brings_nothing_back(system: System) -> None:
    one = await forfeited(system)
    changed = ContactChanged(cycle_id=CYCLE, registration_id=one)
    told: list[Event] = [pre_registered(one), closing_soon(one), expired(one), changed]
    await system.deliver(erased(one))
    before = await system.everything()
    asked = len(system.registry.asked)
    await system.write("delete from inbox")
    await system.deliver(*told, due(one))
    async with asyncio.timeout(30):  # a contact that is wanted and never kept would be asked for without end
        await system.settle()
    row = await kept(system, one)
    assert [row[name] for name in GONE] == [None] * len(GONE)
    assert len(system.registry.asked) == asked, "nobody asks for their contact"
    after = await system.everything()
    assert after["messages"] == before["messages"]
    assert after["outbox"] == before["outbox"]


async def test_a_contact_that_was_under_way_is_not_kept(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for before, kept after: the two cross in two processes."""
    (one,) = await system.registered()
    await system.deliver(ContactChanged(cycle_id=CYCLE, registration_id=one))
    look_up = RegistrationContacts.look_up

    async def erased_meanwhile(book: RegistrationContacts, ids: Sequence[UUID]) -> list[Contact]:
        found = await look_up(book, ids)
        assert [contact.registration_id for contact in found] == [one]
        await system.deliver(erased(one))
        return found

    monkeypatch.setattr(RegistrationContacts, "look_up", erased_meanwhile)
    await system.fetch()
    row = await kept(system, one)
    assert [row[name] for name in GONE] == [None] * len(GONE)

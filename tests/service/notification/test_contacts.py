"""Contacts: what is tried again after somebody gave another number goes there, and to no old one."""

from __future__ import annotations

import pytest

from contracts.registration import ContactChanged
from services.chassis import crash
from services.notification.domain.life import LEASE
from services.notification.handlers.contacts import row_of
from tests.service.notification.killing import Killed, kill_at
from tests.service.notification.system import CYCLE, System, due

LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these


async def test_a_try_that_comes_due_after_the_number_changed_waits_for_the_new_one(system: System) -> None:
    (one,) = await system.registered(email="full@example.cn")  # that mailbox says: later
    row = (await system.messages(one, "pre-registered"))["email"]
    assert row["state"] == "created"
    system.registry.people[str(one)]["email"] = "new@example.cn"
    await system.deliver(ContactChanged(cycle_id=CYCLE, registration_id=one))
    assert (await system.messages(one, "pre-registered"))["email"]["due_at"] is None, "it waits from now on"
    # As if the answer of a try under way had been recorded only now: it is due again, at what is kept.
    await system.write(
        "update messages set due_at = $2 where message_id = $1", row["message_id"], row["due_at"]
    )
    system.clock.jump(row["due_at"])
    assert await system.mail_job.run() is None, "nothing is due, and no wheel turns"
    held = (await system.messages(one, "pre-registered"))["email"]
    assert (held["state"], held["due_at"], held["tries"]) == ("created", None, row["tries"])
    await system.settle()
    assert (await system.states(one, "pre-registered"))["email"] == "delivered"
    assert len(system.mails_to(one)) == 1
    kept = (await system.rows("select contact_at from recipients where registration_id = $1", one))[0]
    assert kept["contact_at"] >= row["due_at"]


@pytest.mark.parametrize("channel", ["sms", pytest.param("email", marks=LONG)])
async def test_what_a_dead_process_had_claimed_goes_to_the_new_number_and_is_counted(
    system: System, arm: None, channel: str
) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    await system.deliver(due(one))
    kill_at(f"{channel}-claimed")
    with pytest.raises(Killed):
        await (system.sms_job if channel == "sms" else system.mail_job).run()
    crash._name = ""
    assert (await system.states(one, "due"))[channel] == "sending"
    old = dict(system.registry.people[str(one)])
    system.registry.people[str(one)] |= {"phone": "13999990001", "email": "new@example.cn"}
    await system.deliver(ContactChanged(cycle_id=CYCLE, registration_id=one))
    system.start()
    system.clock.jump(system.clock.now() + LEASE)
    await system.send()
    held = (await system.messages(one, "due"))[channel]
    assert (held["state"], held["due_at"], held["ambiguous"]) == ("created", None, 1)
    await system.settle()
    assert (await system.states(one, "due"))[channel] == "delivered"
    assert system.copies(one, channel) == 1
    system.registry.people[str(one)] = old
    assert system.copies(one, channel) == 1, "of the message before this one"


async def test_a_contact_that_came_meanwhile_leaves_nothing_waiting_for_ever(system: System) -> None:
    """The look at what is due and the new contact cross: whoever waits is let go by the one that comes second."""
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    await system.deliver(due(one), ContactChanged(cycle_id=CYCLE, registration_id=one))
    await system.write("update messages set due_at = not_before where occasion = 'due'")
    await system.fetch()
    await system.send()
    await system.hear_receipts()
    assert await system.states(one, "due") == {"sms": "delivered", "email": "delivered"}
    vault = system.process.plumbing.vault
    kept = (await system.rows("select phone from recipients where registration_id = $1", one))[0]["phone"]
    assert vault.decrypt_text(kept, row=row_of(one, "phone")) == system.registry.people[str(one)]["phone"]

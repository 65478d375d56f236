"""One message that cannot be written, or an odd word of a carrier about one, holds up nobody else's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.notification.adapters import aliyun
from services.notification.domain.life import LEASE
from services.notification.domain.occasions import Occasion
from services.notification.handlers import holding
from services.notification.handlers.delivery import MENDED_WITHIN
from tests.service.notification.system import System, expired, paid

MOMENT = "2024-02-09 10:00"


async def of(system: System, one: UUID) -> dict[str, Any]:
    return await system.messages(one, "expired")


async def test_a_message_that_cannot_be_put_into_words_waits_and_the_others_go(system: System) -> None:
    odd, other = await system.registered(2)
    system.at(MOMENT)
    await system.deliver(expired(odd), expired(other))
    await system.write("update messages set facts = facts - 'closed_at' where registration_id = $1", odd)
    sms_due, mail_due = await system.send()
    assert sms_due == mail_due == system.clock.now() + MENDED_WITHIN
    await system.hear_receipts()
    assert await system.states(other, "expired") == {"sms": "delivered", "email": "delivered"}
    assert {row["tries"] for row in (await of(system, odd)).values()} == {0}
    await system.write(
        "update messages m set facts = o.facts from messages o where m.registration_id = $1 and o.registration_id = $2 "
        "and m.occasion = 'expired' and o.occasion = 'expired'",
        odd,
        other,
    )
    system.clock.jump(sms_due or system.clock.now())
    await system.settle()
    assert (await system.states(odd, "expired")) == {"sms": "delivered", "email": "delivered"}
    assert (system.copies(odd, "sms"), system.copies(odd, "email")) == (2, 2)


async def test_a_word_of_the_version_beside_us_is_left_to_that_version(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, other = await system.registered(2)
    system.at(MOMENT)
    await system.deliver(paid(odd), expired(other))

    def of_before(word: str) -> Occasion:
        if word == "paid":
            raise ValueError(word)
        return Occasion(word)

    with monkeypatch.context() as patched:
        patched.setattr(holding, "Occasion", of_before)
        await system.settle()
    assert await system.states(other, "expired") == {"sms": "delivered", "email": "delivered"}
    assert await system.states(odd, "paid") == {"sms": "created", "email": "created"}
    system.clock.jump(system.clock.now() + MENDED_WITHIN)
    await system.settle()
    assert await system.states(odd, "paid") == {"sms": "delivered", "email": "delivered"}


@pytest.mark.faults(long=True)  # `make test-faults` plays it
async def test_an_address_that_cannot_be_opened_stops_no_channel_and_its_person_is_called(
    system: System,
) -> None:
    odd, other = await system.registered(2)
    await system.write(
        "update recipients set phone = '\\x78', email = '\\x78' where registration_id = $1", odd
    )
    system.at(MOMENT)
    await system.deliver(expired(odd), expired(other))
    await system.settle()
    assert await system.states(other, "expired") == {"sms": "delivered", "email": "delivered"}
    assert await system.states(odd, "expired") == {"sms": "created", "email": "created"}
    system.clock.jump(system.clock.now() + timedelta(hours=24))
    await system.calls_job.run()
    (call,) = await system.rows("select registration_id from calls")
    assert call["registration_id"] == odd


async def test_a_carriers_answer_that_no_adapter_understands_stops_nobody(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked about one of which nobody knows whether it left, and about one that it had before a restore."""
    claimed, had, other = await system.registered(3)
    system.at(MOMENT)
    await system.deliver(expired(had))
    await system.settle()
    await system.deliver(expired(claimed))
    await system.write(
        "update messages set state = 'sending', claims = 1, body = '', provider = 'aliyun', due_at = $2 "
        "where registration_id = $1 and channel = 'sms' and occasion = 'expired'",
        claimed,
        system.clock.now() + LEASE,
    )
    await system.write(
        "update messages set state = 'accepted', ask_since = state_at "
        "where registration_id = $1 and channel = 'sms' and occasion = 'expired'",
        had,
    )

    def details(_: object) -> None:
        raise TypeError("what is that")

    monkeypatch.setattr(aliyun, "_details", details)
    system.clock.jump(system.clock.now() + LEASE)
    await system.deliver(expired(other))
    await system.send()
    await system.hear_receipts()
    assert (await system.states(other, "expired"))["sms"] == "delivered"
    row = (await of(system, claimed))["sms"]
    assert (row["state"], row["ask_since"] is not None, system.copies(claimed, "sms")) == ("created", True, 1)
    monkeypatch.undo()
    system.clock.jump(row["due_at"] + timedelta(minutes=1))
    await system.settle()
    assert (await system.states(claimed, "expired"))["sms"] == "delivered"
    assert (await system.states(had, "expired"))["sms"] == "delivered"
    assert system.copies(claimed, "sms") == 2

"""From events to messages: once, to the right contact, by the channel's hour."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from contracts import confirmation, payment, registration
from contracts.event import Event, RegistrationEvent
from contracts.reasons import ChangedField, ReasonCode, WindowReason
from services.chassis import migrations
from services.notification.consumers import HANDLERS
from services.notification.domain.occasions import CONTENTS, Occasion
from services.notification.handlers import delivery
from services.notification.templates.wording import Wording
from tests.service.notification.system import (
    CYCLE,
    System,
    closing_soon,
    due,
    expired,
    moment,
    paid,
    pre_registered,
)

EXAMPLES = Path(__file__).parents[3] / "contracts" / "examples"


async def test_the_migrations_make_the_tables_that_the_code_reads(system: System) -> None:
    await migrations.drift(system.settings.database_url, "notification")


async def test_the_pre_registered_are_told_by_sms_and_email(system: System) -> None:
    (one,) = await system.registered()
    told = await system.messages(one, "pre-registered")
    assert {c: m["state"] for c, m in told.items()} == {"sms": "delivered", "email": "delivered"}
    (sms,) = [m for m in system.world.sms.messages if m.out_id == str(told["sms"]["message_id"])]
    assert sms.text == told["sms"]["body"]
    assert sms.text.startswith("考生0000：")
    assert "2023年12月14日（星期四）12时（北京时间）前" in sms.text
    (mail,) = system.mails_to(one)
    assert mail["subject"] == told["email"]["subject"]
    assert mail["text"].replace("\r\n", "\n").strip() == told["email"]["body"].strip()
    assert str(told["email"]["message_id"]) in mail["message_id"]


async def test_nothing_is_sent_before_the_contact_is_known(system: System) -> None:
    one = uuid7()
    system.registry.add(one)
    await system.deliver(pre_registered(one))
    assert await system.send() == (None, None)
    assert await system.states(one, "pre-registered") == {"sms": "created", "email": "created"}
    assert not system.sms_to(one)
    await system.settle()
    assert await system.states(one, "pre-registered") == {"sms": "delivered", "email": "delivered"}


async def test_every_occasion_of_every_event_is_told_by_both_channels(system: System) -> None:
    (one,) = await system.registered()
    for event in _all_events(one):
        # A window is moved for whoever still owes.
        await system.deliver(*[due(one)] * isinstance(event, payment.WindowMoved), event)
        await system.settle()
    rows = await system.rows("select occasion, channel, state from messages where registration_id = $1", one)
    assert {row["occasion"] for row in rows} == set(Occasion)
    assert {row["state"] for row in rows} == {"delivered"}
    assert await system.parked() == []


async def test_of_everything_at_once_only_what_is_still_true_is_told(system: System) -> None:
    (one,) = await system.registered()
    await system.deliver(*_all_events(one))
    await system.settle()
    rows = await system.rows("select occasion, state from messages where registration_id = $1", one)
    # Paid, forfeited and reinstated came too: whatever asked for the fee, and the forfeiture, are over. So is what asked to
    # the desk, and every decision that another one took back.
    over = {"due", "closing-soon", "payment-window-moved", "expired", "lapsed"}
    over |= {"amended", "confirmed", "returned", "approved"}
    assert {row["occasion"] for row in rows if row["state"] == "superseded"} == over | {"pre-registered"}
    assert {row["occasion"] for row in rows if row["state"] == "delivered"} == set(Occasion) - over


def _all_events(registration_id: UUID) -> Iterator[Event]:
    """One of each that tells somebody something, as the contracts' own examples say it."""
    for event_class in [one for one in HANDLERS if one is not registration.Erased]:
        service, fact = event_class.type.split(".", 2)[1:]
        example = json.loads((EXAMPLES / service / f"{fact}.json").read_text(encoding="utf-8"))
        said = example["payload"]
        if issubclass(event_class, RegistrationEvent):
            said["registration_id"] = str(registration_id)
        yield event_class.model_validate_json(json.dumps(said))


async def test_an_occasion_that_comes_again_is_a_message_of_its_own(system: System) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 10:00")
    await system.deliver(closing_soon(one, 168), closing_soon(one, 72))
    rows = await system.rows("select instance from messages where occasion = 'closing-soon'")
    assert sorted(row["instance"] for row in rows) == ["payment-1", "payment-1", "payment-2", "payment-2"]


async def test_the_database_holds_once_even_if_the_inbox_forgets(system: System) -> None:
    (one,) = await system.registered()
    records = await system.deliver(due(one))
    before = await system.everything()
    await system.write("delete from inbox")
    await system.process.consumers.on_batch(records)
    assert await system.everything() == before


async def test_re_reading_a_whole_topic_sends_nothing(system: System) -> None:
    people = await system.registered(5)
    records = [await system.deliver(due(one)) for one in people]
    await system.settle()
    sent = len(system.world.sms.messages), len(system.world.mailbox.mails)
    for batch in records:
        await system.process.consumers.on_batch(batch)
    await system.settle()
    assert (len(system.world.sms.messages), len(system.world.mailbox.mails)) == sent


async def test_events_that_come_before_the_registration_wait_for_its_contact(system: System) -> None:
    one = uuid7()
    system.registry.add(one)
    await system.deliver(
        confirmation.Confirmed(
            cycle_id=CYCLE, registration_id=one, site_id="shizhong", form_version=1, desk="shizhong"
        )
    )
    await system.settle()
    assert await system.states(one, "confirmed") == {"sms": "delivered", "email": "delivered"}
    await system.deliver(pre_registered(one))
    await system.settle()
    assert await system.states(one, "pre-registered") == {"sms": "delivered", "email": "delivered"}


def amended(registration_id: UUID, site: str = "shizhong", version: int = 2) -> registration.Amended:
    return registration.Amended(
        cycle_id=CYCLE,
        registration_id=registration_id,
        form_version=version,
        changed=(ChangedField.PHONE,),
        site_id=site,
        specialty_code="203",
        level="junior",
        subjects=(1, 2, 3, 4),
    )


async def test_an_amended_phone_gets_the_message_about_the_amendment(system: System) -> None:
    (one,) = await system.registered()
    old = system.sms_to(one)
    system.registry.people[str(one)]["phone"] = "13877770001"
    await system.deliver(registration.ContactChanged(cycle_id=CYCLE, registration_id=one), amended(one))
    assert await system.send() == (None, None), "the old number must not be used any more"
    await system.settle()
    (reference,) = system.sms_to(one)
    assert str((await system.messages(one, "amended"))["sms"]["message_id"]) == reference
    system.registry.people[str(one)]["phone"] = "13900000000"
    assert system.sms_to(one) == old


async def test_messages_that_wait_for_the_night_to_end_go_to_the_new_number(system: System) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 23:00")
    await system.deliver(due(one))
    system.registry.people[str(one)]["phone"] = "13877770002"
    await system.deliver(registration.ContactChanged(cycle_id=CYCLE, registration_id=one))
    system.at("2024-02-02 08:00")
    assert (await system.send())[0] is None
    await system.settle()
    assert len(system.sms_to(one)) == 1


async def test_contacts_are_kept_encrypted(system: System) -> None:
    (one,) = await system.registered()
    (row,) = await system.rows("select * from recipients where registration_id = $1", one)
    assert row["tail"] == "0000"
    person = system.registry.people[str(one)]
    for column in ("phone", "email"):
        plain = (person[column] or "").encode()
        assert plain not in bytes(row[column])
        vault = system.process.plumbing.vault
        assert vault.decrypt(row[column], row=f"{one}:{column}") == plain
    everything = str(await system.everything())
    assert "13900000000" not in everything
    assert "p0@example.cn" not in everything


async def test_contacts_are_fetched_in_batches_and_asked_again_when_unknown(system: System) -> None:
    people = [uuid7() for _ in range(501)]
    for one in people[:-1]:
        system.registry.add(one)
    await system.deliver(*(pre_registered(one) for one in people))
    again = await system.fetch()
    assert sorted(len(asked) for asked in system.registry.asked) == [1, 500]
    assert again == system.clock.now() + timedelta(minutes=1)
    assert await system.fetch() == again, "not asked again before its time"
    system.registry.add(people[-1])
    system.clock.jump(again)
    assert await system.fetch() is None
    rows = await system.rows("select 1 from recipients where contact_known = 0")
    assert rows == []


async def test_a_registration_service_that_is_away_loses_nothing(system: System) -> None:
    one = uuid7()
    system.registry.add(one)
    await system.deliver(pre_registered(one))
    system.registry.status = 503
    with pytest.raises(Exception, match="503"):
        await system.fetch()
    system.registry.status = 200
    await system.settle()
    assert await system.states(one, "pre-registered") == {"sms": "delivered", "email": "delivered"}


async def test_an_sms_waits_for_the_morning_and_the_email_goes(system: System) -> None:
    (one,) = await system.registered()
    system.at("2024-02-09 00:00:00.000001")
    await system.deliver(expired(one))
    sms_due, _ = await system.send()
    assert sms_due == moment("2024-02-09 08:00")
    assert await system.states(one, "expired") == {"sms": "created", "email": "delivered"}
    system.at("2024-02-09 07:59:59.999999")
    assert (await system.send())[0] == moment("2024-02-09 08:00")
    system.at("2024-02-09 08:00")
    await system.settle()
    assert await system.states(one, "expired") == {"sms": "delivered", "email": "delivered"}


async def test_the_last_reminder_of_the_night_goes_at_once(system: System) -> None:
    (one,) = await system.registered()
    system.at("2024-02-08 22:00")
    await system.deliver(closing_soon(one, 2))
    await system.send()
    assert (await system.states(one, "closing-soon"))["sms"] == "accepted"


async def test_what_was_late_at_ten_waits_too(system: System) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 21:59")
    await system.deliver(due(one))
    system.at("2024-02-01 22:01")
    assert (await system.send())[0] == moment("2024-02-02 08:00")
    assert (await system.states(one, "due"))["sms"] == "created"


async def test_what_a_storm_left_over_at_ten_is_put_off_in_pieces_before_anything_goes(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "POSTPONED", 2)
    people = await system.registered(6)
    system.at("2024-02-01 21:59")
    urgent = confirmation.Returned(
        cycle_id=CYCLE,
        registration_id=people[0],
        level="desk",
        reason_codes=(ReasonCode.PHOTO,),
        fix_until=moment("2024-02-02 07:00"),
    )
    await system.deliver(*(due(one) for one in people[1:]), urgent)
    system.at("2024-02-01 22:01")
    assert (await system.send())[0] == moment("2024-02-02 08:00")
    states = [(await system.states(one, "due"))["sms"] for one in people[1:]]
    assert states == ["created"] * 5
    assert (await system.states(people[0], "returned"))["sms"] == "accepted"


async def test_a_reminder_is_not_sent_to_who_has_paid_meanwhile(system: System) -> None:
    (one,) = await system.registered()
    system.at("2024-02-01 23:00")
    await system.deliver(due(one), closing_soon(one, 168))
    await system.deliver(paid(one))
    system.at("2024-02-02 08:00")
    await system.settle()
    assert await system.states(one, "closing-soon") == {"sms": "superseded", "email": "superseded"}
    assert await system.states(one, "due") == {"sms": "superseded", "email": "superseded"}
    assert await system.states(one, "paid") == {"sms": "delivered", "email": "delivered"}
    assert {event.occasion for event in await system.told()} == {"pre-registered", "paid"}


async def test_hours_that_the_office_set_are_told(system: System) -> None:
    await system.deliver(
        confirmation.DeskWindowSet(
            cycle_id=CYCLE,
            site_id="municipal",
            opens_at=moment("2023-12-11 09:00"),
            closes_at=moment("2023-12-13 17:30"),
            reason_code=WindowReason.ANNOUNCED,
        )
    )
    one = uuid7()
    system.registry.add(one)
    await system.deliver(pre_registered(one, "municipal"))
    await system.settle()
    for message in (await system.messages(one, "pre-registered")).values():
        assert "2023年12月13日（星期三）17时30分（北京时间）前" in message["body"]


async def test_a_returned_candidate_is_told_the_own_deadline_until_the_end(system: System) -> None:
    (one,) = await system.registered()
    await system.deliver(
        confirmation.Returned(
            cycle_id=CYCLE,
            registration_id=one,
            level="desk",
            reason_codes=(ReasonCode.PHOTO,),
            fix_until=moment("2023-12-13 18:00"),
        )
    )
    await system.deliver(amended(one))
    await system.settle()
    for occasion in ("returned", "amended"):
        for message in (await system.messages(one, occasion)).values():
            assert "2023年12月13日（星期三）18时（北京时间）前" in message["body"]


async def test_a_desk_nobody_knows_is_parked_and_not_told(system: System) -> None:
    one = uuid7()
    await system.process.consumers.on_batch([system.record(pre_registered(one, "elsewhere"))])
    assert await system.parked() == ["failed: KeyError"]
    assert await system.rows("select 1 from messages") == []


async def test_every_template_is_the_carriers_too(system: System) -> None:
    assert len(Wording.load().approved()) == len(CONTENTS) * len(Wording.load().languages)
    assert system.world.sms.refused == {}

"""After a restore: what a carrier has already is not sent again, and what it said meanwhile is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from uuid_utils.compat import uuid7

from contracts.event import Event
from contracts.notification import Delivered, Undeliverable
from deploy.local.databases import DatabaseLogin
from deploy.simulators.aliyun import DEAD_PREFIX, REFUSED_PREFIX, SILENT_PREFIX
from deploy.simulators.outage import Outage
from services.chassis.consuming import Record
from services.notification.adapters.aliyun import AliyunSms
from services.notification.adapters.tencent import TencentSms
from services.notification.domain.life import KNOWN_BY_THEN, LEASE
from services.notification.repository import silence
from tests.service.notification.system import CLOSE, System, closing_soon, due, moment, paid, pre_registered
from tests.support.postgres import TestDatabases


class Backups:
    """Copies of notification's database as it was, and the way back to them."""

    def __init__(self, system: System, databases: TestDatabases) -> None:
        self._system, self._databases = system, databases
        self._made: list[DatabaseLogin] = []
        self.at = system.process.plumbing.clock.now()

    async def take(self) -> DatabaseLogin:
        self.at = self._system.process.plumbing.clock.now()
        return await self._copy(DatabaseLogin.of(self._system.settings.database_url).database)

    async def restore(self, backup: DatabaseLogin, *heard: Record, waited: bool = True) -> None:
        """The service on that backup, with what it hears again. `waited`: carriers have had their time since."""
        await self._system.end()
        copy = await self._copy(backup.database)
        self._system.settings = self._system.settings.model_copy(update={"database_url": copy.url})
        self._system.start()
        if heard:
            await self._system.process.consumers.on_batch(list(heard))
        async with self._system.database.unit_of_work() as uow:
            await silence.ask_first(uow, self.at)
        if waited:
            self._system.clock.jump(self._system.clock.now() + KNOWN_BY_THEN)

    async def drop(self) -> None:
        await self._system.database.dispose()
        for login in self._made:
            await self._databases.drop(login)

    async def _copy(self, source: str) -> DatabaseLogin:
        await self._system.database.dispose()
        name = f"notification_restored_{len(self._made)}_{id(self)}"
        self._made.append(
            await self._databases.server.make_database(name, owner="notification", template=source)
        )
        return self._made[-1]


@pytest.fixture
async def backups(system: System, databases: TestDatabases) -> AsyncIterator[Backups]:
    kept = Backups(system, databases)
    yield kept
    await kept.drop()


def found() -> float:
    return REGISTRY.get_sample_value("kaowu_messages_found_total", {"channel": "sms"}) or 0.0


async def heard(system: System, event: Event) -> Record:
    """The event, taken in; it lies in its topic."""
    return (await system.deliver(event))[0]


async def test_what_was_sent_after_the_backup_is_not_sent_again(system: System, backups: Backups) -> None:
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    system.world.sms.manners.delay = timedelta(hours=1)
    await system.send()
    assert await system.states(one, "due") == {"sms": "accepted", "email": "delivered"}
    before = found()
    await backups.restore(backup, record)
    assert await system.states(one, "due") == {"sms": "created", "email": "created"}
    await system.send()
    assert len(system.sms_to(one)) == 2, "one about the registration, one about the fee"
    assert found() == before + 1
    assert await system.states(one, "due") == {"sms": "accepted", "email": "delivered"}
    # Its receipt was still to come, and comes.
    await system.hear_receipts()
    assert await system.states(one, "due") == {"sms": "delivered", "email": "delivered"}


@pytest.mark.parametrize("known", ["not at all", "as waiting", "as on its way"])
async def test_a_mail_server_cannot_be_asked_so_a_possible_copy_is_counted_and_known_by_its_id(
    system: System, backups: Backups, known: str
) -> None:
    """Whatever the backup knows of a mail that left after it: not even the event, or that it waited, or that it was claimed."""
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    if known == "as on its way":
        await system.write(
            "update messages set state = 'sending', claims = 1, body = '', due_at = due_at + $1 where occasion = 'due' "
            "and channel = 'email'",
            LEASE,
        )
    if known != "not at all":
        backup = await backups.take()
    system.clock.jump(system.clock.now() + LEASE)
    await system.settle()
    await backups.restore(backup, record)
    await system.settle()
    told = await system.messages(one, "due")
    assert (told["email"]["state"], told["email"]["ambiguous"]) == ("delivered", 1)
    ids = [mail["message_id"] for mail in system.mails_to(one)]
    assert len(ids) == 3
    assert len(set(ids)) == 2, "both copies carry one Message-ID"


async def test_a_carrier_that_got_it_just_before_the_loss_has_its_time_before_it_is_asked(
    system: System, backups: Backups
) -> None:
    """Also of somebody whose contact the backup does not know: then the message waits for both."""
    (one,) = await system.registered()
    backup = await backups.take()
    two = uuid7()
    system.registry.add(two)
    records = await system.deliver(due(one), pre_registered(two))
    await system.settle(receipts=False)
    asked = system.world.sms.asked
    await backups.restore(backup, *records, waited=False)
    at = system.clock.now()
    await system.fetch()
    assert await system.send() == (at + KNOWN_BY_THEN, None)
    assert system.world.sms.asked == asked
    told = {**await system.states(one, "due"), "two": await system.states(two, "pre-registered")}
    other = {"sms": "created", "email": "delivered"}
    assert told == {**other, "two": other}, "mail waits for nothing: nobody can be asked about it"
    system.clock.jump(at + KNOWN_BY_THEN)
    await system.send()
    assert system.world.sms.asked == asked + 2
    assert [len(system.sms_to(one)), len(system.sms_to(two))] == [2, 1]


async def test_what_would_come_too_late_after_that_time_goes_at_once(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered()
    system.clock.jump(moment(CLOSE) - KNOWN_BY_THEN)
    backup = await backups.take()
    record = await heard(system, closing_soon(one))
    await backups.restore(backup, record, waited=False)
    await system.send()
    told = (await system.messages(one, "closing-soon"))["sms"]
    assert (told["state"], told["ambiguous"], len(system.sms_to(one))) == ("accepted", 0, 2)


def test_that_time_is_the_longest_that_any_carrier_takes() -> None:
    assert max(AliyunSms.shows_after, TencentSms.shows_after) == KNOWN_BY_THEN


async def test_what_was_not_sent_before_the_loss_is_sent_after_it(system: System, backups: Backups) -> None:
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    await backups.restore(backup, record)
    await system.settle()
    assert await system.states(one, "due") == {"sms": "delivered", "email": "delivered"}
    assert len(system.sms_to(one)) == 2


@pytest.mark.parametrize(
    ("phone", "state"), [("13900000123", "delivered"), (f"{DEAD_PREFIX}0001", "undelivered")]
)
async def test_an_end_that_the_carrier_reported_before_the_loss_is_learned_by_asking(
    system: System, backups: Backups, phone: str, state: str
) -> None:
    (one,) = await system.registered(phone=phone)
    backup = await backups.take()
    record = await heard(system, due(one))
    await system.settle()
    assert (await system.states(one, "due"))["sms"] == state
    await backups.restore(backup, record)
    await system.send()
    told = await system.messages(one, "due")
    assert (told["sms"]["state"], told["sms"]["tries"]) == (state, 0)
    assert len(system.sms_to(one)) == 2
    kinds = {event.occasion: type(event) for event in await system.told() if event.channel == "sms"}
    assert kinds["due"] is (Delivered if state == "delivered" else Undeliverable)


async def test_what_the_backup_knows_as_sent_is_asked_about_because_its_receipt_may_be_gone(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered()
    await system.deliver(due(one))
    await system.send()
    backup = await backups.take()
    await system.hear_receipts()
    await backups.restore(backup)
    assert await system.states(one, "due") == {"sms": "accepted", "email": "delivered"}
    await system.send()
    assert await system.states(one, "due") == {"sms": "delivered", "email": "delivered"}
    assert len(system.sms_to(one)) == 2


async def test_a_message_whose_receipt_never_comes_is_asked_about_once_and_stays_accepted(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered(phone=f"{SILENT_PREFIX}0001")
    backup = await backups.take()
    await backups.restore(backup)
    asked = system.world.sms.asked
    await system.send()
    await system.send()
    assert system.world.sms.asked == asked + 1
    assert (await system.states(one, "pre-registered"))["sms"] == "accepted"


@pytest.mark.parametrize("how", [Outage.REFUSE, Outage.LOSE])
async def test_nothing_is_sent_while_the_carrier_does_not_answer_what_it_has(
    system: System, backups: Backups, how: Outage
) -> None:
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    await system.send()
    await backups.restore(backup, record)
    system.world.sms.weather.bring(60, how)
    due_at, _ = await system.send()
    assert (await system.states(one, "due"))["sms"] == "created"
    assert due_at is not None
    system.clock.jump(max(due_at, system.clock.now() + timedelta(seconds=61)))
    await system.settle()
    assert (await system.states(one, "due"))["sms"] == "delivered"
    assert len(system.sms_to(one)) == 2


async def test_a_carrier_that_is_silent_about_what_was_sent_is_asked_again_later(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered()
    await system.deliver(due(one))
    await system.send()
    backup = await backups.take()
    await system.hear_receipts()
    await backups.restore(backup)
    system.world.sms.weather.bring(30, Outage.REFUSE)
    at = system.clock.now()
    assert (await system.send())[0] == at + timedelta(minutes=1)
    system.clock.jump(at + timedelta(minutes=1))
    await system.send()
    assert (await system.states(one, "due"))["sms"] == "delivered"


async def test_a_receipt_of_a_message_that_the_backup_had_not_sent_counts(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    await system.send()
    await backups.restore(backup, record)
    await system.hear_receipts()
    assert (await system.states(one, "due"))["sms"] == "delivered"
    await system.send()
    assert len(system.sms_to(one)) == 2


async def test_a_number_that_the_carrier_will_not_talk_about_is_still_given_up_properly(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    system.registry.people[str(one)]["phone"] = f"{REFUSED_PREFIX}0001"
    await backups.restore(backup, record)
    await system.write("update recipients set contact_wanted = contact_wanted + 1")
    await system.settle()
    assert (await system.states(one, "due"))["sms"] == "undelivered"


async def test_what_is_no_longer_true_after_the_restore_is_not_sent(system: System, backups: Backups) -> None:
    (one,) = await system.registered()
    system.at("2024-02-08 12:00")
    await system.deliver(due(one))
    await system.settle()
    backup = await backups.take()
    reminder, payment = await heard(system, closing_soon(one)), await heard(system, paid(one))
    await backups.restore(backup, reminder, payment)
    await system.settle()
    assert await system.states(one, "closing-soon") == {"sms": "superseded", "email": "superseded"}


async def test_messages_made_after_the_restore_are_sent_without_asking(
    system: System, backups: Backups
) -> None:
    await system.registered()
    await backups.restore(await backups.take())
    asked = system.world.sms.asked
    (two,) = await system.registered()
    assert system.world.sms.asked == asked
    assert (await system.states(two, "pre-registered"))["sms"] == "delivered"


async def test_what_lay_parked_in_the_backup_and_was_replayed_after_it_is_asked_about_when_it_is_replayed_again(
    system: System, backups: Backups
) -> None:
    """Hours after the restore, on another day than the one on which it left."""
    one, two = await system.registered(2)
    backup = await backups.take()
    record = await heard(system, due(one))
    await system.settle()
    await backups.restore(backup)
    assert await system.states(one, "due") == {}
    system.clock.jump(system.clock.now() + timedelta(days=1))
    before = found()
    await system.deliver(due(two))
    await system.process.consumers.on_batch([record])
    await system.settle()
    told = await system.messages(one, "due")
    assert {name: (each["state"], each["tries"]) for name, each in told.items()} == {
        "sms": ("delivered", 0),
        "email": ("delivered", 1),
    }
    assert (len(system.sms_to(one)), found()) == (2, before + 1)
    assert [each["ambiguous"] for each in told.values()].count(1) == 1, "a mail server cannot be asked"
    assert told["email"]["ambiguous"] == 1
    # Said after the restore: nobody can have been told of it before.
    assert [each["ambiguous"] for each in (await system.messages(two, "due")).values()] == [0, 0]


async def test_what_is_replayed_right_after_a_restore_waits_as_long_as_what_the_backup_knew(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    await system.settle(receipts=False)
    await backups.restore(backup, waited=False)
    at, asked = system.clock.now(), system.world.sms.asked
    await system.process.consumers.on_batch([record])
    assert await system.send() == (at + KNOWN_BY_THEN, None)
    assert system.world.sms.asked == asked
    system.clock.jump(at + KNOWN_BY_THEN)
    await system.send()
    assert (system.world.sms.asked, len(system.sms_to(one))) == (asked + 1, 2)


async def test_only_days_on_which_it_can_have_left_are_looked_through(
    system: System, backups: Backups
) -> None:
    (one,) = await system.registered()
    backup = await backups.take()
    record = await heard(system, due(one))
    await system.settle()
    sent_on = system.clock.now()
    system.clock.jump(moment("2023-12-09 09:00"))
    await backups.restore(backup, record)
    # As it was taken in then: on the day on which it left.
    await system.write("update messages set created_at = $1, ask_since = $1 where occasion = 'due'", sent_on)
    asked = system.world.sms.asked
    await system.send()
    assert system.world.sms.asked == asked + 5, "9, 8, 7, 6 and 5 December"
    assert (await system.states(one, "due"))["sms"] == "delivered"
    assert len(system.sms_to(one)) == 2

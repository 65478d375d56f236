"""Faults, each put where its protection is needed, between two services (see pair.py). Every scene counts what it reached."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, Final
from unittest.mock import patch
from uuid import UUID, uuid4

import asyncpg

from contracts import confirmation
from contracts.catalogue import EVENTS, Catalogue
from contracts.topics import TOPICS
from services.chassis import outbox, packing, parked
from services.chassis.packing import OutboxRow
from services.chassis.relay import Page, Relay, Sent
from tests.faults.pair import HEARD, SAID, Died, Gate, Pair, dying_at, held_at
from tests.faults.spoiling import Content, Spoilt, planting
from tests.support.eventually import eventually
from tests.unit.confirmation.cases import leshan

Scene = Callable[[Pair], Awaitable[None]]
_OUTBOX: Final = "insert into outbox"
_LOCK: Final = "select c.registration_id"
OFTEN: Final = 16  # so often a record has come again by then that it will for ever


async def read_once_more(pair: Pair) -> None:
    """Whole topics are read again from the beginning, when everything has had its effect."""
    async with pair.relaying():
        async with pair.consuming():
            await pair.approved()
            await pair.rejected(*pair.people[:2])
            await pair.rests()
        async with pair.consuming("payment-once-more") as again:
            await pair.rests("payment-once-more")
        pair.reached["events read again"] += again.handled
        await pair.rests(None)


async def a_poisoned_key(pair: Pair) -> None:
    """One approval can never be written; then more happens to the same candidate."""
    sick = pair.people[0]
    await pair.superuser.execute(
        f"alter table obligations add constraint poison check (registration_id <> '{sick}')"
    )
    async with pair.relaying(), pair.consuming() as consumers:
        await pair.approved()
        await pair.rests()
        await pair.rejected(sick)
        await pair.rests()
        pair.reached["an event that never works"] += sum(
            one.reason.startswith("failed:") for one in await _waiting(pair)
        )
        pair.found += await pair.violations()  # while they wait
        await pair.superuser.execute("alter table obligations drop constraint poison")
        for one in await _waiting(pair):
            await parked.replay(pair.payment, consumers, one.id)
        await pair.rests()


async def _waiting(pair: Pair) -> list[parked.Parked]:
    async with pair.payment.reading() as uow:
        return await parked.list_parked(uow)


async def an_early_transaction_that_commits_late(pair: Pair) -> None:
    """A transaction that has begun to write stays open while a later one commits and is published."""
    slow, quick = pair.people[:2]
    async with pair.relaying(), pair.consuming():
        await pair.reviewed()
        await pair.rests()
        gate = Gate(_OUTBOX)
        late = await held_at(gate, pair.approve("district", slow))
        relayed = await _published(pair)
        await pair.approve("district", quick)

        async def quick_is_out_or_waits() -> bool:
            return await _published(pair) > relayed

        with contextlib.suppress(AssertionError):
            # Whoever keeps to the horizon publishes nothing meanwhile.
            await eventually(quick_is_out_or_waits, within=2)
        gate.opened.set()
        await late
        pair.reached["a later transaction committed first"] += 1
        await pair.rests()


async def an_early_fact_beyond_the_horizon(pair: Pair) -> None:
    """Of one candidate's two facts the later has the older transaction, and a third one lies between: decision 0002."""
    (one, other) = pair.people[:2]
    third = await asyncpg.connect(pair.desk_login.dsn)
    try:
        async with pair.relaying(), pair.consuming():
            await pair.reviewed()
            await pair.rests()
            gate = Gate(_LOCK)  # this one's transaction has written its key, and not yet locked its case
            late = await held_at(gate, pair.reject("late-one", one))
            await third.execute("begin")
            await third.execute("select pg_current_xact_id()")
            await pair.approve("district", one)
            gate.opened.set()
            answer = await late
            assert answer.status_code == 200, answer.text
            behind = await _behind(pair, one)
            assert behind == ["rejected", "reviewed", "approved"], "the later fact has the older transaction"
            pair.reached["a later fact had the older transaction"] += 1

            async def something_is_out() -> bool:
                return await _published(pair, one) > 2

            await eventually(something_is_out, within=30)
            await third.execute("commit")
            await pair.approve("district", other)
            await pair.rests()
    finally:
        await third.close()


async def _behind(pair: Pair, key: UUID) -> list[str]:
    """What is said of this key beyond what the desk and the first level said, by the age of its transactions."""
    connection = await asyncpg.connect(pair.desk_login.dsn)
    try:
        rows = await connection.fetch(
            "select type from outbox where key = $1 and sequence > 2 order by xid::text::bigint, id", str(key)
        )
    finally:
        await connection.close()
    return [row[0].split(".")[2] for row in rows]


async def _published(pair: Pair, key: UUID | None = None) -> int:
    records = await pair.kafka.read("exam.confirmation")
    return sum(key is None or record.key == str(key).encode() for record in records)


class Freezing(Relay):
    """A relay that stops where it is before it hands over its next page, until it is let go on."""

    frozen: asyncio.Event
    thawed: asyncio.Event
    armed = False

    async def _hand_over(self, kafka: Any, page: Page) -> Sent:
        if self.armed:
            type(self).armed = False
            self.frozen.set()
            await self.thawed.wait()
        return await super()._hand_over(kafka, page)


async def a_frozen_leader(pair: Pair) -> None:
    """The relay that leads stands still with a page in its hands, while another would lead and much happens."""
    Freezing.frozen, Freezing.thawed, Freezing.armed = asyncio.Event(), asyncio.Event(), False
    first = pair.relay(kind=Freezing)
    async with pair.relaying(first, pair.relay("payment")), pair.consuming():
        await pair.rests()
        Freezing.armed = True
        await pair.approved()
        await asyncio.wait_for(Freezing.frozen.wait(), 30)
        pair.reached["the leader was frozen"] += 1
        async with pair.relaying(pair.relay()):
            await asyncio.sleep(3)  # a follower asks for the lead twice a second
            await pair.rejected(*pair.people[:2])
            await asyncio.sleep(2)
            Freezing.thawed.set()
            await pair.rests()


async def two_decisions_at_once(pair: Pair) -> None:
    """Two people decide about one case at the same moment, both having read the same version of it."""
    one = pair.people[0]
    await pair.no_constraint("u", "%key_sequence%")
    await pair.no_index("ix_decisions_registration_id_version")
    await pair.reviewed()
    gate = Gate("update cases")
    slow = await held_at(gate, pair.approve("district", one))
    await pair.rejected(one)
    gate.opened.set()
    with contextlib.suppress(Exception):  # whoever comes second may be told no
        await slow
    pair.reached["two had read the same version"] += 1
    async with pair.relaying(), pair.consuming():
        await pair.rests()


async def a_member_dies_in_its_transaction(pair: Pair) -> None:
    """The consumer ends after the effects were written and before they were committed; another one takes its place."""
    async with pair.relaying():
        with dying_at("consumer-in-transaction") as deaths:
            async with pair.consuming():
                await pair.approved()

                async def died() -> bool:
                    return bool(deaths)

                await eventually(died, within=30)
        pair.reached["died in its transaction"] += sum(deaths.values())
        async with pair.consuming():
            await pair.rests()


async def a_member_dies_after_its_commit(pair: Pair) -> None:
    """The consumer ends after its transaction and before its offsets are committed."""
    async with pair.relaying():
        await pair.approved()
        await pair.rejected(*pair.people)
        await pair.rests(None)
        with dying_at("consumer-before-offset-commit") as deaths:
            async with pair.consuming():

                async def died() -> bool:
                    return bool(deaths)

                await eventually(died, within=30)
        pair.reached["died before its offsets"] += sum(deaths.values())
        async with pair.consuming():
            await pair.rests()


async def a_request_is_cut_off(pair: Pair) -> None:
    """A desk's request ends with its process, before its commit; the desk asks once more with the same key."""
    one = pair.people[0]
    await pair.reviewed()
    with dying_at("before-commit") as deaths, contextlib.suppress(Died):
        await pair.reject("cut-off", one)
    pair.reached["died before its commit"] += sum(deaths.values())
    with contextlib.suppress(Exception):
        await pair.reject("cut-off", one)
    async with pair.relaying(), pair.consuming():
        await pair.rests()


class Dropping(Relay):
    """A relay whose connection to the broker breaks once, after it has taken a page into its hands."""

    dropped = 0

    async def _hand_over(self, kafka: Any, page: Page) -> Sent:
        if type(self).dropped == 0 and any(_is_approval(row) for row in page.rows):
            type(self).dropped += 1
            raise ConnectionError("the broker went away")
        return await super()._hand_over(kafka, page)


def _is_approval(row: OutboxRow) -> bool:
    return str(row["type"]).startswith("kaowu.confirmation.approved")


async def a_relay_loses_its_broker(pair: Pair) -> None:
    """A page is read, and never arrives."""
    Dropping.dropped = 0
    async with pair.relaying(pair.relay(kind=Dropping), pair.relay("payment")), pair.consuming():
        await pair.approved()
        await pair.rests()
        await pair.rejected(pair.people[0])
        await pair.rests()
    pair.reached["a page never arrived"] += Dropping.dropped


async def a_process_dies_after_its_commit(pair: Pair) -> None:
    """A request's transaction is durable, and nothing after it is done."""
    async with pair.relaying(), pair.consuming():
        with dying_at("after-commit") as deaths, contextlib.suppress(Died):
            await pair.approved()
        pair.reached["died after its commit"] += sum(deaths.values())
        await pair.rests()


async def a_record_that_no_column_can_hold(pair: Pair) -> None:
    """Somebody's record stands between good ones, and even its headers' names are not text."""
    async with pair.relaying(), pair.consuming():
        await pair.rests()
        async with planting(pair.kafka.bootstrap) as planter:
            content = Content(b"nobody", b"{}", [("x\0y", b"1")])
            for number in range(TOPICS["exam.confirmation"].partitions):
                one = await planter.plant("exam.confirmation", number, Spoilt("NUL", content, "malformed"))
                pair.planted.add(one.place)
        with _counted_refusals() as refused:
            await pair.approved()

            async def decided() -> bool:
                # A partition that does not move on is for the invariants to name.
                return len(refused) >= OFTEN or await pair.is_at_rest()

            await eventually(decided, within=60.0, every=0.1)
    pair.reached["records that nobody can read"] += len(pair.planted)


@contextlib.contextmanager
def _counted_refusals() -> Iterator[list[str]]:
    """How often a record could not even be parked."""
    park, refused = parked.park, list[str]()

    async def parking(*args: Any, **more: Any) -> None:
        try:
            await park(*args, **more)
        except Exception as error:
            refused.append(type(error).__name__)
            raise

    with patch.object(parked, "park", parking):
        yield refused


class ApprovedAnew(confirmation.Approved):
    """What a newer confirmation says of an approval, in a form that this payment does not know."""

    type: ClassVar[str] = "kaowu.confirmation.approved.v99"


async def a_newer_form_of_a_fact(pair: Pair) -> None:
    """One approval is said by a newer version of its service."""
    async with pair.consuming():
        await pair.approved()
        connection = await asyncpg.connect(pair.desk_login.dsn)
        try:
            said = await connection.execute(
                "update outbox set type = $1 where type = $2 and key = $3",
                ApprovedAnew.type, confirmation.Approved.type, str(pair.people[0]),
            )  # fmt: skip
        finally:
            await connection.close()
        assert said == "UPDATE 1", said
        newer = Catalogue((*EVENTS.values(), ApprovedAnew), {})
        with patch.object(packing, "look_up", newer.look_up):
            async with pair.relaying():
                await pair.rests()
    pair.reached["said in a newer form"] += 1


class Huge(confirmation.Confirmed):
    """More than a broker takes."""

    filler: str


async def an_event_too_large_for_the_broker(pair: Pair) -> None:
    """Somebody wants to say more than fits."""
    one = Huge(
        cycle_id=leshan().id, registration_id=uuid4(), site_id="shizhong", form_version=1, desk="shizhong",
        filler="x" * (1 << 21),
    )  # fmt: skip
    await pair.no_constraint("c", "%payload_fits_the_broker")
    with contextlib.suppress(outbox.EventTooLarge):
        async with pair.desk.database.unit_of_work() as uow:
            pair.reached["an event was too large"] += 1
            await outbox.add(uow, one, sequence=1)
    async with pair.relaying(), pair.consuming():
        await pair.approved()
        with contextlib.suppress(AssertionError):
            await pair.rests(within=8)


async def topics_are_lost(pair: Pair) -> None:
    """The broker forgets everything, and the relays begin anew with what their logs hold."""
    async with pair.relaying(), pair.consuming():
        await pair.approved()
        await pair.rests()
    pair.reached["records were lost"] += await _published(pair)
    await pair.kafka.fresh({name: TOPICS[name].partitions for name in {*SAID, *HEARD}})
    for login in (pair.desk_login, pair.owing):
        connection = await asyncpg.connect(login.dsn)
        try:
            await connection.execute("update relay_cursor set lower = '0', upper = null, last_id = 0")
        finally:
            await connection.close()
    async with pair.relaying(), pair.consuming():
        await pair.rests()

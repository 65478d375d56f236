"""Row 33: databases put back to a backup, and everything since then made up for, while a crowd goes on.

The services are killed under load, so that what was under way is lost as well; gateway, carriers and topics go on knowing what
the databases have forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from contracts.cycle import Cycle
from deploy.backup.backing_up import BackedUp, back_up
from deploy.backup.restoring import Restored, restore
from deploy.local.environment import SERVICES
from deploy.local.system import LocalSystem
from deploy.rehearsal.checking import evidence_of
from deploy.rehearsal.doors import Doors, on_this_machine
from deploy.rehearsal.invariants import judge
from deploy.rehearsal.invariants.privacy import Canaries
from deploy.rehearsal.streams import Streams
from deploy.replay.standing import standing
from deploy.replay.verify import verify
from services.chassis.db import driver_url
from services.chassis.wire import Wires
from services.notification.domain.life import KNOWN_BY_THEN
from tests.faults.harness import CYCLE, Battle, fight

pytestmark = pytest.mark.faults(long=True)


async def take_backup(battle: Battle, directory: Path) -> BackedUp:
    """Of the system as it runs, with everybody acting."""
    async with standing(battle.system.data) as place:
        assert place.running
        return await back_up(place, directory)


async def lose_and_restore(
    battle: Battle,
    backup: BackedUp,
    services: Sequence[str],
    *,
    counted: Counter[str] | None = None,
    crowded: bool = True,
) -> Restored:
    """Kill these services as they are, put their databases back to the backup, and start them again.

    `counted`: gets what notification had counted by then; with its database that is lost.
    """
    system = battle.system
    async with battle.doors_closed():
        battle.streams.faulted = True
        for service in services:
            await system.kill(service)
        async with standing(system.data) as place:
            restored = await restore(place, backup.file, only=services)
        if counted is not None:
            counted.update(await possible_copies(battle, restored.kept["notification"]))
        for service in services:
            await system.restart(service)
        # Its log counts anew: whoever waits for a number of it would wait for ever.
        await (battle.streams.rest() if crowded else quiet(system))
        battle.streams.faulted = False
    return restored


async def order_that_nobody_hears_of(battle: Battle) -> None:
    """Somebody who owes orders and does not pay yet: no event says so, only the gateway knows."""
    payment = battle.system.services["payment"]
    owing = await ask(
        battle,
        "payment",
        "select o.registration_id from obligations o where o.status = 'awaiting' and not exists ("
        "select from orders r where r.registration_id = o.registration_id) order by 1",
    )
    async with Wires(connections=1, patience=10.0, limit=1 << 20) as wires:
        for (registration_id,) in owing:
            token = battle.system.mint(f"candidate:{registration_id}", "somebody")
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            url = f"{payment.public_url}/registrations/{registration_id}/orders"
            answer = await wires.request("POST", url, headers, b'{"channel": "wechat"}')
            if answer.status == 201:
                battle.reached["an order that no event tells of"] += 1
                return


async def quiet(system: LocalSystem) -> None:
    """Until nothing moves any more, what waits after a restore included."""
    assert system.outside is not None
    assert system.clock_control is not None
    async with on_this_machine() as wire:
        doors = Doors(wire, system.keys.tokens, system.clock.now())
        internals = {name: service.internal_url for name, service in system.services.items()}
        ops = doors.headers("ops", "ops")
        streams = Streams(doors, internals, system.outside.control_url, system.kafka_bootstrap, ops)
        await streams.start()
        try:
            await streams.rest()
            system.clock_control.jump(system.clock.now() + KNOWN_BY_THEN)
            await streams.rest()
        finally:
            await streams.stop()


async def book(battle: Battle, which: str) -> list[dict[str, Any]]:
    """Every entry of a carrier's or the gateway's own book."""
    assert battle.system.outside is not None
    async with Wires(connections=1, patience=10.0, limit=1 << 26) as wires:
        url = f"{battle.system.outside.control_url}/sim/{which}/book?limit=1000000"
        found = orjson.loads((await wires.request("GET", url, {})).body)
    (entries,) = [value for value in found.values() if isinstance(value, list)]
    return list(entries)


async def sms_books(battle: Battle) -> list[dict[str, Any]]:
    """What both carriers of SMS took."""
    return [*await book(battle, "sms"), *await book(battle, "tencent")]


async def ask(battle: Battle, service: str, statement: str, *, of: str | None = None) -> list[Any]:
    """`of`: another database of this service's than the live one."""
    url = driver_url(battle.system.surroundings.databases[service])
    connection = await asyncpg.connect(url, database=of)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def count(battle: Battle, service: str, statement: str) -> int:
    return int((await ask(battle, service, statement))[0][0])


async def possible_copies(battle: Battle, of: str | None = None) -> Counter[str]:
    """Message → how many copies too many notification counted as possible."""
    statement = "select message_id::text, ambiguous from messages where ambiguous > 0"
    return Counter(dict(await ask(battle, "notification", statement, of=of)))


async def nothing_is_sent_twice(battle: Battle, counted: Counter[str]) -> None:
    """What carriers were given, by our references: each once, or as often as a second copy was counted.

    `counted`: in databases that were lost.
    """
    entries = [(entry["out_id"], entry) for entry in await sms_books(battle)]
    # A Message-ID is our reference at our domain.
    entries += [
        (entry["message_id"].strip("<>").partition("@")[0], entry) for entry in await book(battle, "mail")
    ]
    taken = Counter(reference for reference, _ in entries)
    allowed = counted + await possible_copies(battle)
    if twice := sorted(reference for reference, copies in taken.items() if copies - 1 > allowed[reference]):
        whose = (
            "select occasion, channel, state, state_at, created_at, not_before, provider, claims, tries, ambiguous, ask_since, "
            f"reason_code, tail from messages join recipients using (registration_id) where message_id = '{twice[0]}'"
        )
        known = [dict(row) for row in await ask(battle, "notification", whose)]
        raise AssertionError(
            f"{len(twice)} sent too often, the first, of which {allowed[twice[0]]} too many were counted: "
            f"{[entry for reference, entry in entries if reference == twice[0]]}; {known}"
        )
    battle.reached["messages were counted at the carriers"] += len(taken)
    battle.reached["copies too many, all of them counted"] += sum(taken.values()) - len(taken)


async def events_give_the_same(battle: Battle) -> None:
    """`kaowu replay verify`."""
    async with standing(battle.system.data) as place:
        verified = await verify(place)
    assert [str(difference) for difference in verified.differences] == []
    battle.reached["events that were replayed"] += verified.events


async def everything_fits(battle: Battle, counted: Counter[str]) -> None:
    await nothing_is_sent_twice(battle, counted)
    await events_give_the_same(battle)


async def test_after_a_backup_of_an_hour_ago_no_payment_is_lost_and_nothing_sent_is_sent_again(
    tmp_path: Path,
) -> None:
    backups: list[BackedUp] = []
    counted: Counter[str] = Counter()

    async def breaks(battle: Battle) -> None:
        system = battle.system
        await battle.until(0.72)
        backup = await take_backup(battle, tmp_path)
        backups.append(backup)
        orders, messages = len(await book(battle, "wechat")), len(await sms_books(battle))
        await battle.until(0.86)
        assert system.clock.now() - backup.manifest.at >= timedelta(hours=1)
        battle.reached["orders since the backup"] += len(await book(battle, "wechat")) - orders
        battle.reached["messages since the backup"] += len(await sms_books(battle)) - messages
        await order_that_nobody_hears_of(battle)
        # Of the mails that a relay has taken by then no database and no topic knows.
        await battle.dies("notification", "email-before-record", comes_back=False)
        restored = await lose_and_restore(battle, backup, SERVICES, counted=counted)
        for service, one in restored.services.items():
            battle.reached[f"{service} caught up with its own events"] += one.folded
            battle.reached["events heard again"] += one.heard
        payment = system.services["payment"]

        async def complete() -> bool:
            open_ones = "select count(*) from recoveries where finished_at is null"
            return await count(battle, "payment", open_ones) == 0

        await battle.eventually(complete, "the gateway asked about everybody")
        for what in ("found", "booked"):
            battle.reached[f"payments {what}"] += int(
                await battle.metric("kaowu_payment_recovered", payment, label=what)
            )

    async def once_more_after_the_close(battle: Battle) -> None:
        """Everybody's fate is decided and told by then: nothing of it may change, nor be told again."""
        await everything_fits(battle, counted)
        restored = await lose_and_restore(battle, backups[0], SERVICES, counted=counted, crowded=False)
        battle.reached["events of the close put back"] += restored.services["payment"].folded
        findings = judge(await evidence_of(battle.system, Canaries({})))
        violations = [violation for finding in findings for violation in finding.violations]
        # Two people lifted a forfeiture after the backup: it stands, and that its approval is lost is said by both.
        lost = restored.services["payment"].unrecorded
        assert [one for one in violations if not one.endswith("without a decision of two people")] == []
        assert len(violations) == sum(one.moved + one.reinstated for one in lost)
        battle.reached["decisions whose approval is listed as lost"] += len(lost)
        closes = "select count(*) from outbox where type = 'kaowu.payment.window-closed.v1'"
        assert await count(battle, "payment", closes) == 1
        await everything_fits(battle, counted)

    fought = await fight(tmp_path, breaks, people=60, at_rest=once_more_after_the_close)
    fought.holds({33: "payments found"})
    for what in (
        "orders since the backup",
        "an order that no event tells of",
        "events of the close put back",
        "decisions whose approval is listed as lost",
        "messages since the backup",
        "payment caught up with its own events",
        "notification caught up with its own events",
        "events heard again",
        "payments booked",
        "messages were counted at the carriers",
        "copies too many, all of them counted",
        "events that were replayed",
    ):
        assert fought.reached[what], f"{what}: {dict(fought.reached)}"


async def test_one_services_database_put_back_alone_finds_its_way_while_the_others_go_on(
    tmp_path: Path,
) -> None:
    counted: Counter[str] = Counter()

    async def breaks(battle: Battle) -> None:
        await battle.until(0.15)
        backup = await take_backup(battle, tmp_path)
        await battle.until(0.4)
        lost = ("confirmation", "notification")
        restored = await lose_and_restore(battle, backup, lost, counted=counted)
        battle.reached["confirmation caught up with its own events"] += restored.services[
            "confirmation"
        ].folded
        battle.reached["events heard again"] += sum(one.heard for one in restored.services.values())

    fits = partial(everything_fits, counted=counted)
    fought = await fight(tmp_path, breaks, people=40, seed=9, at_rest=fits)
    fought.holds({33: "confirmation caught up with its own events"})
    assert fought.reached["events heard again"]


async def of_the_office(
    battle: Battle, who: str, method: str, path: str, body: dict[str, str] | None = None
) -> Any:
    """What payment answers to this person of the office."""
    payment = battle.system.services["payment"]
    headers = {
        "authorization": f"Bearer {battle.system.mint('office', who)}",
        "content-type": "application/json",
        "idempotency-key": f"{who}-{method}-{path}",
    }
    async with Wires(connections=1, patience=20.0, limit=1 << 20) as wires:
        answer = await wires.request(
            method,
            f"{payment.public_url}/office/{path}",
            headers,
            orjson.dumps(body) if body is not None else b"",
        )
    assert answer.status < 300, answer.body
    return orjson.loads(answer.body)


async def put_off_and_lost(battle: Battle, backup: BackedUp) -> tuple[str, Restored]:
    """Two people put a desk's close off; others have heard of it, none of its people has been moved, and the database is lost."""
    (site, _), *_ = await ask(
        battle,
        "payment",
        "select site_id, count(*) from obligations where status = 'awaiting' group by 1 order by 2 desc, 1",
    )
    later = Cycle.read(CYCLE).windows.payment.closes + timedelta(days=3)
    connection = await asyncpg.connect(driver_url(battle.system.surroundings.databases["payment"]))
    try:
        await connection.execute("begin")
        # Whoever carries the decision out waits for the table: until then it is done to nobody. A lock of rows would have
        # a transaction id, and nothing younger than that is published.
        await connection.execute("lock table obligations in exclusive mode")
        owe = "select from obligations where site_id = $1 and status = 'awaiting'"
        battle.reached["people that a moved close had not reached"] += len(await connection.fetch(owe, site))
        wanted = {
            "kind": "extend-payment", "closes_at": later.isoformat(), "site": site,
            "reason": "支付渠道故障", "reason_code": "outage",
        }  # fmt: skip
        asked = await of_the_office(battle, "office-li", "POST", "decisions", wanted)
        await of_the_office(battle, "office-wang", "POST", f"decisions/{asked['decision_id']}/approve", {})

        async def heard() -> bool:
            closes = f"select count(*) from payment_closes where site_id = '{site}'"
            return await count(battle, "confirmation", closes) == 1

        await battle.eventually(heard, "confirmation has heard of the moved close")
        await battle.system.kill("payment")
    finally:
        await connection.close()
    return site, await lose_and_restore(battle, backup, ("payment",))


async def test_a_close_moved_after_the_backup_is_asked_for_again_and_reaches_everybody(
    tmp_path: Path,
) -> None:
    async def breaks(battle: Battle) -> None:
        await battle.until(0.75)
        backup = await take_backup(battle, tmp_path)
        async with battle.doors_closed():
            site, restored = await put_off_and_lost(battle, backup)
        (left,) = restored.services["payment"].left_behind
        assert left.site_id == site

        async def recovered() -> bool:
            # A code of before the restore can be opened until it ends: so long the gateways are asked.
            return bool((await of_the_office(battle, "office-wang", "GET", "decisions"))["items"])

        await battle.eventually(recovered, "payment has recovered and asks for the close again")
        (waiting,) = (await of_the_office(battle, "office-wang", "GET", "decisions"))["items"]
        assert (waiting["asked_by"], waiting["state"], waiting["site"]) == ("payment-recovery", "asked", site)
        assert waiting["preview"]["moved"] == left.people
        await of_the_office(battle, "office-wang", "POST", f"decisions/{waiting['decision_id']}/approve", {})

        async def done() -> bool:
            moved = f"select count(*) from carried_out where decision_id = '{waiting['decision_id']}' and moved > 0"
            return await count(battle, "payment", moved) == 1

        await battle.eventually(done, "the close that was asked for again is carried out")
        battle.reached["a decision was asked for again"] += 1

    fought = await fight(tmp_path, breaks, people=40, seed=4, at_rest=events_give_the_same)
    fought.holds({33: "a decision was asked for again"})
    assert fought.reached["people that a moved close had not reached"], fought.reached

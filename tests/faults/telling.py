"""Notification alone before both carriers and a mail relay: real processes, broker and database, people it can reach.

What people are told comes as events on their topics, as the other services publish them. Time stands still until it is
told to pass. At the end everything is held against the books of the carriers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson
from uuid_utils.compat import uuid7

from contracts import payment
from contracts.event import RegistrationEvent
from contracts.reasons import Channel, ExpiryCause, RefundCause, ReinstatementCause
from deploy.local.environment import SIMULATORS
from deploy.local.system import LocalSystem, Service
from services.chassis.db import driver_url
from services.chassis.packing import hand_over
from services.chassis.relay import producer
from services.chassis.vault import Vault
from services.chassis.wire import NoAnswer, Wires
from services.notification.domain.life import LEASE
from services.notification.handlers.contacts import row_of
from tests.faults.harness import CYCLE, KILLED, Ground, NotReached

NOTIFICATION: Final = "notification"
LEAVING: Final = datetime(2024, 2, 9, 10, tzinfo=ZoneInfo("Asia/Shanghai")).astimezone(UTC)
_FEE: Final = 28_000
_MOVED_CLOSE: Final = datetime(2024, 2, 12, 16, tzinfo=UTC)
_COLUMNS: Final = (
    "registration_id", "cycle_id", "site_id", "standing", "tail", "phone", "email", "contact_wanted", "contact_known",
    "contact_try_at", "contact_at",
)  # fmt: skip
_PROGRESS: Final = "select state, count(*), sum(claims), sum(tries) from messages group by 1 order by 1"
_HEARD: Final = "select count(distinct caused_by) from messages where caused_by = any($1::uuid[])"
_SAID: Final = """
select key, payload::jsonb ->> 'channel' as channel from outbox
where key = any($1::text[]) and payload::jsonb ->> 'occasion' = $2 and type = 'kaowu.notification.delivered.v1'
"""
_QUIET: Final = 3  # looks in a row at which nothing stirs and nothing has moved


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can be told something."""

    id: UUID
    phone: str
    email: str

    @property
    def number(self) -> str:
        """As the carriers' books have it."""
        return sha256(self.phone.encode()).hexdigest()


@dataclass(kw_only=True)
class Telling(Ground):
    """What somebody who breaks things can see and do."""

    database: Any
    cycle_id: str
    people: list[Person] = field(default_factory=list)
    told: Counter[UUID] = field(default_factory=Counter)
    """How many events were published about a person."""

    async def know(
        self,
        many: int,
        phone: Callable[[int], str] = lambda n: f"139{n:08d}",
        email: Callable[[int], str] = lambda n: f"p{n}@example.cn",
        tail: Callable[[int], int] = lambda n: n,
    ) -> list[Person]:
        """So many people whose contacts are here already; their numbers go on from those before."""
        vault = Vault.open(self.system.keys.vault_file(NOTIFICATION), "local")
        first, at, rows, people = len(self.people), self.system.clock.now(), list[Any](), list[Person]()
        for number in range(first, first + many):
            one = Person(uuid7(), phone(number), email(number))
            sealed = [
                vault.encrypt(value, row=row_of(one.id, name))
                for name, value in (("phone", one.phone), ("email", one.email))
            ]
            rows.append(
                (
                    one.id,
                    self.cycle_id,
                    "shizhong",
                    "none",
                    f"{tail(number) % 10_000:04d}",
                    *sealed,
                    1,
                    1,
                    at,
                    at,
                )
            )
            people.append(one)
        await self.database.copy_records_to_table("recipients", records=rows, columns=list(_COLUMNS))
        self.people += people
        return people

    async def say(
        self, event: Callable[[Person], RegistrationEvent], people: Sequence[Person], *, heard: bool = True
    ) -> None:
        """Published as payment's relay does it; `heard`: until notification has a message of each."""
        page = []
        for one in people:
            self.told[one.id] += 1
            said, event_id = event(one), uuid7()
            page.append(
                (
                    0, event_id, said.topic, str(one.id), said.type, self.told[one.id], self.system.clock.now(),
                    said.model_dump_json(), str(event_id), None, None,
                )
            )  # fmt: skip
        async with producer(self.system.kafka_bootstrap) as kafka:
            await asyncio.gather(*await hand_over(kafka, page))

        async def all_heard() -> bool:
            return bool(await self.database.fetchval(_HEARD, [row[1] for row in page]) == len(page))

        if heard:
            await self.eventually(all_heard, "a message of each event")

    def expired(self, one: Person) -> payment.Expired:
        closes = self.system.cycle.windows.payment.closes
        return payment.Expired(
            cycle_id=self.cycle_id,
            registration_id=one.id,
            closes_at=closes,
            cause=ExpiryCause.UNPAID,
            proof_id=one.id,
        )

    def reinstated(self, one: Person) -> payment.Reinstated:
        return payment.Reinstated(
            cycle_id=self.cycle_id,
            registration_id=one.id,
            cause=ReinstatementCause.TWO_PERSON_DECISION,
            closes_at=_MOVED_CLOSE,
        )

    def found_paid(self, one: Person) -> payment.Reinstated:
        """Paid in time, and late heard of."""
        return self.reinstated(one).model_copy(update={"cause": ReinstatementCause.PAID_IN_TIME})

    def paid(self, one: Person) -> payment.Paid:
        return payment.Paid(
            cycle_id=self.cycle_id,
            registration_id=one.id,
            amount_fen=_FEE,
            paid_at=self.system.cycle.windows.payment.closes - timedelta(minutes=1),
            channel=Channel.WECHAT,
            order_no="K2024000000000000000001",
        )

    def refunded(self, one: Person) -> payment.Refunded:
        return payment.Refunded(
            cycle_id=self.cycle_id,
            registration_id=one.id,
            amount_fen=_FEE,
            cause=RefundCause.PAID_LATE,
            refund_no="R2024000000000000000001",
        )

    # Time

    async def passes(self, so_long: timedelta, step: timedelta | None = None) -> None:
        """Time goes on, by steps, and at each everything that can be done is done."""
        assert self.system.clock_control is not None
        end = self.system.clock.now() + so_long
        while self.system.clock.now() < end:
            self.system.clock_control.jump(min(end, self.system.clock.now() + (step or so_long)))
            await self.rests()

    async def rests(self, within: float = 120.0) -> None:
        """Until nobody that lives has anything to do at this moment; what a dead process had in hand stays as it is."""
        quiet, seen, began = 0, None, time.monotonic()
        while quiet < _QUIET:
            stirring = await self._stirring()
            found = await self.database.fetch(_PROGRESS)
            quiet = 0 if stirring or found != seen else quiet + 1
            seen = found
            if time.monotonic() - began > within:
                raise AssertionError(f"no rest within {within:.0f} s: {stirring}, {seen}")
            await asyncio.sleep(0.03)

    async def _stirring(self) -> list[str]:
        """Who has something to do now."""
        found = ["the outside"] if (await self.outside("rest"))["pending_now"] else []
        headers = {"authorization": f"Bearer {self.system.mint(['ops'], 'ops')}"}
        everybody = {**self.system.services, **self.system.replicas}
        async with Wires(connections=1, patience=10.0, limit=1 << 20) as wires:
            for name, one in everybody.items():
                if not one.process.alive:
                    continue
                try:
                    answer = await wires.request("GET", f"{one.internal_url}/ops/rest?soon=true", headers)
                except NoAnswer:
                    found.append(f"{name} does not answer")  # it has just begun, or it dies
                    continue
                said = orjson.loads(answer.body)
                found += [f"{name} takes events in"] * bool(said["consuming"] or said["events_unpublished"])
                found += [
                    f"{name}: {job['name']}"
                    for job in said["jobs"]
                    if job["running"] or (job["due_at"] or "~") <= said["at"]
                ]
        return found

    # The outside

    async def outside(self, path: str, **told: object) -> Mapping[str, Any]:
        """Tell the outside something (with words), or ask it."""
        assert self.system.outside is not None
        url = f"{self.system.outside.control_url}/sim/{path}"
        async with Wires(connections=1, patience=30.0, limit=1 << 26) as wires:
            if told:
                headers = {"content-type": "application/json"}
                answer = await wires.request("POST", url, headers, orjson.dumps(told))
            else:
                answer = await wires.request("GET", url, {})
        assert answer.status == 200, answer
        found: Mapping[str, Any] = orjson.loads(answer.body)
        return found

    async def books(self) -> dict[str, Mapping[str, Any]]:
        """Both carriers of SMS."""
        return {name: await self.outside(f"{name}/book?limit=1000000") for name in ("sms", "tencent")}

    async def sms(self) -> list[Mapping[str, Any]]:
        """Every SMS that a carrier took."""
        return [one for book in (await self.books()).values() for one in book["messages"]]

    async def mails(self) -> list[Mapping[str, Any]]:
        return list((await self.outside("mail/book?limit=1000000"))["mails"])

    async def reached_by(self, weather: str) -> int:
        """How many calls met an outage."""
        return int((await self.outside("rest"))["reached"][weather])

    async def rows(self, where: str = "true", *values: object) -> list[Any]:
        return list(await self.database.fetch(f"select * from messages m where {where}", *values))

    # Death

    async def away(self) -> None:
        """`kill -9`; what is said from now on waits."""
        await self.system.kill(NOTIFICATION)

    async def dies_at(self, point: str, turn: int = 1, **given: str) -> None:
        """Started in these surroundings with this crash point armed, it dies there as `kill -9` and is started anew."""
        await self.arm(point, turn, **given)
        await self.dead(point, self.system.services[NOTIFICATION])
        await self.system.restart(NOTIFICATION, given)

    async def arm(self, point: str, turn: int = 1, **given: str) -> None:
        """Started in these surroundings with this crash point armed."""
        armed = {"KAOWU_CRASH_AT": f"{point}:{turn}", **given}
        await self.system.restart(NOTIFICATION, armed, wait=False)

    async def dead(self, point: str, one: Service) -> None:
        """Until this process of the service, which was armed so, is dead."""
        process = one.process
        await self.eventually(lambda: not process.alive, f"reaching {point}")
        if process.exit_code != KILLED:
            raise NotReached(f"ended with {process.exit_code} and not at {point}: {process.tail(5)}")
        self.reached[f"died at {point}"] += 1
        await self._count_dead()

    async def killed(self) -> None:
        """`kill -9` at this very moment, wherever it is."""
        await self.system.kill(NOTIFICATION)
        self.reached["killed at some moment"] += 1
        await self._count_dead()

    async def _count_dead(self) -> None:
        self.reached["killed"] += 1
        copies = await self.copies()
        for row in await self.rows("state = 'sending'"):
            self.reached["under way when it was killed"] += 1
            if copies[str(row["message_id"])]:
                self.reached["a carrier had it and nobody here knew"] += 1
                self.reached[f"{row['provider']} had it and nobody here knew"] += 1

    async def database_killed(self) -> None:
        """PostgreSQL as a power cut leaves it, and up again; the service lives."""
        await self.system.kill_database()
        self.database = await asyncpg.connect(driver_url(self.system.surroundings.databases[NOTIFICATION]))
        self.reached["the database was killed"] += 1

    async def taken_over(self) -> None:
        """The lease of what was under way runs out, and every carrier has had time to know what it took."""
        await self.passes(LEASE)
        await self.passes(timedelta(minutes=14), timedelta(minutes=2))

    # At the end

    async def copies(self) -> Counter[str]:
        """How many of each message the outside has, by our reference."""
        copies = Counter(one["out_id"] for one in await self.sms())
        copies.update(one["message_id"].strip("<>").partition("@")[0] for one in await self.mails())
        return copies

    async def of(self, occasion: str, people: Sequence[Person], channel: str = "") -> list[Any]:
        """The messages that tell these people of it."""
        ids = [one.id for one in people]
        return await self.rows(
            "occasion = $1 and registration_id = any($2::uuid[]) and $3 in ('', channel)",
            occasion,
            ids,
            channel,
        )

    async def unfinished(self, people: Sequence[Person]) -> int:
        """How many of their messages still are to end, not heard of ones included."""
        ended = await self.rows("state not in ('created', 'sending')")
        return 2 * len(people) - len(ended)

    async def nothing_lost(self, occasion: str, people: Sequence[Person]) -> Counter[str]:
        """Each of them has one message on each channel, which ended well, and the books have it; copies too many are no
        more than were counted as possible. Returns how many copies too many there were, by carrier."""
        rows, copies, twice = await self.of(occasion, people), await self.copies(), Counter[str]()
        assert sorted((str(row["registration_id"]), row["channel"]) for row in rows) == sorted(
            (str(one.id), channel) for one in people for channel in ("sms", "email")
        )
        for row in rows:
            name = str(row["message_id"])
            assert row["state"] in ("accepted", "delivered"), (
                name,
                row["channel"],
                row["state"],
                row["reason_code"],
            )
            assert 1 <= copies[name] <= 1 + row["ambiguous"], (
                name,
                row["channel"],
                copies[name],
                row["ambiguous"],
            )
            twice[row["provider"]] += copies[name] - 1
        delivered = Counter(
            (str(row["registration_id"]), row["channel"]) for row in rows if row["state"] == "delivered"
        )
        said = await self.database.fetch(_SAID, [str(one.id) for one in people], occasion)
        assert Counter((row["key"], row["channel"]) for row in said) == delivered, "what arrived is said once"
        known = {str(row["message_id"]) for row in await self.rows()}
        assert set(copies) <= known, "something left under a reference that is nobody's"
        return +twice

    async def log_lines(self, event: str) -> int:
        """How often the service, in all of its lives, said this."""
        log = self.system.services[NOTIFICATION].process.log.read_bytes()
        return log.count(f'"event":"{event}"'.encode())


@asynccontextmanager
async def telling(directory: Path, **extra: str) -> AsyncIterator[Telling]:
    """Ready inside, on the morning after the close."""
    async with LocalSystem(
        directory / "system",
        CYCLE,
        "virtual",
        only=(NOTIFICATION, SIMULATORS),
        starts_at=LEAVING,
        fresh=True,
        environ=dict(os.environ),
        # Whoever it does not know yet it would ask registration about; there is nobody of that kind here.
        extra={"NOTIFICATION_REGISTRATION_INTERNAL_URL": "http://127.0.0.1:9", **extra},
    ) as system:
        database = await asyncpg.connect(driver_url(system.surroundings.databases[NOTIFICATION]))
        told = Telling(system=system, database=database, cycle_id=system.cycle.id)
        try:
            yield told
        finally:
            with contextlib.suppress(OSError):
                await told.database.close()

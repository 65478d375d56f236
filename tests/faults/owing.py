"""Payment alone, with any number of people who owe: what only the close is asked about needs no crowd.

Everything is real (service process, PostgreSQL, Kafka, gateway) but for where the obligations come from: they are made in
one statement, each with the event that tells of it, as an approval would have made them.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from contracts import payment
from contracts.cycle import Cycle
from deploy.local.system import ClockKind, LocalSystem, Service
from deploy.rehearsal.invariants import ALL, messages
from deploy.rehearsal.invariants.evidence import Evidence, Finding
from deploy.rehearsal.invariants.privacy import Canaries
from deploy.rehearsal.invariants.reading import gather, subscriptions_of
from services.chassis import outbox
from services.chassis.wire import Answer, Wires
from services.payment.domain.proof_tree import ProofTree
from tests.faults.harness import CYCLE, Fought, Ground

SERVICE: Final = "payment"
BEFORE_CLOSE: Final = timedelta(hours=3)  # between two reminders: nobody is reminded on the way to the close
_MOMENT: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00")
_OWE: Final = f"""
with owed as (
    insert into obligations (registration_id, cycle_id, status, version, amount_fen, currency, opens_at, closes_at,
                             told_closes_at, due_at, changed_at)
    select uuidv7(), $1::text, 'awaiting', 1, 20000, 'CNY', $2::timestamptz, $3::timestamptz, $3, $4::timestamptz, $4
    from generate_series(1, $5::int)
    returning *
)
{
    outbox.insert_select(
        payment.Due,
        {
            "cycle_id": "cycle_id",
            "registration_id": "registration_id",
            "amount_fen": "amount_fen",
            "currency": "currency",
            "opens_at": outbox.moment_sql("opens_at"),
            "closes_at": outbox.moment_sql("told_closes_at"),
        },
        source="owed",
        key="registration_id::text",
        sequence="version",
        occurred_at="due_at",
    )
}
"""


@dataclass(kw_only=True)
class Owing(Ground):
    """The payment service, its database, and who owes."""

    began: float = field(default_factory=time.monotonic)

    @property
    def payment(self) -> Service:
        return self.system.services[SERVICE]

    @property
    def closes_at(self) -> datetime:
        return self.system.cycle.windows.payment.closes

    async def rows(self, statement: str, *args: object) -> list[Any]:
        """Asked on a connection of its own: the database may have been away since the last time."""
        url = self.system.surroundings.databases[SERVICE].replace("+asyncpg", "")
        connection = await asyncpg.connect(url, timeout=10, command_timeout=60)
        try:
            return list(await connection.fetch(statement, *args))
        finally:
            await connection.close()

    async def owe(self, people: int) -> list[UUID]:
        """So many registrations have just been approved."""
        window = self.system.cycle.windows.payment
        now = self.system.clock.now()
        await self.rows(_OWE, self.system.cycle.id, window.opens, window.closes, now, people)
        owed = await self.rows("select registration_id from obligations where due_at = $1", now)
        return [row["registration_id"] for row in owed]

    async def closes_in(self, seconds: float) -> datetime:
        """On the machine's clock: the window closes so soon. A process learns it from its notice when it starts."""
        at = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)
        self.system.cycle_file.write_text(notice_closing_at(at), encoding="utf-8")
        self.system.cycle = Cycle.read(self.system.cycle_file)
        await self.rows(
            "update obligations set closes_at = $1, told_closes_at = $1 where status = 'awaiting'", at
        )
        return at

    async def room_for(self, restarts: int) -> float:
        """Seconds in which this machine, as busy as it is, starts the service so often again and asks a little each time."""
        began = time.monotonic()
        await self.system.restart(SERVICE)
        return restarts * (3 * (time.monotonic() - began) + 4)

    async def order(self, registration_id: UUID, at: Service | None = None) -> Answer:
        """The candidate orders, by one of the processes."""
        token = self.system.mint(f"candidate:{registration_id}", f"account-{registration_id}")
        return await self._ask(
            f"{(at or self.payment).public_url}/registrations/{registration_id}/orders",
            {"channel": "wechat"},
            token,
        )

    async def pay(self, order_no: str) -> None:
        """The candidate pays at the gateway, which calls back at once."""
        assert self.system.outside is not None
        answer = await self._ask(
            f"{self.system.outside.control_url}/sim/wechat/pay", {"order_no": order_no, "callbacks": [0]}
        )
        assert answer.status == 200, answer.body

    async def _ask(self, url: str, body: object, token: str = "") -> Answer:
        headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {token}"} if token else {}
        )
        async with Wires(connections=1, patience=10.0, limit=1 << 20) as wires:
            return await wires.request("POST", url, headers, orjson.dumps(body))

    async def standing(self) -> Counter[str]:
        """How many obligations are in each state."""
        found = await self.rows("select status, count(*) as n from obligations group by status")
        return Counter({row["status"]: row["n"] for row in found})

    async def is_closed(self) -> bool:
        said = "select 1 from closings where closes_at = $1 and closed_at is not null"
        return bool(await self.rows(said, self.closes_at))

    async def at_rest(self, within: float = 180.0) -> None:
        """Until the close is said and everything said is published."""
        await self.eventually(self.is_closed, "the totals of the close", within)

        async def published() -> bool:
            return int((await self.ready(self.payment))["outbox_unpublished"]) == 0

        await self.eventually(published, "an empty outbox", within)

    async def fought(self, *, dated: bool = True) -> Fought:
        """The invariants at rest, and that the evidence says of everybody what is published of all.

        `dated`: whether the service's own clock was right, so that what it says of a person is dated in order.
        """
        evidence = await self._evidence()
        findings = [judge(evidence) for judge in ALL if judge is not messages.told]
        findings.append(await self._proven(evidence, dated=dated))
        found = Fought(findings, dict(self.reached), 0, time.monotonic() - self.began)
        print(found.summary())
        return found

    async def _evidence(self) -> Evidence:
        system = self.system
        assert system.outside is not None
        evidence = await gather(
            system.cycle,
            {SERVICE: system.surroundings.databases[SERVICE]},
            system.kafka_bootstrap,
            simulators=system.outside.control_url,
            canaries=Canaries({}),
            metrics={SERVICE: self.payment.internal_url},
            files=sorted(system.logs.glob("*.log")),
            subscriptions=subscriptions_of([SERVICE]),
            now=system.clock.now(),
        )
        # The other services' groups are not there to take anything in.
        evidence.lag = {SERVICE: evidence.lag[SERVICE]}
        return evidence

    async def _proven(self, evidence: Evidence, *, dated: bool) -> Finding:
        """One event and one leaf for each who is expired; the leaves give the root that was published; times do not go back."""
        wrong: list[str] = []
        facts = evidence.facts[SERVICE]
        said = Counter(fact.key for fact in facts if fact.word == "expired")
        leaves = Counter(proof.registration_id for proof in evidence.proofs)
        expired = {one.id for one in evidence.obligations if one.status == "expired"}
        for what, found in (("events", said), ("leaves", leaves)):
            wrong.extend(
                f"registration {one}: {found[one]} {what} of its forfeiture"
                for one in expired
                if found[one] != 1
            )
        last: dict[str, datetime] = {}
        for fact in facts:
            if dated and fact.at < last.get(fact.key, fact.at):
                wrong.append(f"registration {fact.key}: {fact.word} is dated before what came before it")
            last[fact.key] = fact.at
        closings = await self.rows("select closes_at, proof_root, proofs, last_proof from closings")
        for closing in closings:
            tree = ProofTree()
            for row in await self.rows(
                "select leaf from proofs where closes_at = $1 and number <= $2 order by registration_id, number",
                closing["closes_at"],
                closing["last_proof"],
            ):
                tree.add(row["leaf"])
            if (tree.root(), tree.leaves) != (closing["proof_root"], closing["proofs"]):
                wrong.append(
                    f"the root of {closing['proofs']} proofs is not that of the {tree.leaves} there are"
                )
        later = await self.rows(
            "select after_proof, last_proof, proof_root, proofs from later_roots order by sequence"
        )
        for root in later:
            tree = ProofTree()
            for row in await self.rows(
                "select p.leaf from proofs p join closings c on c.closes_at = p.closes_at and p.number > c.last_proof "
                "where p.number > $1 and p.number <= $2 order by p.number",
                root["after_proof"],
                root["last_proof"],
            ):
                tree.add(row["leaf"])
            if (tree.root(), tree.leaves) != (root["proof_root"], root["proofs"]):
                wrong.append(
                    f"the later root of {root['proofs']} proofs is not that of the {tree.leaves} there are"
                )
        said_later = sum(fact.word == "proofs-published" for fact in facts)
        if said_later != len(later):
            wrong.append(f"{len(later)} later roots were said {said_later} times")
        closes = sum(fact.word == "window-closed" for fact in facts)
        if closes != len(closings):
            wrong.append(f"{len(closings)} closes were said {closes} times")
        return Finding(
            "I7", "one event and one leaf each, the root as published", f"{len(expired)}", tuple(wrong)
        )


def notice_closing_at(at: datetime) -> str:
    """The notice of Leshan, all its moments moved so that payment closes then."""
    text = CYCLE.read_text(encoding="utf-8")
    moved = at - Cycle.read(CYCLE).windows.payment.closes

    def later(found: re.Match[str]) -> str:
        return (datetime.fromisoformat(found[0]) + moved).isoformat()

    return _MOMENT.sub(later, text)


@asynccontextmanager
async def owing(
    directory: Path, *, clock: ClockKind = "virtual", extra: Mapping[str, str] | None = None
) -> AsyncIterator[Owing]:
    """Payment and its parts; nobody owes yet. On a virtual clock its window closes in three hours, else in a day."""
    notice = directory / "notice.toml"
    closes_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    notice.write_text(CYCLE.read_text() if clock == "virtual" else notice_closing_at(closes_at))
    async with LocalSystem(
        directory / "system",
        notice,
        clock,
        only=(SERVICE, "simulators"),
        starts_at=Cycle.read(notice).windows.payment.closes - BEFORE_CLOSE,
        fresh=True,
        extra=extra,
    ) as system:
        yield Owing(system=system)

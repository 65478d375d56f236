"""Looks at a run: what must hold at every moment, what must hold whenever everything has come to rest, what the rules say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from aiokafka import TopicPartition

from contracts.topics import TOPICS
from deploy.rehearsal import outcomes, people_file
from deploy.rehearsal.identity import Identity
from deploy.rehearsal.invariants import delivery, history, judge, money
from deploy.rehearsal.invariants.evidence import Evidence, Finding
from deploy.rehearsal.invariants.privacy import Canaries
from deploy.rehearsal.invariants.reading import read_database, read_records, subscriptions_of
from deploy.rehearsal.people import People
from deploy.rehearsal.standing import Standing
from services.chassis.clock_guard import TOLERANCE
from tests.model.office import predict
from tests.simulation.broker import Record
from tests.simulation.doors import SimulatedDoors
from tests.simulation.scene import Scene
from tests.simulation.services import ORDER, Spoilt
from tests.support.plays import Violation

Invariant = Callable[[Evidence], Finding]

# True at every moment, whatever is under way.
ALWAYS: Final[tuple[Invariant, ...]] = (
    money.never_both,
    history.transitions,
    delivery.once,
    history.origins,
)
# True besides whenever nothing is left to do, though callbacks and receipts may still be to come.
AT_REST: Final[tuple[Invariant, ...]] = (
    delivery.nothing_lost,
    delivery.keys,
    delivery.caught_up,
    delivery.parked,
    history.folds,
)
# How notification knows whoever was told this last.
_STANDING: Final = {"due": "awaiting", "paid": "paid", "expired": "expired", "reinstated": "awaiting"}
_RECIPIENTS: Final = (
    "select registration_id, standing, contact_wanted from recipients where erased_at is null"
)
_SUBSCRIPTIONS: Final = subscriptions_of(ORDER)
_EXPIRED: Final = b"kaowu.payment.expired.v1"
# Why an event may be parked here: somebody spoilt it, or one of its key that came before it. No handler has a reason of its own.
_PARKED_BECAUSE: Final = frozenset({f"failed: {Spoilt.__name__}", "behind-parked"})


@dataclass
class Looking:
    scene: Scene
    people: People
    identities: Mapping[str, Identity]
    standings: Mapping[str, Standing]
    doors: SimulatedDoors
    looks: int = 0
    _said: dict[tuple[str, bytes], int] = field(default_factory=lambda: defaultdict(int))
    _seen: set[bytes] = field(default_factory=set)
    _copies: int = 0
    _topics: Evidence = field(init=False)
    """All records that earlier looks have read; each is read once."""
    _read: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))

    def begin(self) -> None:
        """From now on every record is looked at as it comes to lie on its topic."""
        self.scene.stage.broker.watch = self._watch
        self._canaries = Canaries(self.identities)
        self._topics = Evidence(self.scene.stage.cycle)
        self._topics.records = {topic.name: [] for topic in TOPICS.values() if topic.consumers}

    def _watch(self, record: Record) -> None:
        """I4, and of I7 what only the true time knows."""
        headers = dict(record.headers)
        identity, key = headers["ce_id"], record.key or b""
        if identity in self._seen:
            self._copies += 1
            return
        self._seen.add(identity)
        sequence, before = int(headers["ce_sequence"]), self._said[record.topic, key]
        if sequence != before + 1:
            raise Violation(
                f"I4: {key.decode()} has version {sequence} after {before} on {record.topic}, "
                f"at offset {record.offset} of {record.partition}"
            )
        self._said[record.topic, key] = sequence
        closes = self.scene.stage.cycle.windows.payment.closes
        if headers["ce_type"] == _EXPIRED and self.scene.now() < closes - TOLERANCE:
            raise Violation(f"I7: {key.decode()} is forfeited at {self.scene.now()}, before the close")

    # Along the way

    async def look(self, *, at_rest: bool, until: tuple[Any, int, int] | None = None) -> None:
        """Raises Violation. `until`: moment, line from 0 and number of the next step, before which the model is asked."""
        self.looks += 1
        evidence = await self._evidence()
        found = [invariant(evidence) for invariant in (*ALWAYS, *(AT_REST if at_rest else ()))]
        broken = [f"{one.id} {one.title}: {violation}" for one in found for violation in one.violations]
        broken += self._refused(evidence) + self._overtaken(evidence) + self._copied()
        if (
            at_rest
            and until is not None
            and not any(what == "callback" for _, _, what, _ in self.scene.agenda)
        ):
            broken += self._so_far(evidence, until)
        self._raise(broken)

    async def look_at_parked(self, name: str) -> None:
        """Before what is parked in a service is replayed. Raises Violation."""
        evidence = Evidence(self.scene.stage.cycle)
        await read_database(evidence, name, self.scene.stage.superuser[name], self.scene.now())
        self._read_topics(evidence)
        self._raise(self._overtaken(evidence))

    @staticmethod
    def _overtaken(evidence: Evidence) -> list[str]:
        """I12 while events wait: what comes behind one of its key is not taken in before it."""
        broken = []
        at = {record.event_id: record for records in evidence.records.values() for record in records}
        for one in evidence.parked:
            if one.status != "parked" or one.event_id is None or one.event_id not in at:
                continue
            first = at[one.event_id]
            handlers = _SUBSCRIPTIONS[one.service]
            if (handlers.get(first.type), first.event_id) in evidence.inbox[one.service]:
                continue  # a copy that was parked behind another event
            broken += [
                f"I12: {one.service} took in version {record.sequence} of {record.key} past {first.sequence}, which is parked"
                for record in evidence.records[one.topic]
                if record.key == first.key
                and record.sequence > first.sequence
                and (handlers.get(record.type), record.event_id) in evidence.inbox[one.service]
            ]
        return broken

    @staticmethod
    def _refused(evidence: Evidence) -> list[str]:
        """I6: what comes once more is passed over, not refused and kept for a person. I12: nothing sound is parked."""
        broken = []
        for one in evidence.parked:
            if one.reason in _PARKED_BECAUSE:
                continue
            handler = _SUBSCRIPTIONS[one.service].get(one.type or "")
            known = (handler, one.event_id) in evidence.inbox[one.service]
            name, which = ("I6", "a copy of what it had taken in") if known else ("I12", "what nobody spoilt")
            broken.append(f"{name}: {one.service} parked {which}, a {one.type} of {one.key}: {one.reason}")
        return broken

    def _copied(self) -> list[str]:
        """Only what may not have arrived is sent again: one relay at a time, from where the last one stood."""
        if self._copies <= self.scene.excused:
            return []
        return [f"I4: {self._copies} copies on the topics, of which {self.scene.excused} had a reason"]

    def _so_far(self, evidence: Evidence, until: tuple[Any, int, int]) -> list[str]:
        rows = {one.id: one for one in evidence.registrations}
        broken = []
        for name, expected in self._predicted(until).items():
            row = rows.get(self.standings[name].registration_id or "")
            state = "refused" if row is None else _state(row)
            if state != expected.state:
                broken.append(
                    f"model: {name} is {state} at {self.scene.now()}, the rules say {expected.state}"
                )
        return broken

    def _predicted(self, until: tuple[Any, int, int] | None = None) -> dict[str, Any]:
        return predict(people_file.dump(self.people).split("\n"), until=until)

    # At the end

    async def judge(self) -> str:
        """Everything, once nothing is due any more. Returns a digest of what became of everybody; raises Violation."""
        evidence = await self._evidence()
        broken = [
            f"{found.id} {found.title}: {violation}"
            for found in judge(evidence)
            for violation in found.violations
        ]
        broken += self._refused(evidence) + self._copied() + await self._recipients(evidence)
        carriers = self.scene.stage.carriers
        broken += [
            f"I8: {count} copies of one message, and of only {carriers.unknown[reference]} it was unknown what became of them"
            for reference, count in carriers.taken.items()
            if count > 1 + carriers.unknown[reference]
        ]
        addresses = {name: f"sim://{name}" for name in ORDER}
        office = self.doors.headers("office", "office")
        lists = await outcomes.read_lists(self.doors, addresses, office)  # type: ignore[arg-type]  # the same answers
        found = {one.person: one for one in outcomes.outcomes(self.standings.values(), lists)}
        broken += self._money_and_place(found, await self._closes())
        if not self.scene.late:
            broken += self._against_the_model(found)
        self._raise(broken)
        return repr(
            [
                (
                    name,
                    one.state,
                    one.paid_fen,
                    one.refused,
                    sorted((m["occasion"], m["channel"], m["state"]) for m in one.messages),
                )
                for name, one in sorted(found.items())
            ]
        )

    def _raise(self, broken: list[str]) -> None:
        if broken:
            raise Violation("\n".join(broken[:12]))

    async def _evidence(self) -> Evidence:
        scene = self.scene
        evidence = Evidence(scene.stage.cycle, subscriptions=_SUBSCRIPTIONS)
        for name in ORDER:
            await read_database(evidence, name, scene.stage.superuser[name], scene.now())
        self._read_topics(evidence)
        evidence.lag = {name: member.behind for name, member in scene.members.items()}
        evidence.book = scene.stage.booked()
        return evidence

    def _read_topics(self, evidence: Evidence) -> None:
        topics = self._topics
        broker = self.scene.stage.broker
        for place in broker.written:
            log = broker.logs[place]
            if place[0] in topics.records and len(log) > self._read[place]:
                read_records(topics, self._canaries, TopicPartition(*place), log[self._read[place] :])
                self._read[place] = len(log)
        evidence.records, evidence.unreadable = topics.records, topics.unreadable
        evidence.canaries, evidence.searched, evidence.leaks = topics.canaries, topics.searched, topics.leaks

    async def _recipients(self, evidence: Evidence) -> list[str]:
        """I6 and I13 of notification's view of people: which contact is wanted, where they stand."""
        contacts = Counter(
            fact.key for fact in evidence.facts["registration"] if fact.word in ("amended", "contact-changed")
        )
        rejected = {fact.key for fact in evidence.facts["confirmation"] if fact.word == "rejected"}
        standing = {
            fact.key: "paid" if fact.payload.get("cause") == "paid-in-time" else _STANDING[fact.word]
            for fact in evidence.facts["payment"]
            if fact.word in _STANDING
        }
        broken = []
        for row in await self.scene.stage.superuser["notification"].fetch(_RECIPIENTS):
            key = str(row["registration_id"])
            # Of two in one batch one is asked for: never more often than people gave one.
            if row["contact_wanted"] > 1 + contacts[key]:
                broken.append(
                    f"I6: notification wants the contact of {key} for the {row['contact_wanted']}th time, "
                    f"which was given {1 + contacts[key]} times"
                )
            if key not in rejected and row["standing"] != standing.get(key, "none"):
                broken.append(
                    f"I13: notification takes {key} for {row['standing']}, the log says {standing.get(key)}"
                )
        return broken

    async def _closes(self) -> Mapping[str, datetime]:
        """Registration → the close that holds for it now; two people may have moved it."""
        rows = await self.scene.stage.superuser["payment"].fetch(
            "select registration_id, closes_at from obligations"
        )
        return {str(row["registration_id"]): row["closes_at"] for row in rows}

    def _money_and_place(self, found: Mapping[str, Any], closes: Mapping[str, datetime]) -> list[str]:
        """Whoever paid in time has the place; whoever was approved and did not has none."""
        announced = self.scene.stage.cycle.windows.payment.closes
        paid_at = {one.order_no: one.paid_at for one in self.scene.stage.booked() if one.paid and one.paid_at}
        broken = []
        for name, standing in self.standings.items():
            state = found[name].state
            close = closes.get(standing.registration_id or "", announced)
            moments = [paid_at[order] for _, order in standing.orders if order in paid_at]
            # Nobody moves the close to an earlier moment here.
            paid = any(moment < announced for moment in moments)
            # Which of two closes such a payment is judged by is for when it was heard of to say; the money is, in either case.
            perhaps = any(announced <= moment < close for moment in moments)
            if paid and state not in ("paid", "rejected"):
                broken.append(f"I2: {name} paid in time and is {state}")
            if perhaps and state not in ("paid", "rejected", "expired"):
                broken.append(f"I2: {name} paid between two closes and is {state}")
            if not paid and not perhaps and state in ("paid", "approved"):
                broken.append(f"I7: {name} did not pay in time and is {state} after the close")
        return broken

    def _against_the_model(self, found: Mapping[str, Any]) -> list[str]:
        """Nobody came too late for what they did: the rules alone say what becomes of each."""
        asked_twice = {what.partition(",")[0] for what in self.doors.repeated}
        broken = []
        for name, expected in self._predicted().items():
            one = found[name]
            if one.state != expected.state or one.paid_fen != expected.paid_fen:
                broken.append(
                    f"model: {name} is {one.state} with {one.paid_fen} fen, the rules say {expected.state}, {expected.paid_fen}"
                )
            if name not in asked_twice and sorted(one.refused) != sorted(expected.refused):
                broken.append(f"model: {name} was refused {one.refused}, the rules say {expected.refused}")
        return broken


def _state(row: Any) -> str:
    """A registration's own row in the model's words."""
    if row.withdrawn:
        return "withdrawn"
    if row.confirmation == "approved" and row.payment in ("paid", "expired"):
        return str(row.payment)
    return "pre-registered" if row.confirmation in ("open", "returned") else str(row.confirmation)

"""I4, I5, I6, I9, I11, I12: from outbox to topic to inbox, in order, complete, once in effect."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from uuid import UUID

from contracts.catalogue import Unknown, fact_of, look_up, newest
from deploy.rehearsal.invariants.evidence import Evidence, Fact, Finding, Record
from services.chassis.heard import OVERTAKEN


def versions(evidence: Evidence) -> Finding:
    """I4. Per key the versions on a topic are 1, 2, 3, … without a gap, first occurrences in order."""
    wrong: list[str] = list(evidence.unreadable)
    count = 0
    for topic, records in evidence.records.items():
        last: dict[str, int] = defaultdict(int)
        seen: set[UUID] = set()
        where: dict[str, int] = {}
        for record in sorted(records, key=_place):
            count += 1
            if where.setdefault(record.key, record.partition) != record.partition:
                wrong.append(f"{record.key}: on two partitions of {topic}")
            if record.event_id in seen:
                continue
            seen.add(record.event_id)
            if record.sequence != last[record.key] + 1:
                wrong.append(f"{record.key}: version {record.sequence} after {last[record.key]} on {topic}")
            last[record.key] = record.sequence
    return Finding("I4", "versions without gap, in order", f"{count} records", tuple(wrong))


def _place(record: Record) -> tuple[int, int]:
    return record.partition, record.offset


def nothing_lost(evidence: Evidence) -> Finding:
    """I5. Outbox − topic = ∅, topic − outbox = ∅, topic − inbox − parked = ∅ for every handler that exists."""
    wrong: list[str] = []
    on_topics: dict[str, set[UUID]] = {
        topic: {record.event_id for record in records} for topic, records in evidence.records.items()
    }
    written: set[UUID] = set()
    for service, facts in evidence.facts.items():
        for fact in facts:
            written.add(fact.event_id)
            if fact.event_id not in on_topics.get(fact.topic, set()):
                wrong.append(f"{fact.key}: {service}'s {fact.word} is not on {fact.topic}")
    parked = {(one.service, one.event_id) for one in evidence.parked if one.status != "replayed"}
    taken = {service: {event_id for _, event_id in pairs} for service, pairs in evidence.inbox.items()}
    deliveries = 0
    for topic, records in evidence.records.items():
        for record in records:
            if record.event_id not in written:
                wrong.append(f"{record.key}: an event on {topic} that no service wrote")
            for service, handlers in evidence.subscriptions.items():
                handler = handlers.get(newest(record.type))
                if handler is None and not _newer_than_known(record.type, handlers):
                    continue
                deliveries += 1
                if handler is None and record.event_id in taken.get(service, ()):
                    continue  # parked in a form that was unknown, and replayed after an upgrade
                if (handler, record.event_id) in evidence.inbox.get(service, set()):
                    continue
                if (service, record.event_id) not in parked:
                    wrong.append(f"{record.key}: {service} has neither taken in nor parked a {record.type}")
    return Finding("I5", "nothing lost", f"{len(written)} events, {deliveries} deliveries", tuple(wrong))


def _newer_than_known(kind: str, handlers: Mapping[str, str]) -> bool:
    """Whether this is a form, unknown here, of a fact that this service handles: it can only wait, parked."""
    return look_up(kind) is Unknown.MAJOR and fact_of(kind) in {fact_of(known) for known in handlers}


def once(evidence: Evidence) -> Finding:
    """I6. However often an event is delivered, its effect is said once."""
    wrong: list[str] = []
    everything = {fact.event_id for facts in evidence.facts.values() for fact in facts}
    effects = 0
    for service, facts in evidence.facts.items():
        ids = Counter(fact.event_id for fact in facts)
        wrong.extend(f"{service}: event {event_id} written {n} times" for event_id, n in ids.items() if n > 1)
        said: Counter[tuple[str, str, str, str]] = Counter()
        for fact in facts:
            cause = _event_id(fact)
            if cause in everything:
                effects += 1
                # One fact is told through several channels; through each of them once.
                said[fact.key, fact.type, str(cause), str(fact.payload.get("channel", ""))] += 1
        wrong.extend(
            f"{key}: {service} said {kind} {n} times because of one event"
            for (key, kind, *_), n in said.items()
            if n > 1
        )
    return Finding("I6", "once in effect", f"{effects} effects of {len(everything)} events", tuple(wrong))


def _event_id(fact: Fact) -> UUID | None:
    try:
        return UUID(fact.causation) if fact.causation else None
    except ValueError:
        return None  # a job or a request, not an event


def keys(evidence: Evidence) -> Finding:
    """I9. Every idempotency key that was remembered has the answer that a repetition will get."""
    wrong = [f"{key.service}: a remembered key has no answer" for key in evidence.keys if not key.answered]
    return Finding("I9", "idempotency keys keep their answer", f"{len(evidence.keys)} keys", tuple(wrong))


def caught_up(evidence: Evidence) -> Finding:
    """I11. At rest nothing waits: outboxes are empty, no group lags."""
    wrong = [
        f"{service}: {count} events unpublished" for service, count in evidence.unpublished.items() if count
    ]
    wrong.extend(f"group {group}: lags by {count} records" for group, count in evidence.lag.items() if count)
    checked = f"{len(evidence.unpublished)} outboxes, {len(evidence.lag)} groups"
    return Finding("I11", "outboxes empty, no lag", checked, tuple(wrong))


def parked(evidence: Evidence) -> Finding:
    """I12. What is parked is kept whole with a reason, and later events of its key wait behind it.

    But for what was overtaken: it is parked because a later one was taken in already, and I4 says whose fault that is."""
    wrong: list[str] = []
    first: dict[tuple[str, str, str], tuple[int, int]] = {}
    waiting = [one for one in evidence.parked if one.status == "parked"]
    for one in waiting:
        where = f"{one.service}: {one.topic} {one.partition}:{one.offset}"
        if not one.reason:
            wrong.append(f"{where} is parked without a reason")
        if not one.kept:
            wrong.append(f"{where} is parked without its headers or payload, so it cannot be replayed")
        if one.key is not None and not one.reason.startswith(f"{OVERTAKEN}:"):
            place = (one.partition, one.offset)
            first[one.service, one.topic, one.key] = min(
                first.get((one.service, one.topic, one.key), place), place
            )
    behind = {(one.service, one.topic, one.partition, one.offset) for one in evidence.parked}
    for (service, topic, key), place in first.items():
        handlers = evidence.subscriptions.get(service, {})
        for record in evidence.records.get(topic, ()):
            overtook = record.key == key and _place(record) > place and newest(record.type) in handlers
            if overtook and (service, topic, record.partition, record.offset) not in behind:
                wrong.append(
                    f"{key}: {service} took in version {record.sequence} past a parked event of {topic}"
                )
    return Finding(
        "I12", "parked is not lost", f"{len(waiting)} parked, {len(evidence.parked)} ever", tuple(wrong)
    )

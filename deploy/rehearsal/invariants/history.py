"""I3, I10, I13, I14: what was said, in an order that is allowed, by somebody known, and the same as what the tables hold.

The tables of transitions stand here a second time on purpose: a check that asked the services would agree with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from deploy.rehearsal.invariants.evidence import Evidence, Fact, Finding

# What may be said after what, per registration. "" is the beginning.
AFTER: Mapping[str, Mapping[str, frozenset[str]]] = {
    "registration": {
        "": frozenset({"pre-registered"}),
        "pre-registered": frozenset({"amended", "contact-changed", "withdrawn", "erased"}),
        "amended": frozenset({"amended", "contact-changed", "withdrawn", "erased"}),
        "contact-changed": frozenset({"amended", "contact-changed", "withdrawn", "erased"}),
        "withdrawn": frozenset({"erased"}),
        "erased": frozenset(),
    },
    "payment": {
        "": frozenset({"due"}),
        # Due again: approved anew after the approval had been taken back, which payment does not announce.
        "due": frozenset({"due", "closing-soon", "paid", "expired", "window-moved"}),
        "closing-soon": frozenset({"due", "closing-soon", "paid", "expired", "window-moved"}),
        "paid": frozenset({"due"}),
        "expired": frozenset({"reinstated", "due"}),
        "reinstated": frozenset({"due", "paid", "closing-soon", "expired", "window-moved"}),
        "window-moved": frozenset({"due", "closing-soon", "paid", "expired", "window-moved"}),
    },
}
# A case by what is said about it: state → word → next state. `reviewed` needs its decision, see `_case`.
CASE: Mapping[str, Mapping[str, str]] = {
    "pre-registered": {
        "confirmed": "confirmed",
        "returned": "returned",
        "rejected": "rejected",
        "lapsed": "lapsed",
    },
    "returned": {
        "confirmed": "confirmed",
        "returned": "returned",
        "rejected": "rejected",
        "lapsed": "lapsed",
    },
    "confirmed": {"returned": "returned", "rejected": "rejected", "approved": "approved"},
    "approved": {"rejected": "rejected", "returned": "returned"},
    "rejected": {"returned": "returned"},
    "lapsed": {},
}
REVERSALS = frozenset({"reinstated", "refunded"})
# Money that was late, double or wrong goes back whatever becomes of the registration meanwhile, and changes nothing of it.
ASIDE: Mapping[str, str] = {"refunded": "due"}
"""What may be said at any time once the other was."""


def transitions(evidence: Evidence) -> Finding:
    """I3. Only allowed transitions, each from the version before it."""
    wrong: list[str] = []
    count = 0
    for service, table in AFTER.items():
        for key, facts in _by_key(evidence, service).items():
            last, before = "", set[str]()
            for fact in facts:
                count += 1
                allowed = (
                    ASIDE[fact.word] in before
                    if fact.word in ASIDE
                    else fact.word in table.get(last, frozenset())
                )
                if not allowed:
                    wrong.append(f"registration {key}: {service} said {fact.word} after {last or 'nothing'}")
                before.add(fact.word)
                last = last if fact.word in ASIDE else fact.word
            wrong.extend(_gaps(key, service, facts))
    for key, facts in _by_key(evidence, "confirmation").items():
        count += len(facts)
        state, problem = _case(facts)
        if problem is not None:
            wrong.append(f"registration {key}: confirmation said {problem} of a case that was {state}")
        wrong.extend(_gaps(key, "confirmation", facts))
    return Finding("I3", "only allowed transitions", f"{count} facts", tuple(wrong))


def _gaps(key: str, service: str, facts: Sequence[Fact]) -> list[str]:
    return [
        f"registration {key}: fact {number} of {service} has version {fact.sequence}"
        for number, fact in enumerate(facts, start=1)
        if fact.sequence != number
    ][:1]


def _case(facts: Sequence[Fact]) -> tuple[str, str | None]:
    """The case after these facts, or where it went wrong."""
    state = "pre-registered"
    for fact in facts:
        if fact.word in ("window-moved", "reviewed"):
            continue
        following = CASE[state].get(fact.word)
        if following is None:
            return state, fact.word
        state = following
    return state, None


def reversals(evidence: Evidence) -> Finding:
    """I10. Every reversal has its own event with a cause, and a message in every channel."""
    wrong: list[str] = []
    told = {(message.event_id, message.channel) for message in evidence.messages}
    channels = sorted({message.channel for message in evidence.messages})
    found = [fact for fact in evidence.facts.get("payment", ()) if fact.word in REVERSALS]
    for fact in found:
        if not fact.payload.get("cause"):
            wrong.append(f"registration {fact.key}: {fact.word} without a cause")
        wrong.extend(
            f"registration {fact.key}: nobody was told by {channel} that it was {fact.word}"
            for channel in channels
            if (fact.event_id, channel) not in told
        )
    return Finding("I10", "reversals have event, reason and message", f"{len(found)} reversals", tuple(wrong))


def folds(evidence: Evidence) -> Finding:
    """I13. What the tables hold is what folding the event logs gives, in every service and in its views of others."""
    wrong: list[str] = []
    said = {service: _by_key(evidence, service) for service in ("registration", "confirmation", "payment")}
    for registration in evidence.registrations:
        facts = said["registration"].get(registration.id, [])
        forms = [fact.payload["form_version"] for fact in facts if "form_version" in fact.payload]
        _compare(
            wrong,
            registration.id,
            "withdrawn",
            registration.withdrawn,
            any(f.word == "withdrawn" for f in facts),
        )
        _compare(wrong, registration.id, "version", registration.version, len(facts))
        _compare(wrong, registration.id, "form version", registration.form_version, max(forms, default=0))
        case, _ = _case(said["confirmation"].get(registration.id, []))
        view = {"pre-registered": "open"}.get(case, case)
        if not registration.withdrawn:
            _compare(
                wrong, registration.id, "registration's view of confirmation", registration.confirmation, view
            )
        payment = _payment(said["payment"].get(registration.id, []))
        _compare(
            wrong, registration.id, "registration's view of payment", registration.payment, payment or "none"
        )
    known = {registration.id for registration in evidence.registrations}
    wrong.extend(f"registration {key}: has events and no row" for key in said["registration"].keys() - known)
    withdrawn = {registration.id for registration in evidence.registrations if registration.withdrawn}
    for case_row in evidence.cases:
        facts = said["confirmation"].get(case_row.id, [])
        state = "withdrawn" if case_row.id in withdrawn else _case(facts)[0]
        _compare(wrong, case_row.id, "case", case_row.state, state)
        _compare(wrong, case_row.id, "version of the case", case_row.version, len(facts))
    for one in evidence.obligations:
        facts = said["payment"].get(one.id, [])
        _compare(wrong, one.id, "version of the obligation", one.version, len(facts))
        # Holding and cancelling say nothing on the topic; they follow from the gateway's silence and from a rejection.
        if one.status not in ("held", "cancelled"):
            _compare(wrong, one.id, "obligation", one.status, _payment(facts))
    wrong.extend(_owing(evidence, said["confirmation"], withdrawn))
    rows = len(evidence.registrations) + len(evidence.cases) + len(evidence.obligations)
    return Finding("I13", "tables = fold of the event log", f"{rows} rows", tuple(wrong))


def _owing(
    evidence: Evidence, said: Mapping[str, Sequence[Fact]], withdrawn: Collection[str]
) -> Iterator[str]:
    """What confirmation's log makes owed is owed at payment, and nothing else is; but for those whose event is parked."""
    owed = {one.id: one.status for one in evidence.obligations}
    parked = {one.key for one in evidence.parked if one.service == "payment" and one.status != "replayed"}
    for key, facts in said.items():
        if key in parked or key in withdrawn:
            continue
        state, _ = _case(facts)
        status = owed.get(key, "cancelled")
        if state == "approved" and status == "cancelled":
            yield f"registration {key}: approved and owes nothing"
        if state == "rejected" and status != "cancelled":
            yield f"registration {key}: rejected and its obligation is {status}"


def _payment(facts: Sequence[Fact]) -> str | None:
    """What the payment topic says of a registration."""
    becomes = {"due": "awaiting", "paid": "paid", "expired": "expired", "reinstated": "awaiting"}
    state = None
    for fact in facts:
        state = becomes.get(fact.word, state)
    return state


def _compare(wrong: list[str], who: str, what: str, held: object, folded: object) -> None:
    if held != folded:
        wrong.append(f"registration {who}: {what} is {held}, the log says {folded}")


def origins(evidence: Evidence) -> Finding:
    """I14. No change without a verified origin: staff who are named, an answer the gateway signed, the sweep's own proof."""
    wrong = [
        f"registration {one.registration_id}: {one.kind} by nobody"
        for one in evidence.decisions
        if not one.actor or not one.actor_kind
    ]
    wrong.extend(
        f"registration {entry.registration_id}: {entry.amount_fen} fen booked without the gateway's signed answer"
        for entry in evidence.ledger
        if entry.kind == "received" and entry.answer_id is None
    )
    # What is due back may come of a rejection, which no gateway signs; but only money that came can go back.
    came = {entry.transaction_id for entry in evidence.ledger if entry.kind == "received"}
    wrong.extend(
        f"registration {entry.registration_id}: {entry.amount_fen} fen are {entry.kind} and were never received"
        for entry in evidence.ledger
        if entry.kind != "received" and entry.transaction_id not in came
    )
    wrong.extend(
        f"registration {order.registration_id}: order {order.order_no} closed without the gateway's signed answer"
        for order in evidence.orders
        if order.status == "closed" and order.answer_id is None
    )
    decided = {(decision.registration_id, decision.kind) for decision in evidence.decisions}
    wrong.extend(
        f"registration {fact.key}: {fact.word} without a recorded decision"
        for fact in evidence.facts.get("confirmation", ())
        if fact.word in ("confirmed", "returned", "rejected")
        and (fact.key, fact.word) not in decided
        # The candidate's own amendment that overtook a confirmation sends it back; nobody at a desk decided that.
        and fact.payload.get("reason_codes") != ["form-outdated"]
    )
    wrong.extend(_by_one_person(evidence))
    decisions = len(evidence.decisions) + len(evidence.two_people)
    checked = f"{decisions} decisions, {len(evidence.ledger)} entries, {len(evidence.orders)} orders"
    return Finding("I14", "every change has a verified origin", checked, tuple(wrong))


def _by_one_person(evidence: Evidence) -> Iterator[str]:
    """Nobody's close moves and no forfeiture is lifted but by two people, or by money that was paid in time."""
    approved = {
        f"decision:{one.decision_id}" for one in evidence.two_people if one.asked_by != one.decided_by
    }
    for fact in evidence.facts.get("payment", ()):
        needs = fact.word == "window-moved" or (
            fact.word == "reinstated" and fact.payload.get("cause") != "paid-in-time"
        )
        if needs and fact.causation not in approved:
            yield f"registration {fact.key}: {fact.word} without a decision of two people"


def _by_key(evidence: Evidence, service: str) -> dict[str, list[Fact]]:
    """Facts about registrations in the order they were said; facts about sites and the cycle have other keys."""
    found: dict[str, list[Fact]] = defaultdict(list)
    for fact in evidence.facts.get(service, ()):
        if "registration_id" in fact.payload:
            found[fact.key].append(fact)
    return found

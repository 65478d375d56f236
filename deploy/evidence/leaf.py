"""The leaf of one forfeiture, made of the facts in a file: the same as the sweep made it of its rows.

Two forms are known. The first bound less: of an order its number, state and answer, and neither reminders nor clocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from deploy.evidence.form import ClocksPart, Evidence, OrderPart, ReminderPart, compact

V1: Final = "kaowu.forfeiture.v1"
V2: Final = "kaowu.forfeiture.v2"
NONE: Final = "none"
Field = tuple[str, str]
"""Where a fact stands in the file, and how the leaf writes it."""


def bound_fields(evidence: Evidence, form: str) -> list[list[list[Field]]]:
    """Sections of lines of fields, as the leaf's text has them."""
    facts = evidence.forfeiture
    v2 = form == V2
    orders = [list(_order(place, one, v2=v2)) for place, one in enumerate(evidence.orders)]
    sections: list[list[list[Field]]] = [
        [[("leaf.text", form)]],
        [[("forfeiture.proof_id", facts.proof_id)]],
        [[("registration_id", evidence.registration_id)]],
        [[("forfeiture.closes_at", compact(facts.closes_at) if v2 else facts.closes_at)]],
        [[("forfeiture.rule", facts.rule)]],
        [[("cycle.fingerprint", evidence.cycle.fingerprint)]],
        [[("forfeiture.amount_fen", str(facts.amount_fen))]],
        orders or [[("orders", NONE)]],
    ]
    if v2:
        reminders = [list(_reminder(place, one)) for place, one in enumerate(evidence.reminders)]
        sections += [
            [[("forfeiture.told_closes_at", compact(facts.told_closes_at))]],
            [[("forfeiture.expired_at", compact(facts.expired_at))]],
            reminders or [[("reminders", NONE)]],
            [list(_clocks(evidence.clocks))],
        ]
    return sections


def leaf_text(evidence: Evidence, form: str) -> str:
    """What is hashed."""
    sections = bound_fields(evidence, form)
    return "|".join(
        " ".join(":".join(value for _, value in line) for line in section) for section in sections
    )


def leaf_hash(text: str) -> str:
    """The first byte keeps a leaf from being taken for an inner node."""
    return sha256(b"\x00" + text.encode()).hexdigest()


def root_from(leaf: str, index: int, leaves: int, path: list[str]) -> str | None:
    """Where the path leads (RFC 9162, 2.1.3.2); None where it has not the length that this place in this tree has."""
    place, last = index, leaves - 1
    if index >= leaves:
        return None
    found = bytes.fromhex(leaf)
    for sibling in map(bytes.fromhex, path):
        if last == 0:
            return None
        if place & 1 or place == last:
            found = sha256(b"\x01" + sibling + found).digest()
            while place and not place & 1:
                place >>= 1
                last >>= 1
        else:
            found = sha256(b"\x01" + found + sibling).digest()
        place >>= 1
        last >>= 1
    return found.hex() if last == 0 else None


def _order(place: int, order: OrderPart, *, v2: bool) -> Iterator[Field]:
    at = f"orders[{place}]"
    answer = order.answer
    yield f"{at}.order_no", order.order_no
    yield f"{at}.status", order.status
    if answer is not None:
        yield f"{at}.answer.digest", answer.digest
    elif v2 or order.refusal is not None:
        yield f"{at}.refusal", order.refusal or ""
    if not v2:
        return
    yield f"{at}.channel", order.channel
    yield f"{at}.amount_fen", str(order.amount_fen)
    yield f"{at}.currency", order.currency
    yield f"{at}.created_at", compact(order.created_at)
    yield f"{at}.expires_at", compact(order.expires_at)
    yield f"{at}.answer.kind", answer.kind if answer else ""
    yield f"{at}.answer.state", answer.state if answer else ""
    yield f"{at}.answer.at", compact(answer.at) if answer else ""
    yield f"{at}.paid_at", compact(order.paid_at) if order.paid_at else ""


def _reminder(place: int, reminder: ReminderPart) -> Iterator[Field]:
    at = f"reminders[{place}]"
    yield f"{at}.offset_seconds", str(reminder.offset_seconds)
    yield f"{at}.at", compact(reminder.at)
    yield f"{at}.told_closes_at", compact(reminder.told_closes_at)


def _clocks(clocks: ClocksPart | None) -> Iterator[Field]:
    if clocks is None:
        yield "clocks", NONE
        return
    yield "clocks.application", compact(clocks.application)
    yield "clocks.database", compact(clocks.database)
    yield "clocks.broker", compact(clocks.broker)
    yield "clocks.virtual", "virtual" if clocks.virtual else "real"

"""What left and what is known of it: our messages against the carrier's own book, message by message."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from deploy.bench.contender import Violated

BARE: Final = "bare-"  # references of the peer
# What somebody had before the storm is in no book here.
_OURS: Final = """
select message_id, state, ambiguous from messages where channel = 'sms' and occasion = 'expired' and claims > 0
"""
_ALL: Final = """
select count(*) as messages, count(distinct (registration_id, occasion, instance, channel)) as different,
       count(*) filter (where occasion = 'expired' and channel = 'sms') as sms,
       count(*) filter (where occasion = 'expired' and channel = 'email' and state = 'created' and claims = 0) as mails,
       count(*) filter (where state = 'sending') as under_way,
       (select count(*) from parked) as parked
from messages
"""
_HAS_IT: Final = frozenset({"accepted", "delivered"})


def book(journal: Path) -> Counter[str]:
    """Our reference → how many copies the carrier took."""
    copies: Counter[str] = Counter()
    with journal.open("rb") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["did"] == "send" and not entry["out_id"].startswith(BARE):
                copies[entry["out_id"]] += 1
    return copies


async def examine(connection: Any, journal: Path, people: int) -> str:
    """After every process has ended. Raises Violated."""
    left = dict(await connection.fetchrow(_ALL))
    if left["messages"] != left["different"] or left["parked"] or left["under_way"]:
        raise Violated(f"messages: {left}")
    if left["sms"] != people or left["mails"] != people:
        raise Violated(f"of {people:,} people: {left}")
    copies = book(journal)
    twice = possible = confirmed = 0
    async with connection.transaction():
        async for row in connection.cursor(_OURS, prefetch=5_000):
            taken = copies.pop(str(row["message_id"]), 0)
            _one(row["message_id"], row["state"], taken, row["ambiguous"])
            twice += max(0, taken - 1)
            possible += row["ambiguous"]
            confirmed += row["state"] in _HAS_IT
    if copies:
        raise Violated(f"the carrier has {len(copies):,} that we do not know to have claimed")
    return (
        f"{left['messages']:,} messages, one for each registration, occasion and channel; {confirmed:,} that we call accepted "
        f"are in the carrier's book; {twice:,} copies there, all of messages whose answer was ambiguous ({possible:,} such tries)"
    )


def _one(message_id: UUID, state: str, taken: int, ambiguous: int) -> None:
    if state in _HAS_IT and not taken:
        raise Violated(f"{message_id} is {state}, and the carrier never had it")
    if taken > 1 + ambiguous:
        raise Violated(f"{message_id} went {taken} times, {ambiguous} of its tries were ambiguous")
    if taken and state == "created" and not ambiguous:
        raise Violated(f"{message_id} waits to be sent, and the carrier has it, which nobody counted")

"""Which published root a proof is under, and the way there, out of what payment keeps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from contracts import payment
from deploy.evidence.form import moment
from deploy.evidence.reaching import CannotProve
from deploy.evidence.roots import ROOTS
from services.chassis.db import Row, UnitOfWork
from services.payment.domain.proof_tree import ProofTree
from services.payment.repository import closing, roots

EVENTS: Final = """
    select event_id, type, sequence, occurred_at, payload from outbox where key = $1 order by id
"""


async def published_root(uow: UnitOfWork, proof: Row) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The way to the root, and the event that published it. Nothing as long as none does."""
    if proof.closed_at is None:
        return None, None
    if proof.number <= proof.last_proof:
        index, leaves = await _under_the_close(uow, proof)
        sequence = proof.sequence
    else:
        later = await roots.covering(uow, proof.cycle_id, proof.number)
        if later is None:
            return None, None
        index = await roots.index_of(uow, proof.cycle_id, later.after_proof, proof.number)
        leaves = roots.leaves(uow, proof.cycle_id, later.after_proof, later.last_proof)
        sequence = later.sequence
    events = await uow.sql(EVENTS, proof.cycle_id)
    event = next((one for one in events if one.type in ROOTS and one.sequence == sequence), None)
    if event is None:
        raise CannotProve("the event that published the root is not in payment's log any more")
    said = json.loads(event.payload)
    tree = ProofTree(follow=index)
    async for leaf in leaves:
        tree.add(leaf)
    if tree.root().hex() != said["proof_root"]:
        raise CannotProve(await _why_not(uow, proof, tree.leaves))
    way = {"index": index, "leaves": tree.leaves, "path": [one.hex() for one in tree.path]}
    return way, {
        "topic": payment.TOPIC,
        "type": event.type,
        "key": proof.cycle_id,
        "event_id": str(event.event_id),
        "sequence": event.sequence,
        "occurred_at": moment(event.occurred_at),
        **_facts_of_root(said),
        "proof_root": said["proof_root"],
        "proofs": said["proofs"],
    }


async def _under_the_close(uow: UnitOfWork, proof: Row) -> tuple[int, AsyncIterator[bytes]]:
    before = await uow.sql(
        "select count(*) as n from proofs where closes_at = $1 and number <= $2 and (registration_id, number) < ($3, $4)",
        proof.closes_at,
        proof.last_proof,
        proof.registration_id,
        proof.number,
    )
    return int(before[0].n), closing.leaves(uow, proof.closes_at, proof.last_proof)


def _facts_of_root(said: dict[str, Any]) -> dict[str, Any]:
    if "closes_at" not in said:
        return {
            "closes_at": None,
            "closed_at": None,
            "counts": {},
            "sums_fen": {"expired": said["expired_fen"]},
            "proofs_before": said["proofs_before"],
        }
    return {
        "closes_at": moment(datetime.fromisoformat(said["closes_at"])),
        "closed_at": moment(datetime.fromisoformat(said["closed_at"])),
        "counts": said["counts"],
        "sums_fen": said["sums_fen"],
    }


async def _why_not(uow: UnitOfWork, proof: Row, leaves: int) -> str:
    rows = await uow.sql("select count(*) as n from proofs where orders = 'replayed'")
    if rows[0].n:
        return (
            f"{rows[0].n} forfeitures were restored from events alone, which hold no leaves: the tree over this one cannot be "
            "built here any more. Look in a backup that was made after the close, or in the database that made it"
        )
    return f"the {leaves} proofs under the root of {proof.registration_id} do not give the root that was published"

"""Making the evidence file of one forfeiture out of what the services keep. What does not fit together is not written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from typing import Any, Final
from uuid import UUID

from contracts import payment
from deploy.evidence.form import FORMAT, VERSION, Evidence, moment, sealed
from deploy.evidence.leaf import V1, V2, leaf_hash, leaf_text
from deploy.evidence.publishing import EVENTS, published_root
from deploy.evidence.reaching import CannotProve, Reach
from deploy.evidence.seals import key_text
from deploy.evidence.verifying import RULES
from services.chassis.db import Row, UnitOfWork
from services.chassis.vault import VaultError
from services.payment.domain.proof_tree import NO_CLOCKS
from services.payment.handlers.closing import CLOCKS_NOTED

_NOT_YET: Final = "0" * 64
_PROOFS: Final = """
    select p.*, o.told_closes_at, c.fingerprint, c.last_proof, c.closed_at, c.sequence, o.cycle_id
    from proofs p join obligations o on o.registration_id = p.registration_id
    left join closings c on c.cycle_id = o.cycle_id and c.closes_at = p.closes_at
    where p.registration_id = $1 order by p.number desc
"""
_ORDERS: Final = """
    select r.*, (select max(l.paid_at) from ledger l where l.registration_id = r.registration_id and l.order_no = r.order_no
                                                       and l.kind = 'received') as paid_at
    from orders r where r.registration_id = $1
"""
_ANSWER: Final = """
    select kind, state, at, digest, raw, signature::text as signature from answers
    where order_no = $1 and digest = $2 order by at, answer_id
"""
_REMINDERS: Final = """
    select told_closes_at, offset_seconds, at from reminders
    where registration_id = $1 and at <= $2 order by at, offset_seconds
"""
_CLOCKS: Final = """
    select detail ->> 'clocks' as clocks from audit where action = $1 and at = $2 order by id
"""
_MESSAGES: Final = """
    select message_id, caused_by, occasion, channel, template_version, state, created_at, state_at, provider_ref,
           reason_code
    from messages where registration_id = $1 and occasion in ('closing-soon', 'expired') order by created_at, message_id
"""


async def make(reach: Reach, registration_id: UUID, *, made_at: datetime) -> dict[str, object]:
    """The file's content. Raises CannotProve where nobody was forfeited, or what is kept does not give the stored leaf."""
    async with reach.notification.reading() as uow:
        messages = [_message(row) for row in await uow.sql(_MESSAGES, registration_id)]
    async with reach.payment.reading() as uow:
        proofs = await uow.sql(_PROOFS, registration_id)
        if not proofs:
            raise CannotProve(
                f"registration {registration_id} was never forfeited: there is nothing to prove"
            )
        events = await uow.sql(EVENTS, str(registration_id))
        content = await _content(uow, reach, proofs[0], events, messages)
        if (file := content["cycle"]["fingerprint"]) != reach.cycle.fingerprint:
            raise CannotProve(
                f"the cycle file is not the one that this close went by: that has the fingerprint {file}"
            )
        content["earlier"] = [
            one for proof in proofs[1:] if (one := await _earlier(uow, reach, proof, events, messages))
        ]
    content["made_at"] = moment(made_at)
    content["keys"] = _keys(reach, content)
    return sealed(content)


async def _earlier(
    uow: UnitOfWork, reach: Reach, proof: Row, events: Sequence[Row], messages: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """That the same registration was forfeited before, and by which close: money that was late then is in time for none."""
    try:
        content = await _content(uow, reach, proof, events, messages)
    except CannotProve:
        return None  # it speaks for the later one only where there was such money: `verify` says then what is missing
    if content["published"] is None:
        return None
    return {name: content[name] for name in ("leaf", "tree", "published")}


async def _content(
    uow: UnitOfWork, reach: Reach, proof: Row, events: Sequence[Row], messages: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Everything about one proof."""
    if proof.orders == "replayed":
        raise CannotProve(
            "this forfeiture was restored from events alone: what the gateways answered is in no event; look in the backup "
            "or database that made it"
        )
    expired = next(
        (e for e in events if e.type == payment.Expired.type and str(proof.proof_id) in e.payload), None
    )
    if expired is None:
        raise CannotProve(f"the event of proof {proof.proof_id} is not in payment's log any more")
    orders = await _orders(uow, reach, proof)
    reminders = _reminders(
        await uow.sql(_REMINDERS, proof.registration_id, proof.expired_at), events, messages
    )
    clocks = [row.clocks for row in await uow.sql(_CLOCKS, CLOCKS_NOTED, proof.expired_at)]
    tree, published = await published_root(uow, proof)
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "made_at": moment(proof.expired_at),
        "registration_id": str(proof.registration_id),
        "forfeiture": {
            "proof_id": str(proof.proof_id),
            "event_id": str(expired.event_id),
            "closes_at": moment(proof.closes_at),
            "told_closes_at": "",
            "expired_at": moment(proof.expired_at),
            "amount_fen": proof.amount_fen,
            "rule": proof.rule,
            "rule_text": RULES[proof.rule],
        },
        "cycle": {
            "id": reach.cycle.id,
            "fingerprint": reach.cycle.fingerprint,
            "content": reach.cycle.model_dump(mode="json"),
        },
        "clocks": None,
        "orders": orders,
        "reminders": reminders,
        "notices": [one for one in messages if one["caused_by"] == str(expired.event_id)],
        "leaf": {"text": "", "hash": proof.leaf.hex()},
        "tree": tree,
        "published": published,
        "earlier": [],
        "keys": {},
        "checksums": {},
        "digest": _NOT_YET,
    }
    told = dict.fromkeys(
        [proof.told_closes_at, reach.cycle.windows.payment.told_closes, *_told(events), proof.closes_at]
    )
    # Whoever falls after their close was published goes by the cycle file of that day, which may be another one by then.
    files = dict.fromkeys([reach.cycle.fingerprint, proof.fingerprint or reach.cycle.fingerprint])
    return _fit(content, list(files), list(told), [*clocks, NO_CLOCKS], proof)


def _fit(
    content: dict[str, Any],
    files: Sequence[str],
    told: Sequence[datetime],
    clocks: Sequence[str],
    proof: Row,
) -> dict[str, Any]:
    """The cycle file, the told close and the clocks that this leaf was made with: of each there may be more than one."""
    for form, file, close, said in product((V2, V1), files, told, clocks):
        tried = {
            **content,
            "cycle": {**content["cycle"], "fingerprint": file},
            "forfeiture": {**content["forfeiture"], "told_closes_at": moment(close)},
            "clocks": _clocks(said),
            "leaf": {"text": "", "hash": proof.leaf.hex()},
        }
        text = leaf_text(Evidence.model_validate_json(json.dumps(tried)), form)
        if leaf_hash(text) == proof.leaf.hex():
            tried["leaf"] = {"text": text, "hash": proof.leaf.hex()}
            return tried
    raise CannotProve(
        f"what is kept of proof {proof.proof_id} does not give its leaf {proof.leaf.hex()}: rows of orders, answers, reminders "
        "or of the proof itself were altered after the close, or it went by a cycle file that is not at hand"
    )


def _told(events: Sequence[Row]) -> Iterator[datetime]:
    for event in events:
        closes_at = json.loads(event.payload).get("closes_at")
        if closes_at is not None and event.type != payment.Expired.type:
            yield datetime.fromisoformat(closes_at)


def _clocks(text: str) -> dict[str, object] | None:
    if text == NO_CLOCKS:
        return None
    *said, kind = text.split(":")
    application, database, broker = (
        moment(datetime.strptime(one, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)) for one in said
    )
    return {
        "application": application,
        "database": database,
        "broker": broker,
        "virtual": kind == "virtual",
    }


async def _orders(uow: UnitOfWork, reach: Reach, proof: Row) -> list[dict[str, Any]]:
    """As the proof binds them: what became of an order afterwards is another story."""
    if proof.orders == "none":
        return []
    rows = {row.order_no: row for row in await uow.sql(_ORDERS, proof.registration_id)}
    return [await _order(uow, reach, line.split(":"), rows) for line in proof.orders.split(" ")]


async def _order(uow: UnitOfWork, reach: Reach, line: list[str], rows: dict[str, Row]) -> dict[str, Any]:
    order_no, status, proved = line[:3]
    row = rows.get(order_no)
    if row is None:
        raise CannotProve(f"order {order_no} of the proof is not there any more")
    facts: dict[str, Any] = {
        "order_no": order_no,
        "status": status,
        "channel": row.channel,
        "amount_fen": row.amount_fen,
        "currency": row.currency,
        "created_at": moment(row.created_at),
        "expires_at": moment(row.expires_at),
        "refusal": proved if status == "failed" else None,
        "paid_at": moment(row.paid_at) if status == "paid" and row.paid_at else None,
        "answer": None,
    }
    heard = ""
    if len(line) > 3:
        channel, amount, currency, created, expires, _, _, heard, paid = line[3:]
        facts |= {
            "channel": channel,
            "amount_fen": int(amount),
            "currency": currency,
            "created_at": _spelt(created),
            "expires_at": _spelt(expires),
            "paid_at": _spelt(paid) if paid else None,
        }
    if status != "failed" and proved:
        facts["answer"] = await _answer(uow, reach, order_no, proved, _spelt(heard) if heard else None)
    return facts


async def _answer(
    uow: UnitOfWork, reach: Reach, order_no: str, digest: str, at: str | None
) -> dict[str, Any]:
    rows = await uow.sql(_ANSWER, order_no, bytes.fromhex(digest))
    row = next((one for one in rows if at is None or moment(one.at) == at), None)
    if row is None:
        raise CannotProve(f"the answer about order {order_no} that the proof binds is not there any more")
    try:
        raw = reach.vault.decrypt(row.raw, row=order_no)
    except VaultError as error:
        raise CannotProve(f"the answer about order {order_no} does not open: {error}") from None
    if sha256(raw).digest() != row.digest:
        raise CannotProve(f"the answer about order {order_no} is not the one that the proof binds")
    signature: dict[str, str] = json.loads(row.signature)
    if any(name.lower().startswith("wechatpay-") for name in signature):
        signature = {k: v for k, v in signature.items() if k.lower().startswith("wechatpay-")}
    elif row.kind == "notice":
        signature = {}  # one of Alipay's holds its own seal
    return {
        "kind": row.kind,
        "state": row.state,
        "at": moment(row.at),
        "digest": digest,
        "raw": base64.b64encode(raw).decode(),
        "signature": signature,
    }


def _spelt(compact: str) -> str:
    return moment(datetime.strptime(compact, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC))


def _reminders(
    rows: Sequence[Row], events: Sequence[Row], messages: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    said = [
        (row.event_id, row.occurred_at, json.loads(row.payload))
        for row in events
        if row.type == payment.ClosingSoon.type
    ]
    found = []
    for row in rows:
        event = next(
            (one for one, at, facts in said if at == row.at and facts["offset"] == row.offset_seconds), None
        )
        if event is None:
            raise CannotProve(
                f"the event of the reminder of {row.at.isoformat()} is not in payment's log any more"
            )
        found.append(
            {
                "told_closes_at": moment(row.told_closes_at),
                "offset_seconds": row.offset_seconds,
                "at": moment(row.at),
                "event_id": str(event),
                "messages": [one for one in messages if one["caused_by"] == str(event)],
            }
        )
    return found


def _message(row: Row) -> dict[str, Any]:
    return {
        **{
            name: row[name]
            for name in ("occasion", "channel", "template_version", "state", "provider_ref", "reason_code")
        },
        "message_id": str(row.message_id),
        "caused_by": str(row.caused_by),
        "created_at": moment(row.created_at),
        "state_at": moment(row.state_at),
    }


def _keys(reach: Reach, content: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Those that sealed an answer here. A notice of Alipay's names none: each is given."""
    found: dict[str, dict[str, str]] = {}
    for order in content["orders"]:
        if order["answer"] is None:
            continue
        known = reach.keys.get(order["channel"], {})
        named = {name.lower(): value for name, value in order["answer"]["signature"].items()}
        serial = named.get("wechatpay-serial") or named.get("key")
        wanted = list(known) if serial is None else [serial]
        for name in wanted:
            if name not in known:
                raise CannotProve(
                    f"the {order['channel']} account has no key {name} any more: put the one it was sealed with back"
                )
            found.setdefault(order["channel"], {})[name] = key_text(known[name])
    return found

"""The orders of a file: none was paid in time and in full, by the gateways' own sealed words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from deploy.evidence.form import Evidence, OrderPart, is_moment
from deploy.evidence.roots import earlier_close
from deploy.evidence.seals import SEALS, Said, SealBroken, key_print, read_key, unpacked
from deploy.evidence.verdict import Verdict, instant

# The gateways' words for an order that was not paid, asked after it was closed.
UNPAID: Final = frozenset({
    "NOTPAY", "CLOSED", "REVOKED", "PAYERROR", "ORDER_NOT_EXIST", "ORDERNOTEXIST",
    "WAIT_BUYER_PAY", "TRADE_CLOSED", "ACQ.TRADE_NOT_EXIST",
})  # fmt: skip
PAID: Final = frozenset({"SUCCESS", "TRADE_SUCCESS", "TRADE_FINISHED", "REFUND", "REFUNDED"})
_OUR_WORDS: Final = {
    "NOTPAY": {"unpaid"}, "PAYERROR": {"unpaid"}, "WAIT_BUYER_PAY": {"unpaid"},
    "CLOSED": {"closed"}, "REVOKED": {"closed"}, "TRADE_CLOSED": {"closed"},
    "ORDER_NOT_EXIST": {"unknown-order"}, "ORDERNOTEXIST": {"unknown-order"}, "ACQ.TRADE_NOT_EXIST": {"unknown-order"},
    "SUCCESS": {"paid"}, "TRADE_SUCCESS": {"paid"}, "TRADE_FINISHED": {"paid"},
    "REFUND": {"refunded"}, "REFUNDED": {"refunded"},
}  # fmt: skip


def check_orders(verdict: Verdict, evidence: Evidence) -> None:
    """Every order, its answer, the seal on it and what it says."""
    keys = _keys(verdict, evidence)
    numbers = [order.order_no for order in evidence.orders]
    if numbers != sorted(set(numbers)):
        verdict.add("orders", "each order once, by number", ", ".join(numbers))
    used: set[tuple[str, str]] = set()
    for place, order in enumerate(evidence.orders):
        _order(verdict, evidence, f"orders[{place}]", order, keys)
        if order.answer is not None:
            named = {name.lower(): value for name, value in order.answer.signature.items()}
            serial = named.get("wechatpay-serial") or named.get("key")
            if serial is None:
                used |= {(order.channel, name) for name in keys.get(order.channel, ())}
            else:
                used.add((order.channel, serial))
    for channel, named_keys in evidence.keys.items():
        for serial in named_keys:
            if (channel, serial) not in used:
                verdict.add(f"keys.{channel}.{serial}", "no key that sealed nothing here", "one")
    if any(order.answer for order in evidence.orders):
        for channel, loaded in keys.items():
            for serial, key in loaded.items():
                verdict.notes.append(
                    f"sealed by {channel} with {serial}, SHA-256 of the public key {key_print(key)}"
                )


def _keys(verdict: Verdict, evidence: Evidence) -> dict[str, dict[str, RSAPublicKey]]:
    loaded: dict[str, dict[str, RSAPublicKey]] = {}
    for channel, named in evidence.keys.items():
        for serial, pem in named.items():
            try:
                loaded.setdefault(channel, {})[serial] = read_key(pem)
            except ValueError as error:
                verdict.add(f"keys.{channel}.{serial}", "an RSA public key (PEM)", str(error))
    return loaded


def _order(
    verdict: Verdict,
    evidence: Evidence,
    at: str,
    order: OrderPart,
    keys: Mapping[str, Mapping[str, RSAPublicKey]],
) -> None:
    facts, answer = evidence.forfeiture, order.answer
    if order.status not in {"closed", "failed", "paid"}:
        verdict.add(f"{at}.status", "a decided order", order.status)
    verdict.before(f"{at}.created_at", order.created_at, facts.closes_at)
    verdict.before(f"{at}.created_at", order.created_at, order.expires_at)
    if (order.status == "failed") != (order.refusal is not None):
        verdict.add(f"{at}.refusal", "the gateway's word, of a failed order only", order.refusal)
    if order.paid_at is not None and order.status != "paid":
        verdict.add(f"{at}.paid_at", "none", order.paid_at)
    if answer is None:
        if order.status != "failed":
            verdict.add(f"{at}.answer", "the gateway's sealed answer", "none")
        return
    verdict.not_before(f"{at}.answer.at", order.created_at, answer.at)
    try:
        raw = unpacked(answer.raw)
    except ValueError as error:
        verdict.add(f"{at}.answer.raw", "base64", str(error))
        return
    verdict.same(f"{at}.answer.digest", sha256(raw).hexdigest(), answer.digest)
    check = SEALS.get(order.channel)
    if check is None:
        verdict.add(f"{at}.channel", " or ".join(SEALS), order.channel)
        return
    try:
        said = check(answer.kind, raw, answer.signature, keys.get(order.channel, {}))
    except SealBroken as broken:
        verdict.add(f"{at}.answer.{broken.part}", broken.expected, broken.found)
        return
    except (ValueError, OverflowError):
        verdict.add(f"{at}.answer.raw", "an answer in the gateway's form", "something else")
        return
    _said(verdict, evidence, at, order, said)


def _late_then(verdict: Verdict, evidence: Evidence, at: str, paid_at: datetime | None) -> bool:
    """Whether it came after a close by which this registration was forfeited before: late then, it goes back; revived, they
    pay anew. That forfeiture is proven in the file itself.
    """
    for one in evidence.earlier:
        close = earlier_close(one.leaf.text)
        if not is_moment(close):
            continue  # `roots` says what is wrong with it
        closed = instant(close)
        if paid_at is not None and paid_at >= closed:
            verdict.notes.append(
                f"{at}: paid at {paid_at:%Y-%m-%dT%H:%M:%SZ}, after the earlier close {one.published.closes_at or closed}: too "
                "late then, this money goes back; whoever is revived pays anew"
            )
            return True
    return False


def _said(verdict: Verdict, evidence: Evidence, at: str, order: OrderPart, said: Said) -> None:
    """No order says that it was paid in time and in full."""
    close = instant(evidence.forfeiture.closes_at)
    assert order.answer is not None
    if not said.readable:
        if order.answer.kind == "notice" and order.status != "paid":
            verdict.add(f"{at}.answer.kind", "query", "notice")
        paid_at = None if order.paid_at is None else instant(order.paid_at)
        if (paid_at is None or paid_at < close) and not _late_then(verdict, evidence, at, paid_at):
            verdict.add(
                f"{at}.paid_at",
                f"a payment not before the close {evidence.forfeiture.closes_at}",
                order.paid_at,
            )
        verdict.notes.append(
            f"{at}: sealed for the merchant only; that it was paid too late is stated by us and bound by the leaf"
        )
        return
    if said.order_no is not None:
        verdict.same(f"{at}.order_no", said.order_no, order.order_no, "the gateway's")
    else:
        verdict.notes.append(
            f"{at}: the gateway's answer `{said.state}` names no order; the leaf binds it to this one"
        )
    words = _OUR_WORDS.get(said.state, set())
    if order.answer.state not in words:
        verdict.add(
            f"{at}.answer.state",
            f"{' or '.join(sorted(words)) or 'none'}, for the gateway's {said.state}",
            order.answer.state,
        )
    if said.state in UNPAID:
        verdict.same(f"{at}.status", "closed", order.status)
    elif said.state in PAID:
        in_time = said.paid_at is None or said.paid_at < close
        in_full = said.amount_fen == order.amount_fen == evidence.forfeiture.amount_fen
        if in_time and in_full and not _late_then(verdict, evidence, at, said.paid_at):
            verdict.add(
                f"{at}.answer.raw",
                "no payment in time and in full",
                f"{said.state} at {said.paid_at}, {said.amount_fen} fen",
            )
        verdict.same(f"{at}.status", "paid", order.status)
    else:
        verdict.add(f"{at}.answer.raw", "a last word of the gateway", said.state)
    if order.paid_at is not None and said.paid_at != instant(order.paid_at):
        verdict.add(f"{at}.paid_at", f"{said.paid_at} (the gateway's)", order.paid_at)

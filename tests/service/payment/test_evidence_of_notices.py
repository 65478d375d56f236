"""Where the gateway's last word about an order was a notice, sent by itself: its seal is checked offline like any other."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from deploy.evidence.form import Evidence, sealed
from deploy.evidence.leaf import V2, leaf_hash, leaf_text
from deploy.evidence.reaching import Reach
from deploy.evidence.seals import SealBroken, alipay, key_text
from deploy.evidence.verifying import verify
from deploy.simulators.order_book import TradeState
from services.payment.adapters.alipay_signatures import signed_text
from tests.service.payment.proving import LAST, bytes_of, root_of, told, written
from tests.service.payment.system import CLOSES, System, moment


async def paid_too_late(system: System, reach: Reach, channel: str) -> dict[str, Any]:
    """Somebody pays in the second of the close, the gateway says so by itself, and nobody has asked it."""
    candidate = (await system.approved(3))[0]
    system.at(LAST)
    order_no = await system.ordered(candidate, channel)
    gateway = system.world.alipay if channel == "alipay" else system.world.wechat
    if channel == "alipay":
        system.world.alipay.book.open(order_no, system.clock.now())
    order = gateway.book.find(order_no)
    assert order is not None
    order.state, order.paid_at, order.transaction_id = TradeState.SUCCESS, moment(CLOSES), "42000000000000001"
    system.at(CLOSES)
    await system.call_back(order_no)
    assert await system.ledger(candidate) == [("received", 20_000, None), ("refund-due", 20_000, "paid-late")]
    await system.close()
    assert await system.status(candidate) == "expired"
    await told(system, reach, candidate)
    content = await written(system, reach, candidate)
    (one,) = content["orders"]
    assert (one["status"], one["answer"]["kind"], one["answer"]["state"]) == ("paid", "notice", "paid")
    return content


def forged(content: dict[str, Any], raw: bytes) -> dict[str, Any]:
    """With other bytes of the gateway, and everything of ours made to fit: digest, leaf, a tree of its own, checksums."""
    (order,) = content["orders"]
    answer = {**order["answer"], "raw": base64.b64encode(raw).decode(), "digest": sha256(raw).hexdigest()}
    changed = {**content, "orders": [{**order, "answer": answer}]}
    text = leaf_text(Evidence.model_validate(changed), V2)
    leaf = leaf_hash(text)
    changed |= {"leaf": {"text": text, "hash": leaf}, "tree": {"index": 0, "leaves": 1, "path": []}}
    changed["published"] = {**content["published"], "proof_root": leaf, "proofs": 1}
    return sealed(changed)


async def test_a_notice_of_a_payment_that_came_too_late_holds_offline(
    system: System, reach: Reach, channel: str
) -> None:
    content = await paid_too_late(system, reach, channel)
    verdict = verify(bytes_of(content), await root_of(system))
    assert [str(problem) for problem in verdict.problems] == []
    # Alipay's says in the open when it was paid; WeChat's is sealed for the merchant, and that is said.
    assert any("sealed for the merchant only" in note for note in verdict.notes) == (channel == "wechat")
    assert (
        verify(bytes_of(forged(content, base64.b64decode(content["orders"][0]["answer"]["raw"])))).problems
        == []
    )


async def test_every_field_of_alipays_notice_that_is_altered_is_refused_by_its_seal(
    system: System, reach: Reach
) -> None:
    """Even by whoever makes all of ours anew: the gateway's key is the one thing they have not."""
    content = await paid_too_late(system, reach, "alipay")
    raw = base64.b64decode(content["orders"][0]["answer"]["raw"])
    fields = parse_qsl(raw.decode(), keep_blank_values=True)
    assert {"out_trade_no", "total_amount", "gmt_payment", "trade_status", "sign"} <= {
        name for name, _ in fields
    }
    for place, (name, value) in enumerate(fields):
        if name == "sign_type":
            continue  # no part of what is sealed; there is one kind of seal
        other = value[:-1] + ("1" if value[-1:] != "1" else "2")
        altered = urlencode([*fields[:place], (name, other), *fields[place + 1 :]]).encode()
        problems = verify(bytes_of(forged(content, altered))).problems
        assert "orders[0].answer.raw" in {problem.path for problem in problems}, name
    left_out = urlencode([(name, value) for name, value in fields if name != "gmt_payment"]).encode()
    assert verify(bytes_of(forged(content, left_out))).problems
    # Without mending ours as well each of these is named at the value that was changed.
    swapped = {**content["orders"][0]["answer"], "raw": base64.b64encode(left_out).decode()}
    named = verify(bytes_of({**content, "orders": [{**content["orders"][0], "answer": swapped}]})).problems
    assert "orders[0].answer.raw" in {problem.path for problem in named}


async def test_a_notice_said_to_be_of_another_order_another_time_or_a_payment_in_time_is_refused(
    system: System, reach: Reach, channel: str
) -> None:
    content = await paid_too_late(system, reach, channel)
    (order,) = content["orders"]
    for change in (
        {"order_no": "20240208SOMEBODYELSE"},
        {"paid_at": "2024-02-08T15:59:59.000000Z"},
        {"paid_at": None},
        {"status": "closed"},
        {"answer": {**order["answer"], "kind": "query"}},
        {"answer": {**order["answer"], "signature": {"x-nonce": "1"}}},
    ):
        changed = sealed({**content, "orders": [{**order, **change}]})
        assert verify(bytes_of(changed), await root_of(system)).problems, change


async def test_a_key_that_did_not_seal_it_does_not_do(system: System, reach: Reach, channel: str) -> None:
    content = await paid_too_late(system, reach, channel)
    others = {"alipay": "wechat", "wechat": "alipay"}[channel]
    (foreign,) = list(reach.keys[others].values())[:1]
    keys = {channel: dict.fromkeys(content["keys"][channel], key_text(foreign))}
    named = {problem.path for problem in verify(bytes_of(sealed({**content, "keys": keys}))).problems}
    assert named & {"orders[0].answer.raw", "orders[0].answer.signature.Wechatpay-Signature"}


@pytest.mark.parametrize("charset", ["utf-8", "gbk", "gb18030"])
def test_a_notice_is_read_in_the_character_set_that_it_names(charset: str) -> None:
    """As our own reading of notices takes it in, so must whoever checks the file."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    fields = {
        "charset": charset, "subject": "卫生专业技术资格考试", "out_trade_no": "2024", "trade_status": "TRADE_SUCCESS",
        "total_amount": "200.00", "gmt_payment": "2024-02-09 00:00:00",
    }  # fmt: skip
    made = base64.b64encode(key.sign(signed_text(fields).encode(charset), PKCS1v15(), SHA256())).decode()
    raw = "&".join(
        f"{k}={quote(v, encoding=charset, safe='')}" for k, v in {**fields, "sign": made}.items()
    ).encode()
    said = alipay("notice", raw, {}, {"k": key.public_key()})
    assert (said.order_no, said.amount_fen, said.paid_at) == ("2024", 20_000, moment(CLOSES))
    with pytest.raises(SealBroken):
        alipay(
            "notice",
            raw.replace(b"charset=" + charset.encode(), b"charset=big5"),
            {},
            {"k": key.public_key()},
        )

"""The evidence file of a forfeiture: it proves what it says to somebody who has nothing else, and an altered one is refused."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from deploy.cli import app
from deploy.evidence.form import LARGEST, sealed
from deploy.evidence.reaching import CannotProve, Reach
from deploy.evidence.seals import key_text
from deploy.evidence.verdict import Unreadable
from deploy.evidence.verifying import verify, verify_file
from deploy.simulators.order_book import Order, Refusal, TradeState
from tests.service.payment.proving import (
    LAST,
    STATED,
    bytes_of,
    forfeited,
    mutants,
    put,
    root_of,
    written,
)
from tests.service.payment.system import CLOSES, System, moment


async def test_a_true_file_proves_the_forfeiture_offline(system: System, reach: Reach) -> None:
    candidate = await forfeited(system, reach)
    content = await written(system, reach, candidate)
    verdict = verify(bytes_of(content), await root_of(system))
    assert verdict.problems == []
    assert [order["status"] for order in content["orders"]].count("closed") == 2
    assert {order["channel"] for order in content["orders"]} == {"wechat", "alipay"}
    assert {order["status"] for order in content["orders"]} == {"closed", "failed", "paid"}
    assert [one["offset_seconds"] for one in content["reminders"]] == [7 * 86_400, 86_400]
    assert all(len(one["messages"]) == 2 for one in content["reminders"])
    assert len(content["notices"]) == 2
    assert content["clocks"] == {
        "application": "2024-02-08T16:00:00.000000Z",
        "database": "2024-02-08T16:00:01.000000Z",
        "broker": "2024-02-08T15:59:59.997000Z",
        "virtual": True,
    }
    assert content["tree"]["leaves"] == 7
    assert (
        content["forfeiture"]["rule_text"] == "未按规定时间完成网上缴费的，视为自动放弃考试。不受理现场缴费。"
    )
    # Nobody is named in it: no text of a message, and of the payer at most the gateway's own number for them.
    text = json.dumps(content, ensure_ascii=False)
    assert "考生1234" not in text
    assert not re.search(
        r"(?<![0-9a-f])1[3-9]\d{9}(?![0-9a-f])",  # a hash may hold such a row of digits
        json.dumps({k: v for k, v in content.items() if k not in {"cycle", "orders"}}),
    )


async def test_whoever_never_ordered_has_a_file_as_well(system: System, reach: Reach) -> None:
    candidate = await system.owing()
    system.at(CLOSES)
    await system.close()
    content = await written(system, reach, candidate)
    assert (content["orders"], content["reminders"], content["clocks"], content["keys"]) == ([], [], None, {})
    assert content["tree"] == {"index": 0, "leaves": 1, "path": []}
    assert verify(bytes_of(content), await root_of(system)).problems == []


async def test_a_code_that_nobody_opened_is_denied_by_alipay_under_seal(system: System, reach: Reach) -> None:
    candidate = await system.owing()
    system.at(LAST)
    await system.ordered(candidate, "alipay")
    system.at(CLOSES)
    await system.close()
    content = await written(system, reach, candidate)
    (order,) = content["orders"]
    assert (order["status"], order["answer"]["state"]) == ("closed", "unknown-order")
    verdict = verify(bytes_of(content), await root_of(system))
    assert verdict.problems == []
    assert any("`ACQ.TRADE_NOT_EXIST` names no order; the leaf binds it" in note for note in verdict.notes)


@pytest.mark.parametrize(
    ("said", "word"), [("", "no-word"), ("订单|A B: 1", "___A_B__1"), ("SIGN.ERROR-1", "SIGN.ERROR-1")]
)
async def test_whatever_a_gateway_calls_its_no_there_is_a_file(
    system: System, reach: Reach, monkeypatch: pytest.MonkeyPatch, said: str, word: str
) -> None:
    candidate = await system.owing()

    def refuses(_: object) -> Order:
        raise Refusal(400, said, "不受理")

    monkeypatch.setattr(system.world.wechat.book, "place", refuses)
    assert (await system.order(candidate)).json()["code"] == "gateway-refused"
    system.at(CLOSES)
    await system.close()
    content = await written(system, reach, candidate)
    assert [order["refusal"] for order in content["orders"]] == [word]
    assert verify(bytes_of(content), await root_of(system)).problems == []


async def test_every_altered_value_is_refused_and_named(system: System, reach: Reach) -> None:
    content = await written(system, reach, await forfeited(system, reach))
    root = await root_of(system)
    altered = mutants(content)
    assert len(altered) > 250
    for path, changed in altered:
        if path in {"format", "version"}:
            with pytest.raises(Unreadable):
                verify(bytes_of(changed), root)
            continue
        problems = verify(bytes_of(changed), root).problems
        named = {problem.path for problem in problems}
        wanted = path.removeprefix("checksums.")
        assert wanted in named, f"{path}: {[str(problem) for problem in problems]}"


async def test_a_forger_who_mends_the_checksums_gets_past_with_nothing_that_the_leaf_or_a_gateway_binds(
    system: System, reach: Reach
) -> None:
    content = await written(system, reach, await forfeited(system, reach))
    root = await root_of(system)
    passed = {
        path
        for path, changed in mutants(
            {k: v for k, v in content.items() if k not in {"checksums", "digest", "format", "version"}}
        )
        if not verify(bytes_of(sealed({**changed, "format": content["format"], "version": 1})), root).problems
    }
    assert {path for path in passed if not STATED.fullmatch(path)} == set()
    assert passed, "nothing is only stated: then this list, and docs/evidence.md, say too little"


async def test_orders_taken_out_put_in_or_in_another_order_are_refused(system: System, reach: Reach) -> None:
    content = await written(system, reach, await forfeited(system, reach))
    root = await root_of(system)
    orders = content["orders"]
    for changed in (orders[1:], orders[:-1], orders[::-1], [*orders, orders[0]], []):
        problems = verify(bytes_of(sealed({**content, "orders": changed})), root).problems
        assert any(problem.path.startswith("orders") for problem in problems)
    for changed in (content["reminders"][1:], content["reminders"][::-1]):
        problems = verify(bytes_of(sealed({**content, "reminders": changed})), root).problems
        assert any(problem.path.startswith("reminders") for problem in problems)


async def test_somebody_elses_proof_or_root_does_not_do(system: System, reach: Reach) -> None:
    candidate = await forfeited(system, reach)
    content = await written(system, reach, candidate)
    (other, *_) = await system.rows(
        "select registration_id from proofs where registration_id <> $1", candidate
    )
    theirs = await written(system, reach, other["registration_id"])
    for part in ("tree", "leaf", "forfeiture", "registration_id"):
        assert verify(bytes_of(sealed({**content, part: theirs[part]})), await root_of(system)).problems
    assert [p.path for p in verify(bytes_of(content), "0" * 64).problems] == ["published.proof_root"]
    # A forger's own tree holds together; the root from elsewhere gives it away.
    forged = {**content, "tree": {"index": 0, "leaves": 1, "path": []}}
    forged["published"] = {**content["published"], "proof_root": content["leaf"]["hash"], "proofs": 1}
    verdict = verify(bytes_of(sealed(forged)))
    assert verdict.problems == []
    assert any("compare it with the one of event" in note for note in verdict.notes)
    assert [p.path for p in verify(bytes_of(sealed(forged)), await root_of(system)).problems] == [
        "published.proof_root"
    ]


async def test_a_payment_in_time_in_the_gateways_own_answer_speaks_against_the_office(
    system: System, reach: Reach
) -> None:
    """Even where the leaf, the tree and the seals are true: the office itself was wrong."""
    candidate = await system.owing()
    system.at(LAST)
    order_no = await system.ordered(candidate)
    order = system.world.wechat.book.find(order_no)
    assert order is not None
    order.state, order.paid_at, order.transaction_id = TradeState.SUCCESS, moment(CLOSES), "42000000000000001"
    system.at(CLOSES)
    await system.close()
    content = await written(system, reach, candidate)
    later = {
        **content["forfeiture"],
        "closes_at": "2024-02-08T16:00:01.000000Z",
        "expired_at": "2024-02-08T16:00:01.000000Z",
    }
    problems = verify(bytes_of(sealed({**content, "forfeiture": later}))).problems
    assert any("no payment in time and in full" in problem.expected for problem in problems)


async def test_what_is_no_evidence_file_is_said_to_be_unreadable(
    system: System, reach: Reach, tmp_path: Path
) -> None:
    content = await written(system, reach, await forfeited(system, reach, others=0))
    raw = bytes_of(content)
    file = tmp_path / "evidence.json"
    for wrong, why in (
        (raw[: len(raw) // 2], "cut short"),
        (b"", "no JSON"),
        (b"\xff\xfe", "no UTF-8"),
        (b"[]", "format is not"),
        (bytes_of({**content, "version": 2}), "version 2: this program reads version 1"),
        (bytes_of({**content, "version": True}), "version True"),
        (raw.replace(b'"version": 1', b'"version": 1, "version": 1'), "the same name twice"),
        (raw.replace(b'"version": 1', b'"version": NaN'), "NaN is no number"),
        (b"[" * 200_000, "no JSON"),
        (raw + b" " * (10 << 20), "no evidence file is larger than"),
    ):
        file.write_bytes(wrong)
        with pytest.raises(Unreadable, match=re.escape(why)):
            verify_file(file)
    assert len(raw) < LARGEST / 20
    with pytest.raises(Unreadable, match="No such file"):
        verify_file(tmp_path / "none.json")
    named = [p.path for p in verify(bytes_of({k: v for k, v in content.items() if k != "orders"})).problems]
    assert "orders" in named
    assert "more" in [p.path for p in verify(bytes_of({**content, "more": 1})).problems]


_FORGED_LEAF = "kaowu.forfeiture.v2|a|{registration}|{close}||||||{fell}||"


async def test_whatever_a_forger_writes_is_refused_by_name_and_never_stops_the_check(
    system: System, reach: Reach
) -> None:
    candidate = await forfeited(system, reach, others=0)
    content = await written(system, reach, candidate)
    first = "0001-01-01T00:00:00.000000Z"
    own = generate_private_key(65537, 2048)
    answer = json.dumps({"code": "10000", "send_pay_date": "0001-01-01 00:00:00"}).encode()
    seal = base64.b64encode(own.sign(answer, PKCS1v15(), SHA256())).decode()
    place = next(n for n, order in enumerate(content["orders"]) if order["channel"] == "alipay")
    sealed_by_himself = {
        **content["orders"][place]["answer"],
        "raw": base64.b64encode(answer).decode(),
        "signature": {"key": "own", "sign": seal, "sign_type": "RSA2"},
    }
    earlier = {name: content[name] for name in ("leaf", "tree", "published")}
    for path, value in (
        ("forfeiture.expired_at", first),
        ("reminders[0].at", first),
        ("reminders[0].offset_seconds", 10**30),
        (f"orders[{place}].answer", sealed_by_himself),
        *(
            ("earlier[0].leaf.text", _FORGED_LEAF.format(registration=candidate, close=close, fell=fell))
            for close, fell in (
                ("", ""),
                ("20240208T160000.000000Z", "x"),
                ("2024T", "20240208T160000.000000Z"),
            )
        ),
        ("earlier[0].leaf.text", "kaowu.forfeiture.v2"),
    ):
        base = {
            **content,
            "earlier": [earlier],
            "keys": {**content["keys"], "alipay": {"own": key_text(own.public_key())}},
        }
        named = {problem.path for problem in verify(bytes_of(sealed(put(base, path, value)))).problems}
        assert any(one.startswith(path) for one in named), (path, value, named)
    half = bytes_of(content).replace(b'"rule_text": "', b'"rule_text": "\\ud800', 1)
    with pytest.raises(Unreadable, match="half a character"):
        verify(half)


async def test_the_command_ends_with_nought_one_or_two(system: System, reach: Reach, tmp_path: Path) -> None:
    content = await written(system, reach, await forfeited(system, reach, others=1))
    root = await root_of(system)
    file = tmp_path / "evidence.json"

    def checked(raw: bytes, *more: str) -> tuple[int, str]:
        file.write_bytes(raw)
        done = CliRunner().invoke(app, ["evidence", "verify", str(file), *more])
        return done.exit_code, done.output

    code, said = checked(bytes_of(content), "--root", root.upper())
    assert code == 0
    assert f"under the root {root}, which is the one given" in said
    code, said = checked(bytes_of(put(content, "forfeiture.amount_fen", 1)))
    assert code == 1
    assert "wrong  forfeiture.amount_fen: expected 20000 (bound by the leaf), found 1" in said
    code, said = checked(bytes_of(content)[:-9])
    assert code == 2
    assert "unreadable" in said


async def test_rows_altered_after_the_close_give_no_file(system: System, reach: Reach) -> None:
    candidate = await forfeited(system, reach)
    with pytest.raises(CannotProve, match="was never forfeited"):
        await written(system, reach, uuid7())
    await system.write(
        "update reminders set at = at + interval '1 second' where registration_id = $1", candidate
    )
    with pytest.raises(CannotProve, match="reminder"):
        await written(system, reach, candidate)
    await system.write("delete from reminders where registration_id = $1", candidate)
    with pytest.raises(CannotProve, match="does not give its leaf"):
        await written(system, reach, candidate)


async def test_a_leaf_of_the_version_before_still_verifies(system: System, reach: Reach) -> None:
    candidate = await forfeited(system, reach)
    (proof,) = await system.rows("select * from proofs where registration_id = $1", candidate)
    lines = [line.split(":")[:3] for line in proof["orders"].split(" ")]
    orders = " ".join(":".join(line) for line in lines)
    text = (
        f"kaowu.forfeiture.v1|{proof['proof_id']}|{candidate}|2024-02-08T16:00:00.000000Z|unpaid-at-close"
        f"|{system.cycle.fingerprint}|{proof['amount_fen']}|{orders}"
    )
    async with system.other_session() as uow:
        await uow.sql("alter table proofs disable trigger user")
    await system.write("delete from proofs where registration_id <> $1", candidate)
    await system.write(
        "update proofs set orders = $2, leaf = $3 where registration_id = $1",
        candidate,
        orders,
        sha256(b"\x00" + text.encode()).digest(),
    )
    leaf = sha256(b"\x00" + text.encode()).hexdigest()
    await system.write("update closings set proof_root = $1, proofs = 1", bytes.fromhex(leaf))
    await system.write(
        "update outbox set payload = jsonb_set(jsonb_set(payload::jsonb, '{proof_root}', to_jsonb($1::text)), "
        "'{proofs}', '1')::text where type like '%window-closed%'",
        leaf,
    )
    content = await written(system, reach, candidate)
    assert content["leaf"]["text"] == text
    verdict = verify(bytes_of(content), leaf)
    assert verdict.problems == []
    assert any("made by a version whose leaf binds" in note for note in verdict.notes)
    changed = put(content, "orders[0].order_no", content["orders"][1]["order_no"])
    assert verify(bytes_of(sealed(changed)), leaf).problems

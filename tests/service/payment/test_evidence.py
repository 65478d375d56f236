"""The evidence file of a forfeiture: it proves what it says to somebody who has nothing else, and an altered one is refused."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from contracts import payment
from deploy.cli import app
from deploy.evidence.form import LARGEST, sealed, values
from deploy.evidence.making import make
from deploy.evidence.reaching import CannotProve, Reach, _keys
from deploy.evidence.verdict import Unreadable
from deploy.evidence.verifying import verify, verify_file
from deploy.simulators.order_book import TradeState
from services.chassis.clock_guard import Readings
from services.chassis.db import Database
from services.chassis.vault import Vault
from tests.conftest import ServiceDatabase
from tests.service.payment.system import CLOSES, System, moment

LAST = "2024-02-08 23:57:59"


@pytest.fixture
async def reach(system: System, service_database: ServiceDatabase) -> AsyncIterator[Reach]:
    await system.with_alipay()
    login = await service_database("notification")
    notification = Database(login.url, clock=system.process.plumbing.clock)
    yield Reach(
        system.cycle,
        system.database,
        notification,
        Vault.open(system.settings.vault_keys_file, "local"),
        _keys({name: system.world.accounts[name] for name in ("wechat", "alipay")}),
    )
    await notification.dispose()


async def told(system: System, reach: Reach, candidate: UUID) -> None:
    """What notification keeps of the messages that payment's events led to."""
    for event in await system.rows("select * from outbox where key = $1 order by id", str(candidate)):
        occasion = event["type"].split(".")[2]
        if occasion not in {"closing-soon", "expired"}:
            continue
        for channel, state in (("sms", "delivered"), ("email", "undelivered")):
            async with reach.notification.unit_of_work(event["occurred_at"]) as uow:
                await uow.changed(
                    "insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts, "
                    "created_at, state_at, not_before, template_version, reason_code, provider_ref, correlation_id, "
                    "caused_by, body) values ($1, $2, $3, '', $4, $5, $6, '{}', $7, $7, $7, 3, $8, '900619746936498440^0', "
                    "'c', $9, '考生1234：……')",
                    uuid7(),
                    candidate,
                    occasion,
                    f"payment-{event['sequence']}",
                    channel,
                    state,
                    event["occurred_at"],
                    "mailbox-full" if state == "undelivered" else None,
                    event["event_id"],
                )


async def forfeited(system: System, reach: Reach, *, others: int = 6) -> UUID:
    """Somebody who was reminded, ordered four times, at both gateways, paid once too late, and was forfeited among others."""
    candidate, *_ = await system.approved(1 + others)
    system.at("2024-02-05 00:00")
    await system.remind()
    first = await system.ordered(candidate)
    system.at("2024-02-05 03:00")
    await system.settle()
    assert (await system.order_row(first))["status"] == "closed"
    opened = await system.ordered(candidate, "alipay")
    system.world.alipay.book.open(opened, system.clock.now())
    system.at("2024-02-05 05:00")
    await system.settle()
    assert (await system.order_row(opened))["status"] == "closed"
    await system.write(
        "insert into orders (order_no, registration_id, channel, amount_fen, currency, status, created_at, expires_at, "
        "ask_at, refusal, decided_at) values ('20240129REFUSED', $1, 'wechat', 20000, 'CNY', 'failed', $2, $3, $3, "
        "'PARAM_ERROR', $2)",
        candidate,
        moment("2024-02-05 04:00"),
        moment("2024-02-05 06:00"),
    )
    system.at("2024-02-08 00:00")
    await system.remind()
    system.at(LAST)
    third = await system.ordered(candidate)
    order = system.world.wechat.book.find(third)
    assert order is not None
    order.state, order.paid_at, order.transaction_id = TradeState.SUCCESS, moment(CLOSES), "42000000000000001"
    system.at(CLOSES)
    now = moment(CLOSES)
    system.turns.guard.agreed = Readings(now, now + timedelta(seconds=1), now - timedelta(milliseconds=3))
    await system.close()
    assert await system.status(candidate) == "expired"
    await told(system, reach, candidate)
    return candidate


async def written(system: System, reach: Reach, candidate: UUID) -> dict[str, Any]:
    made = await make(reach, candidate, made_at=moment("2024-02-10 09:00"))
    loaded: dict[str, Any] = json.loads(json.dumps(made, ensure_ascii=False))
    return loaded


def bytes_of(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


async def root_of(system: System) -> str:
    """As somebody has it who reads the topic, not the file."""
    (event,) = await system.said(system.cycle.id)
    assert isinstance(event, payment.WindowClosed)
    return event.proof_root


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
        r"(?<!\d)1[3-9]\d{9}(?!\d)",
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


MUTANTS: dict[type, Callable[[Any], list[Any]]] = {
    str: lambda text: [text + "0", ("0" if text[:1] != "0" else "1") + text[1:]] if text else ["x"],
    int: lambda number: [number + 1],
    bool: lambda flag: [not flag],
    type(None): lambda _: ["x", 1],
    list: lambda _: [["x"], [{}]],
    dict: lambda _: [{"x": "y"}],
}


def put(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with another value at this place."""
    changed = copy.deepcopy(content)
    at: Any = changed
    steps: list[str | int] = []
    kept = path
    while kept:
        if match := re.match(r"\[(\d+)\]\.?", kept):
            steps.append(int(match[1]))
        else:
            holder = at
            for step in steps:
                holder = holder[step]
            # A key may hold dots and brackets itself: the longest that is there.
            key = max((k for k in holder if kept == k or kept.startswith((f"{k}.", f"{k}["))), key=len)
            steps.append(key)
            kept = kept[len(key) :].removeprefix(".")
            continue
        kept = kept[match.end() :]
    for step in steps[:-1]:
        at = at[step]
    at[steps[-1]] = value
    return changed


def mutants(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each value altered, one at a time; of the cycle's thousand and the checksums only some."""
    found: list[tuple[str, dict[str, Any]]] = []
    for number, (path, value) in enumerate(values(content)):
        if path.startswith(("cycle.content", "checksums")) and number % 150:
            continue
        found.extend(
            (path, put(content, path, other)) for other in MUTANTS[type(value)](value) if other != value
        )
    return found


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


# What only our own word stands for: docs/evidence.md says so, and `verify` says it with every file.
STATED = re.compile(
    r"made_at|notices\[\d+\]\.(message_id|channel|template_version|state|state_at|created_at|provider_ref|reason_code)"
    r"|reminders\[\d+\]\.messages\[\d+\]\.(message_id|channel|template_version|state|state_at|created_at|provider_ref|reason_code)"
    r"|published\.(event_id|sequence|occurred_at|closed_at|counts\.\w+|sums_fen\.\w+)"
)


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


async def test_whoever_is_forfeited_after_the_totals_were_said_is_covered_by_no_root_and_the_file_says_so(
    system: System, reach: Reach
) -> None:
    candidate = await system.owing()
    system.at(LAST)
    await system.ordered(candidate)
    system.at(CLOSES)
    system.gateway_down(600)
    await system.close()
    system.clock.jump(moment(CLOSES) + timedelta(hours=2))
    await system.settle()
    await system.close()
    assert await system.status(candidate) == "expired"
    content = await written(system, reach, candidate)
    assert (content["tree"], content["published"]) == (None, None)
    (problem,) = verify(bytes_of(content)).problems
    assert problem.found == "none: no published root covers this forfeiture"


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

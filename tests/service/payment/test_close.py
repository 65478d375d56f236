"""The window closes: nobody too early, nobody who paid in time, everybody else, each with proof."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from services.chassis.clock import ClockControl
from services.payment.domain.proof_tree import ProofTree
from services.payment.handlers import settling
from services.payment.handlers.settling import AT_ONCE, GIVE_UP_AFTER
from services.payment.ports import ChannelRefused, Closed
from services.payment.repository import closing
from tests.service.payment.system import CLOSES, System, approved, hours, moment, rejected
from tests.support.counted import counts

LAST = "2024-02-08 23:57:59"
ORDERS = "kaowu_payment_orders_total"


async def test_nobody_forfeits_a_microsecond_before_the_close(system: System) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 23:59:59.999999")
    assert await system.close() == moment(CLOSES)
    assert await system.status(candidate) == "awaiting"
    system.at(CLOSES)
    assert await system.close() is None
    assert await system.words(candidate) == ["due", "expired"]
    expired = (await system.said(candidate))[-1]
    assert isinstance(expired, payment.Expired)
    now = await system.obligation(candidate)
    assert (expired.closes_at, expired.cause, expired.proof_id) == (
        moment(CLOSES),
        "unpaid",
        now["proof_id"],
    )
    assert now["expired_at"] == moment(CLOSES)


async def test_the_database_itself_refuses_a_forfeiture_before_the_close_or_without_proof(
    system: System,
) -> None:
    candidate = await system.owing()
    for early, proof in [(True, uuid7()), (False, None)]:
        at = moment(CLOSES) - timedelta(microseconds=1) if early else moment(CLOSES)
        with pytest.raises(Exception, match="expired_with_proof"):
            await system.write(
                "update obligations set status = 'expired', expired_at = $2, proof_id = $3 "
                "where registration_id = $1",
                candidate,
                at,
                proof,
            )


async def test_a_missed_close_runs_at_start_and_running_it_again_changes_nothing(system: System) -> None:
    await system.approved(3)
    system.at("2024-02-09 08:00")
    await system.close()
    after = await system.everything()
    assert [row["status"] for row in after["obligations"]] == ["expired"] * 3
    await system.close()
    await asyncio.gather(*(system.close() for _ in range(3)))
    assert await system.everything() == after


async def test_every_open_order_is_closed_and_asked_about(system: System) -> None:
    paid_unheard, unpaid, never, heard = await system.approved(4)
    await system.paid_and_heard(await system.ordered(heard))
    system.at(LAST)
    first, second = await system.ordered(paid_unheard), await system.ordered(unpaid)
    system.at("2024-02-08 23:59:59")
    system.pay(first)
    system.at(CLOSES)
    await system.close()
    states = {candidate: await system.status(candidate) for candidate in (paid_unheard, unpaid, never, heard)}
    assert list(states.values()) == ["paid", "expired", "expired", "paid"]
    assert (await system.order_row(second))["status"] == "closed"
    proofs = {row["registration_id"]: row["orders"] for row in await system.rows("select * from proofs")}
    assert set(proofs) == {unpaid, never}
    (answer,) = await system.rows("select digest from answers where order_no = $1", second)
    assert proofs[never] == "none"
    made, ends = "20240208T155759.000000Z", "20240208T160000.000000Z"
    assert proofs[unpaid] == (
        f"{second}:closed:{answer['digest'].hex()}:wechat:20000:CNY:{made}:{ends}:query:closed:{ends}:"
    )


async def test_whoever_has_an_open_order_at_a_silent_gateway_is_held_and_nobody_else(system: System) -> None:
    paid, unpaid, never = await system.approved(3)
    system.at(LAST)
    first, second = await system.ordered(paid), await system.ordered(unpaid)
    system.pay(first)
    system.at(CLOSES)
    system.gateway_down(2 * 3600)
    system.settle_job.awake.clear()
    await system.close()
    assert [await system.status(one) for one in (paid, unpaid, never)] == ["held", "held", "expired"]
    report = await system.office("close")
    assert report["state"] == "closed"
    assert {held["order_no"] for held in report["held"]} == {first, second}
    assert report["counts"]["held"] == 2
    assert await system.words(paid) == ["due"]

    # Retried until it answers; then decided.
    assert system.settle_job.awake.is_set(), "nobody told the job that asks again"
    due = await system.settle()
    assert due == moment(CLOSES) + timedelta(minutes=5)
    system.clock.jump(due)
    due = await system.settle()
    assert due == moment(CLOSES) + timedelta(minutes=65)
    assert [await system.status(one) for one in (paid, unpaid)] == ["held", "held"]
    system.clock.jump(moment(CLOSES) + timedelta(minutes=125))
    assert await system.settle() is None
    assert system.close_job.awake.is_set()
    await system.close()
    assert [await system.status(one) for one in (paid, unpaid, never)] == ["paid", "expired", "expired"]
    assert await system.words(paid) == ["due", "paid"]
    assert await system.words(unpaid) == ["due", "expired"]
    assert (await system.office("close"))["held"] == []


async def test_a_payment_is_found_though_the_gateway_will_not_close_its_order(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(order_no: str) -> Closed:
        raise ChannelRefused("PARAM_ERROR", 400)

    paid, unpaid = await system.approved(2)
    system.at(LAST)
    first, second = await system.ordered(paid), await system.ordered(unpaid)
    system.pay(first)
    system.at(CLOSES)
    with monkeypatch.context() as odd:
        odd.setattr(system.turns.gateways.channels["wechat"], "close", refuse)
        await system.close()
    assert [await system.status(one) for one in (paid, unpaid)] == ["paid", "held"], (
        "unpaid, and still to be paid"
    )
    assert [held["order_no"] for held in (await system.office("close"))["held"]] == [second]
    system.clock.jump(moment(CLOSES) + timedelta(minutes=5))
    await system.settle()
    await system.close()
    assert [await system.status(one) for one in (paid, unpaid)] == ["paid", "expired"]


async def test_a_held_candidate_who_is_rejected_owes_nothing(system: System) -> None:
    candidate = await system.owing()
    system.at(LAST)
    await system.ordered(candidate)
    system.at(CLOSES)
    system.gateway_down(3600)
    await system.close()
    assert await system.status(candidate) == "held"
    await system.deliver(rejected(candidate))
    assert await system.status(candidate) == "cancelled"
    system.clock.jump(moment(CLOSES) + timedelta(hours=2))
    await system.settle()
    await system.close()
    assert await system.words(candidate) == ["due"]
    assert await system.status(candidate) == "cancelled"


async def test_a_gateway_that_is_away_is_not_waited_for_by_everybody(system: System) -> None:
    candidates = await system.approved(100)
    system.at(LAST)
    for start in range(0, len(candidates), 8):
        await asyncio.gather(*(system.ordered(one) for one in candidates[start : start + 8]))
    system.at(CLOSES)
    system.gateway_down(3600)
    await system.close()
    assert {row["status"] for row in await system.rows("select status from obligations")} == {"held"}
    reached = system.world.wechat.weather.reached
    assert reached <= GIVE_UP_AFTER + AT_ONCE, "the silent gateway was asked about everybody"


async def test_a_gateway_that_answers_without_a_last_word_is_asked_about_everybody_else(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back at the gateway's own counter: it says neither paid nor unpaid, and is not silent for that."""
    monkeypatch.setattr(settling, "GIVE_UP_AFTER", 4)
    monkeypatch.setattr(settling, "AT_ONCE", 2)
    candidates = await system.approved(8)
    system.at(LAST)
    numbers = {await system.ordered(one): one for one in candidates}
    undecided, others = sorted(numbers)[:-2], sorted(numbers)[-2:]
    for order_no in undecided:
        system.pay(order_no)
        system.world.wechat.refunds.ask(order_no, f"R{order_no}", 20_000, system.clock.now())
    system.at(CLOSES)
    with counts(len(undecided), ORDERS, channel="wechat", outcome="undecided"):
        await system.close()
    assert {await system.status(numbers[one]) for one in undecided} == {"held"}
    assert {await system.status(numbers[one]) for one in others} == {"expired"}


async def test_clocks_that_disagree_stop_the_close_in_sight_of_the_office(system: System) -> None:
    candidate = await system.owing()
    system.at(CLOSES)
    system.clocks_disagree = "the clocks disagree"
    again = await system.close()
    assert again == moment(CLOSES) + timedelta(seconds=30)
    assert await system.status(candidate) == "awaiting"
    report = await system.office("close")
    assert (report["state"], report["guard"]["agrees"], report["guard"]["reason"]) == (
        "pending",
        False,
        "the clocks disagree",
    )
    assert report["guard"]["stops"] == 1
    assert report["published"] is None

    system.clocks_disagree = None
    system.clock.jump(again)
    await system.close()
    assert await system.status(candidate) == "expired"
    report = await system.office("close")
    assert (report["state"], report["guard"]["agrees"], report["guard"]["stops"]) == ("closed", True, 1)


async def test_of_clocks_that_agree_the_close_waits_for_the_slowest(system: System) -> None:
    """Within five seconds they agree, and nobody forfeits those seconds."""
    candidate = await system.owing()
    system.turns.guard.ahead = timedelta(seconds=3)
    system.at(CLOSES)
    again = await system.close()
    assert again == moment(CLOSES) + timedelta(seconds=3)
    assert await system.status(candidate) == "awaiting"
    system.clock.jump(again)
    await system.close()
    assert await system.status(candidate) == "expired"


async def test_a_clock_that_is_set_back_after_the_close_opens_nothing_again(
    system: System, tmp_path: Path
) -> None:
    """And one that was only taken for a close, before the clocks agreed, closes nothing."""
    first, _ = await system.approved(2)
    system.at(CLOSES)
    system.clocks_disagree = "the clocks disagree"
    await system.close()
    ClockControl(tmp_path / "clock", moment("2024-02-08 23:50"))
    assert (await system.order(first)).status_code == 201
    system.clocks_disagree = None
    system.at(CLOSES)
    await system.close()
    late = await system.owing()
    ClockControl(tmp_path / "clock", moment("2024-02-08 23:50"))
    refused = await system.order(late)
    assert (refused.status_code, refused.json()["code"]) == (409, "window-closed")


async def test_the_close_is_published_once_with_counts_sums_and_the_root_of_the_evidence(
    system: System,
) -> None:
    paid, late, *never = await system.approved(7)
    await system.paid_and_heard(await system.ordered(paid))
    system.at(LAST)
    held_order = await system.ordered(late)
    system.at(CLOSES)
    system.gateway_down(3600)
    await system.close()
    (event,) = await system.said(system.cycle.id)
    assert isinstance(event, payment.WindowClosed)
    assert event.counts.model_dump() == {"paid": 1, "expired": 5, "held": 1, "undecided": None}
    assert event.sums_fen.model_dump() == {
        "received": 20_000,
        "due": 140_000,
        "held": 20_000,
        "refunds_due": 0,
    }
    assert (event.closes_at, event.closed_at, event.proofs) == (moment(CLOSES), moment(CLOSES), 5)

    proofs = await system.rows("select * from proofs order by registration_id")
    tree = ProofTree()
    for proof in proofs:
        bound = (
            f"kaowu.forfeiture.v2|{proof['proof_id']}|{proof['registration_id']}|20240208T160000.000000Z"
            f"|unpaid-at-close|{system.cycle.fingerprint}|{proof['amount_fen']}|{proof['orders']}"
            "|20240208T160000.000000Z|20240208T160000.000000Z|none|none"
        )
        assert proof["leaf"] == sha256(b"\x00" + bound.encode()).digest()
        tree.add(proof["leaf"])
    assert tree.root().hex() == event.proof_root
    assert {proof["registration_id"] for proof in proofs} == set(never)

    # What is decided later is told of each person; the published totals stand.
    system.clock.jump(moment(CLOSES) + hours(2))
    await system.settle()
    await system.close()
    assert (await system.order_row(held_order))["status"] == "closed"
    assert await system.words(late) == ["due", "expired"]
    assert await system.words(system.cycle.id) == ["window-closed", "proofs-published"]
    report = await system.office("close")
    assert report["published"]["counts"]["held"] == 1
    assert report["counts"]["held"] == 0
    assert report["proofs"] == 6


async def test_an_approval_that_arrives_after_the_close_is_swept_by_a_later_run(system: System) -> None:
    system.at(CLOSES)
    await system.close()
    system.close_job.awake.clear()
    late = await system.owing()
    assert await system.words(late) == ["due"]
    assert system.close_job.awake.is_set(), "nobody told the close to look once more"
    await system.close()
    assert await system.words(late) == ["due", "expired"]
    assert await system.words(system.cycle.id) == ["window-closed", "proofs-published"]


async def test_the_sweep_goes_in_chunks_and_may_be_cut_anywhere(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = await system.approved(23)
    close = replace(system.turns, sweep_chunk=5).close_window
    system.at(CLOSES)
    chunks = 0
    forfeit = closing.sweep_chunk

    async def dies(*args: object, **keywords: object) -> int:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            raise OSError("killed")
        return await forfeit(*args, **keywords)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(closing, "sweep_chunk", dies)
    with pytest.raises(OSError, match="killed"):
        await close()
    counts = await system.rows("select status, count(*) as n from obligations group by 1 order by 1")
    assert [(row["status"], row["n"]) for row in counts] == [("awaiting", 13), ("expired", 10)]
    await asyncio.gather(*(close() for _ in range(4)))
    assert {await system.status(one) for one in candidates} == {"expired"}
    assert len(await system.rows("select * from proofs")) == 23
    assert len(await system.said(system.cycle.id)) == 1
    for one in candidates:
        assert await system.words(one) == ["due", "expired"]


async def test_a_full_page_of_everything_the_office_sees(system: System) -> None:
    candidates = await system.approved(5)
    await system.paid_and_heard(await system.ordered(candidates[0]))
    first = await system.office("payments?limit=3")
    rest = await system.office(f"payments?limit=3&after={first['next']}")
    items = [*first["items"], *rest["items"]]
    assert [item["registration_id"] for item in items] == sorted(str(one) for one in candidates)
    assert rest["next"] is None
    assert {item["state"]: item["paid_fen"] for item in items} == {"paid": 20_000, "awaiting": 0}


async def test_what_is_due_is_the_domains_rule_and_nothing_else(system: System) -> None:
    """The set-based predicate and `Obligation.expire` give the same verdict in every state."""
    from services.payment.domain.obligation import Status  # noqa: PLC0415
    from services.payment.domain.order import OrderStatus  # noqa: PLC0415
    from services.payment.domain.refusals import PaymentRuleBroken  # noqa: PLC0415
    from services.payment.repository import obligations  # noqa: PLC0415

    system.at(CLOSES)
    at = moment(CLOSES)
    cases: dict[UUID, tuple[Status, timedelta, OrderStatus | None]] = {}
    for status in Status:
        for early in (timedelta(0), timedelta(microseconds=1)):
            for order in (None, *OrderStatus):
                cases[uuid7()] = (status, early, order)
    await system.deliver(*(approved(one) for one in cases))
    for one, (status, early, order) in cases.items():
        await system.write(
            "update obligations set status = $2::text, closes_at = $3, proof_id = uuidv7(), expired_at = $3, "
            "paid_at = $4, cancelled_for = case when $2::text = 'cancelled' then 'rejected' end "
            "where registration_id = $1",
            one,
            status,
            at + early,
            at - timedelta(days=1),
        )
        if order is not None:
            answers = await system.rows("select max(answer_id) as id from answers")
            if answers[0]["id"] is None:
                await system.write(
                    "insert into answers (order_no, kind, state, at, digest, raw, signature) "
                    "values ('x', 'query', 'closed', $1, '', '', '{}')",
                    at,
                )
            await system.write(
                "insert into orders (order_no, registration_id, channel, amount_fen, currency, status, created_at, "
                "expires_at, ask_at, refusal, answer_id) values ($1, $2, 'wechat', 20000, 'CNY', $3, $4, $4, $4, 'x', "
                "(select max(answer_id) from answers))",
                str(one),
                one,
                order,
                at,
            )
    expected: set[UUID] = set()
    async with system.database.unit_of_work() as uow:
        owed = await obligations.lock_all(uow, list(cases))
    for one, (_, _, order) in cases.items():
        try:
            owed[one].expire(at, [order] if order else [])
        except PaymentRuleBroken:
            continue
        expected.add(one)
    async with system.database.unit_of_work() as uow:
        assert await closing.count_due(uow) == len(expected)
        assert await closing.sweep_chunk(uow, system.cycle.fingerprint) == len(expected)
    swept = {row["registration_id"] for row in await system.rows("select registration_id from proofs")}
    assert swept == expected
    assert 0 < len(expected) < len(cases)

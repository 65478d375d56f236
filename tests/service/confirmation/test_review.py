"""Reviewers decide about many at once: a result for each, a few statements for all."""

from __future__ import annotations

from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from contracts import payment
from contracts.reasons import WindowReason
from contracts.refusals import Code
from tests.service.confirmation.system import System, payload
from tests.support.under_test import names
from tests.unit.confirmation.cases import leshan, moment

LATER = "2023-12-20 10:00"


async def test_the_last_level_opens_payment_and_both_facts_are_said(system: System) -> None:
    (one,) = await system.confirmed()
    system.at(LATER)
    assert await system.approve("site", one) == [
        {"registration_id": str(one), "state": "confirmed", "sequence": 2, "ok": True}
    ]
    assert await system.approve("district", one) == [
        {"registration_id": str(one), "state": "approved", "sequence": 4, "ok": True}
    ]
    said = await system.said(one)
    assert names(said) == ["confirmed", "reviewed", "reviewed", "approved"]
    assert [payload(event) for event in said[1:]] == [
        {"level": "site", "decision": "approve"},
        {"level": "district", "decision": "approve"},
        {
            "level": "junior",
            "subjects": [1, 2, 3, 4],
            "specialty_code": "203",
            "site_id": "shizhong",
            "told_closes_at": None,
        },
    ]


async def test_five_hundred_decisions_take_no_more_statements_than_one(system: System) -> None:
    few = await system.confirmed(many=2)
    many = await system.pre_registered(many=498)
    await system.rows("select 1")
    async with system.database.unit_of_work() as uow:
        await uow.sql(
            "update cases set state = 'confirmed', passed = 1, version = 1 where state = 'pre-registered'"
        )
        await uow.sql(
            "insert into outbox (event_id, topic, key, type, sequence, occurred_at, payload, correlation_id) "
            "select uuidv7(), topic, registration_id::text, type, 1, occurred_at, "
            "replace(payload, key, registration_id::text), correlation_id "
            "from cases, (select * from outbox order by id limit 1) o where registration_id::text not in "
            "(select key from outbox)"
        )
    system.at(LATER)
    with system.statements() as for_one:
        assert (await system.approve("site", few[0]))[0]["ok"]
    with system.statements() as for_all:
        results = await system.approve("site", *many)
    assert len(results) == 498
    assert all(result["ok"] for result in results)
    assert len(for_all) == len(for_one) <= 6, for_all
    assert len(await system.rows("select 1 from decisions where kind = 'approved'")) == 499
    assert names(await system.said(many[-1])) == ["confirmed", "reviewed"]


async def test_every_row_gets_its_own_answer_and_none_is_a_silent_success(system: System) -> None:
    good, twice, returned, rejected = await system.confirmed(many=4)
    (waiting,) = await system.pre_registered()
    unknown = uuid7()
    system.at(LATER)
    rows: list[tuple[UUID, dict[str, object]]] = [
        (good, {"decision": "approve"}),
        (waiting, {"decision": "approve"}),
        (unknown, {"decision": "approve"}),
        (unknown, {"decision": "reject", "reason_codes": ["years"]}),
        (twice, {"decision": "approve"}),
        (twice, {"decision": "approve"}),
        (
            returned,
            {"decision": "return", "reason_codes": ["photo"], "fix_until": "2023-12-25T18:00:00+08:00"},
        ),
        (returned, {"decision": "approve"}),
        (rejected, {"decision": "reject"}),
        (rejected, {"decision": "reject", "reason_codes": ["education"]}),
        (rejected, {"decision": "return", "reason_codes": ["education"]}),
        (
            good,
            {"decision": "return", "reason_codes": ["education"], "fix_until": "2023-12-25T18:00:00+08:00"},
        ),
    ]
    results = await system.review("site", *({"registration_id": str(one), **row} for one, row in rows))
    assert [result["registration_id"] for result in results] == [str(one) for one, _ in rows]
    assert [result.get("state") or result.get("code") for result in results] == [
        "confirmed",
        Code.NOT_CONFIRMED,
        Code.NOT_CONFIRMED,
        Code.NOT_FOUND,
        "confirmed",
        Code.NOT_ALLOWED,
        "returned",
        Code.NOT_CONFIRMED,
        Code.INVALID,
        "rejected",
        Code.INVALID,  # a rejection may be taken back; the desk's days are over, so the time must be named
        "returned",  # approved at this level a moment ago: it thinks again
    ]
    assert all(result["ok"] is ("code" not in result) for result in results)
    assert all(result["detail"].endswith("。") for result in results if not result["ok"])
    assert names(await system.said(good)) == ["confirmed", "reviewed", "returned"]
    assert names(await system.said(twice)) == ["confirmed", "reviewed"]
    assert names(await system.said(returned)) == ["confirmed", "returned"]
    assert names(await system.said(rejected)) == ["confirmed", "rejected"]
    assert payload((await system.said(rejected))[-1]) == {"level": "site", "reason_codes": ["education"]}


async def test_what_a_reviewer_sends_back_starts_again_at_the_desk(system: System) -> None:
    (one,) = await system.confirmed()
    system.at(LATER)
    await system.approve("site", one)
    row: dict[str, object] = {
        "registration_id": str(one),
        "decision": "return",
        "reason_codes": ["other"],
        "note": "请补充进修证明",
        "fix_until": "2023-12-25T18:00:00+08:00",
    }
    assert (await system.review("district", row))[0]["state"] == "returned"
    assert (await system.approve("district", one))[0]["code"] == Code.NOT_CONFIRMED
    # the desk's own window ended on the 14th; the return's time counts
    system.at("2023-12-25 17:59:59.999999")
    assert (await system.confirm(one)).json()["state"] == "confirmed"
    assert (await system.approve("district", one))[0]["code"] == Code.NOT_ALLOWED
    assert (await system.approve("site", one))[0]["ok"]
    assert (await system.approve("district", one))[0]["state"] == "approved"
    assert names(await system.said(one)) == [
        "confirmed", "reviewed", "returned", "confirmed", "reviewed", "reviewed", "approved",
    ]  # fmt: skip


async def test_a_decision_is_taken_back_with_a_reason_until_money_may_have_moved(system: System) -> None:
    (one,) = await system.confirmed()
    back: dict[str, object] = {
        "registration_id": str(one),
        "decision": "return",
        "reason_codes": ["other"],
        "note": "误判，请重新审核",
        "fix_until": "2024-02-05T18:00:00+08:00",
    }
    system.at(LATER)
    no: dict[str, object] = {"registration_id": str(one), "decision": "reject", "reason_codes": ["years"]}
    assert (await system.review("site", no))[0]["state"] == "rejected"
    assert (await system.review("site", {**back, "reason_codes": []}))[0]["code"] == Code.INVALID
    assert (await system.review("site", back))[0]["state"] == "returned"
    for again in (1, 2):
        assert (await system.confirm(one)).json()["state"] == "confirmed"
        assert (await system.approve("site", one))[0]["ok"]
        assert (await system.approve("district", one))[0]["state"] == "approved"
        if again == 1:
            system.at("2024-01-28 23:59:59.999999")
            assert (await system.review("site", back))[0]["state"] == "returned"
    system.at("2024-01-29 00:00")
    assert (await system.review("district", back))[0]["code"] == Code.NOT_ALLOWED
    assert names(await system.said(one)) == [
        "confirmed", "rejected", "returned",
        "confirmed", "reviewed", "reviewed", "approved", "returned",
        "confirmed", "reviewed", "reviewed", "approved",
    ]  # fmt: skip


async def test_an_approved_candidate_can_still_be_rejected(system: System) -> None:
    (one,) = await system.confirmed()
    system.at(LATER)
    await system.approve("site", one)
    await system.approve("district", one)
    row: dict[str, object] = {"registration_id": str(one), "decision": "reject", "reason_codes": ["identity"]}
    assert (await system.at_desk("reject", one)).json()["code"] == Code.NOT_ALLOWED
    assert (await system.review("site", row))[0]["state"] == "rejected"
    assert names(await system.said(one))[-1] == "rejected"
    assert (await system.review("site", row))[0]["code"] == Code.NOT_ALLOWED


async def test_nobody_is_approved_once_payment_closed_and_the_office_sees_who_is_left(system: System) -> None:
    done, left = await system.confirmed(many=2)
    system.at(LATER)
    await system.approve("site", done, left)
    system.at("2024-02-08 23:59:59.999999")
    assert (await system.approve("district", done))[0]["state"] == "approved"
    system.at("2024-02-09 00:00")
    assert (await system.approve("district", left))[0]["code"] == Code.WINDOW_CLOSED
    undecided = (await system.call("GET", "/office/undecided", "office")).json()
    assert (undecided["count"], undecided["payment_closed"], undecided["next"]) == (1, True, None)
    assert [(item["registration_id"], item["awaits"]) for item in undecided["items"]] == [
        (str(left), "district")
    ]
    listed = (await system.call("GET", "/office/cases?limit=1", "office")).json()
    assert listed["next"] == listed["items"][0]["registration_id"] == str(min(done, left))
    rest = (await system.call("GET", f"/office/cases?after={listed['next']}", "office")).json()
    assert [item["registration_id"] for item in rest["items"]] == [str(max(done, left))]


async def test_once_the_office_has_moved_the_close_of_payment_the_last_level_may_approve_until_then(
    system: System,
) -> None:
    early, late = await system.confirmed(many=2)
    system.at(LATER)
    await system.approve("site", early, late)
    newest, overtaken = (
        payment.SiteWindowSet(
            cycle_id=leshan().id,
            site_id="shizhong",
            closes_at=moment(at),
            told_closes_at=moment(at),
            reason_code=WindowReason.OUTAGE,
        )
        for at in ("2024-02-11 00:00", "2024-02-10 00:00")
    )
    await system.deliver_twice([system.record(newest, 2), system.record(overtaken, 1)])
    system.at("2024-02-10 23:59:59.999999")
    assert (await system.approve("district", early))[0]["state"] == "approved"
    assert payload((await system.said(early))[-1])["told_closes_at"] == "2024-02-10T16:00:00Z"
    undecided = (await system.call("GET", "/office/undecided", "office")).json()
    assert undecided["payment_closed"] is False
    system.at("2024-02-11 00:00")
    assert (await system.approve("district", late))[0]["code"] == Code.WINDOW_CLOSED


async def test_a_level_that_is_not_in_the_cycle_does_not_exist(system: System) -> None:
    answer = await system.call(
        "POST",
        "/review/ministry/decisions",
        "reviewer:ministry",
        {"decisions": [{"registration_id": str(uuid7()), "decision": "approve"}]},
    )
    assert (answer.status_code, answer.json()["code"]) == (404, Code.NOT_FOUND)


async def test_five_hundred_decisions_with_long_notes_are_not_too_large(system: System) -> None:
    rows: list[dict[str, object]] = [
        {"registration_id": str(uuid7()), "decision": "reject", "reason_codes": ["other"], "note": "缺" * 500}
        for _ in range(500)
    ]
    assert {result["code"] for result in await system.review("site", *rows)} == {Code.NOT_FOUND}


@pytest.mark.parametrize("rows", [[], [{"decision": "approve"}] * 501])
async def test_a_list_has_one_to_five_hundred_rows(system: System, rows: list[dict[str, object]]) -> None:
    numbered = [{**row, "registration_id": str(uuid7())} for row in rows]
    answer = await system.call("POST", "/review/site/decisions", "reviewer:site", {"decisions": numbered})
    assert (answer.status_code, answer.json()["code"]) == (422, Code.INVALID)


async def test_a_look_at_a_case_by_staff_is_in_the_audit_trail(system: System) -> None:
    (one,) = await system.confirmed()
    for path, role in (
        (f"/cases/{one}", f"candidate:{one}"),
        (f"/cases/{one}", "office"),
        (f"/desks/shizhong/cases/{one}", "desk:shizhong"),
        (f"/review/site/cases/{one}", "reviewer:site"),
    ):
        seen = await system.call("GET", path, role)
        assert seen.status_code == 200
        assert seen.json()["state"] == "confirmed"
        assert [level["passed"] for level in seen.json()["levels"]] == [True, False, False]
    looks = await system.rows("select actor_kind, subject from audit where action = 'read-case' order by id")
    assert looks == [{"actor_kind": kind, "subject": str(one)} for kind in ("office", "desk", "reviewer")]

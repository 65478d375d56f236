"""A desk at work: confirming, sending back, rejecting."""

from __future__ import annotations

from typing import Any

from uuid_utils.compat import uuid7

from contracts.refusals import Code
from tests.service.confirmation.system import System, payload
from tests.support.under_test import names

DURING = "2023-12-10 09:00"


async def test_a_desk_confirms_its_own_candidate(system: System) -> None:
    one = await system.registered()
    at = system.at(DURING)
    answer = await system.confirm(one)
    assert answer.status_code == 200
    assert answer.json() == {"registration_id": str(one), "state": "confirmed", "sequence": 1}
    (event,) = await system.said(one)
    assert names([event]) == ["confirmed"]
    assert payload(event) == {"site_id": "shizhong", "form_version": 1, "desk": "shizhong"}
    assert event.envelope.time == at
    (decision,) = await system.rows("select * from decisions")
    assert (decision["kind"], decision["level"], decision["actor"]) == (
        "confirmed",
        "desk",
        "account-of-desk:shizhong",
    )
    assert decision["at"] == at
    assert "seen" in str(decision["documents"])


async def test_confirming_again_is_no_refusal_and_no_second_event(system: System) -> None:
    one = await system.registered()
    system.at(DURING)
    first, second = await system.confirm(one), await system.confirm(one)
    assert (second.status_code, second.json()) == (200, first.json())
    assert names(await system.said(one)) == ["confirmed"]


async def test_a_desk_never_touches_another_desks_candidate(system: System) -> None:
    one = await system.registered("wutongqiao")
    system.at("2023-12-13 09:00")
    before = await system.everything()
    for answer in (
        await system.confirm(one, desk="shizhong"),
        await system.at_desk("return", one),
        await system.at_desk("reject", one),
        await system.call("GET", f"/desks/shizhong/cases/{one}", "desk:shizhong"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, Code.OTHER_SITE)
    # nor by calling itself that desk
    forged = await system.confirm(one, desk="wutongqiao", role="desk:shizhong")
    assert (forged.status_code, forged.json()["code"]) == (403, Code.FORBIDDEN)
    assert await system.everything() == before
    assert (await system.confirm(one, desk="wutongqiao")).status_code == 200


async def test_another_desk_is_told_so_before_anything_about_windows(system: System) -> None:
    one = await system.registered("wutongqiao")
    system.at("2023-12-20 09:00")
    assert (await system.confirm(one)).json()["code"] == Code.OTHER_SITE


async def test_the_window_of_the_desk_counts_to_the_microsecond(system: System) -> None:
    early, late, last = await system.pre_registered(many=3)
    system.at("2023-12-07 23:59:59.999999")
    assert (await system.confirm(early)).json()["code"] == Code.WINDOW_NOT_OPEN
    system.at("2023-12-08 00:00")
    assert (await system.confirm(early)).status_code == 200
    system.at("2023-12-14 11:59:59.999999")
    assert (await system.confirm(late)).status_code == 200
    system.at("2023-12-14 12:00")
    refused = await system.confirm(last)
    assert (refused.status_code, refused.json()["code"]) == (409, Code.WINDOW_CLOSED)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"].endswith("。")


async def test_nobody_is_confirmed_where_no_days_are_named(system: System) -> None:
    one = await system.registered("municipal")
    system.at(DURING)
    assert (await system.confirm(one, desk="municipal")).json()["code"] == Code.DESK_UNDATED


async def test_an_old_form_or_missing_papers_are_refused_and_nothing_is_written(system: System) -> None:
    one = await system.registered()
    system.at(DURING)
    before = await system.everything()
    assert (await system.confirm(one, form=2)).json()["code"] == Code.FORM_OUTDATED
    paper = system.process.plumbing.cycle.documents[0]
    missing = await system.confirm(one, missing=[paper.id])
    assert (missing.status_code, missing.json()["code"]) == (422, Code.DOCUMENTS_MISSING)
    assert missing.json()["fields"][0]["field"] == f"documents.{paper.id}"
    assert paper.name in missing.json()["detail"]
    assert await system.everything() == before


async def test_a_return_says_why_and_until_when_and_the_candidate_may_come_again(system: System) -> None:
    one = await system.registered()
    system.at(DURING)
    returned = await system.at_desk(
        "return",
        one,
        reason_codes=["documents", "other"],
        note="缺执业证书原件",
        fix_until="2023-12-20T18:00:00+08:00",
    )
    assert returned.json() == {"registration_id": str(one), "state": "returned", "sequence": 1}
    (event,) = await system.said(one)
    assert payload(event) == {
        "level": "desk",
        "reason_codes": ["documents", "other"],
        "fix_until": "2023-12-20T10:00:00Z",
    }
    system.at("2023-12-20 17:59:59.999999")
    assert (await system.confirm(one)).json()["sequence"] == 2
    assert (await system.case(one))["fix_until"] is None


async def test_what_a_desk_writes_is_kept_encrypted_and_never_leaves_on_a_topic(system: System) -> None:
    one = await system.registered()
    system.at(DURING)
    note = "单位电话与本人所填不一致，请核对"
    assert (await system.at_desk("reject", one, reason_codes=["employer"], note=note)).status_code == 200
    (decision,) = await system.rows("select note from decisions")
    assert note.encode() not in bytes(decision["note"])
    assert note not in str(await system.rows("select payload from outbox"))
    seen = await system.call("GET", f"/cases/{one}", f"candidate:{one}")
    assert seen.json()["decisions"] == [
        {
            "kind": "rejected",
            "level": "desk",
            "by": "desk",
            "at": "2023-12-10T01:00:00+00:00",
            "form_version": 1,
            "reason_codes": ["employer"],
            "reasons": ["单位不符"],
            "note": note,
            "fix_until": None,
        }
    ]


WRONG_RETURNS: list[tuple[dict[str, Any], str]] = [
    ({"reason_codes": []}, "reason_codes"),
    ({"reason_codes": ["other"]}, "note"),
    ({"reason_codes": ["lazy"]}, "reason_codes.0"),
    ({"fix_until": "2023-12-12T18:00:00"}, "fix_until"),
    ({"fix_until": "2023-12-10T09:00:00+08:00"}, "fix_until"),
    ({"remark": "x"}, "remark"),
]


async def test_a_return_that_is_filled_in_wrongly_changes_nothing(system: System) -> None:
    one = await system.registered()
    system.at(DURING)
    before = await system.everything()
    for body, field in WRONG_RETURNS:
        refused = await system.at_desk("return", one, **body)
        assert (refused.status_code, refused.json()["code"]) == (422, Code.INVALID)
        assert [f["field"] for f in refused.json()["fields"]] == [field]
    assert await system.everything() == before


async def test_a_repeated_request_is_answered_again_and_done_once(system: System) -> None:
    one, two = await system.pre_registered(many=2)
    system.at(DURING)
    until = "2023-12-13T18:00:00+08:00"
    first = await system.at_desk("return", one, fix_until=until, key="k-1")
    again = await system.at_desk("return", one, fix_until=until, key="k-1")
    assert (again.status_code, again.json()) == (200, first.json())
    assert names(await system.said(one)) == ["returned"]
    other = await system.at_desk("return", one, reason_codes=["photo"], fix_until=until, key="k-1")
    assert (other.status_code, other.json()["code"]) == (409, Code.IDEMPOTENCY_CONFLICT)
    for_another = await system.at_desk("return", two, fix_until=until, key="k-1")
    assert for_another.json()["code"] == Code.IDEMPOTENCY_CONFLICT
    assert await system.said(two) == []
    # without a key it is a second return
    assert (await system.at_desk("return", one, fix_until=until)).json()["sequence"] == 2


async def test_a_registration_nobody_knows_is_not_found(system: System) -> None:
    system.at(DURING)
    assert (await system.confirm(uuid7())).status_code == 404
    assert (await system.call("GET", f"/cases/{uuid7()}", "office")).status_code == 404


async def test_confirming_takes_three_statements(system: System) -> None:
    one = await system.registered()
    system.at(DURING)
    with system.statements() as seen:
        assert (await system.confirm(one)).status_code == 200
    assert len(seen) == 3, seen


async def test_a_desk_lists_its_own_candidates_page_by_page(system: System) -> None:
    mine = sorted(await system.pre_registered(many=3))
    await system.pre_registered("wutongqiao")
    system.at(DURING)
    await system.confirm(mine[1])

    async def listed(query: str) -> tuple[list[str], str | None]:
        answer = (await system.call("GET", f"/desks/shizhong/cases{query}", "desk:shizhong")).json()
        return [item["registration_id"] for item in answer["items"]], answer["next"]

    ids = [str(one) for one in mine]
    assert await listed("?limit=2") == (ids[:2], ids[1])
    assert await listed(f"?limit=2&after={ids[1]}") == (ids[2:], None)
    assert await listed("?state=confirmed") == ([ids[1]], None)
    assert await listed("?state=lapsed") == ([], None)

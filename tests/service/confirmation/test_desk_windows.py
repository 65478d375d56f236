"""The office sets a desk's window or moves it; whoever waits for that desk is told."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from contracts import confirmation
from contracts.refusals import Code
from tests.service.confirmation.system import System, payload
from tests.support.under_test import names
from tests.unit.confirmation.cases import moment

OPENS, CLOSES = "2023-12-11T09:00:00+08:00", "2023-12-13T17:00:00+08:00"


async def test_an_undated_desk_gets_its_days(system: System) -> None:
    one, two = await system.pre_registered("municipal", many=2)
    elsewhere = await system.registered()
    at = system.at("2023-12-08 10:00")
    answer = await system.set_window("municipal", opens=OPENS, closes=CLOSES)
    assert answer.json() == {
        "site_id": "municipal",
        "opens_at": OPENS,
        "closes_at": CLOSES,
        "changed": True,
        "told": 2,
    }
    (told,) = await system.said(one)
    assert isinstance(told, confirmation.WindowMoved)
    assert (told.site_id, told.opens_at, told.closes_at, told.reason_code) == (
        "municipal",
        moment("2023-12-11 09:00"),
        moment("2023-12-13 17:00"),
        "announced",
    )
    assert told.envelope.time == at
    assert names(await system.said(two)) == ["window-moved"]
    assert await system.said(elsewhere) == []
    (set_,) = await system.said("2024-health-leshan:municipal")
    assert isinstance(set_, confirmation.DeskWindowSet)
    assert (set_.opens_at, set_.closes_at, set_.reason_code) == (told.opens_at, told.closes_at, "announced")
    assert told.envelope.correlation_id == set_.envelope.correlation_id
    # and now the desk works
    system.at("2023-12-11 08:59:59.999999")
    assert (await system.confirm(one, desk="municipal")).json()["code"] == Code.WINDOW_NOT_OPEN
    system.at("2023-12-13 16:59:59.999999")
    assert (await system.confirm(one, desk="municipal")).json()["sequence"] == 2
    system.at("2023-12-13 17:00")
    assert (await system.confirm(two, desk="municipal")).json()["code"] == Code.WINDOW_CLOSED
    await system.run_job()
    assert names(await system.said(two)) == ["window-moved", "lapsed"]


async def test_an_extension_keeps_people_from_lapsing_at_the_old_close(system: System) -> None:
    waiting, sent_back, done = await system.pre_registered(many=3)
    system.at("2023-12-10 09:00")
    await system.confirm(done)
    await system.at_desk("return", sent_back, fix_until="2023-12-12T09:00:00+08:00")
    await system.run_job()
    system.job.awake.clear()
    answer = await system.set_window("shizhong", closes="2023-12-16T12:00:00+08:00", reason="outage")
    assert (answer.json()["told"], answer.json()["opens_at"]) == (2, "2023-12-08T00:00:00+08:00")
    assert system.job.awake.is_set()
    assert names(await system.said(done)) == ["confirmed"], "who is confirmed has nothing to wait for"
    told = (await system.said(waiting))[-1]
    assert payload(told)["reason_code"] == "outage"
    # the time of a return is the candidate's own; the desk's window does not move it
    system.at("2023-12-12 09:00")
    await system.run_job()
    assert names(await system.said(sent_back)) == ["returned", "window-moved", "lapsed"]
    system.at("2023-12-14 12:00")
    await system.run_job()
    assert (await system.confirm(waiting)).status_code == 200


async def test_who_has_lapsed_stays_lapsed_and_is_not_told(system: System) -> None:
    one = await system.registered("ebian")
    system.at("2023-12-13 00:00")
    await system.run_job()
    answer = await system.set_window("ebian", closes="2023-12-15T00:00:00+08:00")
    assert answer.json()["told"] == 0
    assert names(await system.said(one)) == ["lapsed"]
    system.at("2023-12-14 09:00")
    assert (await system.confirm(one, desk="ebian")).json()["code"] == Code.NOT_ALLOWED


async def test_whose_time_was_over_lapses_even_if_the_job_had_not_come_round(system: System) -> None:
    one = await system.registered("ebian")
    system.at("2023-12-13 00:00")
    assert (await system.set_window("ebian", closes="2023-12-15T00:00:00+08:00")).json()["told"] == 0
    (lapsed,) = await system.said(one)
    assert datetime.fromisoformat(payload(lapsed)["closed_at"]) == moment("2023-12-13")


async def test_a_window_moved_twice_counts_its_versions_and_keeps_its_history(system: System) -> None:
    one = await system.registered("municipal")
    await system.set_window("municipal", opens=OPENS, closes=CLOSES)
    await system.set_window("municipal", closes="2023-12-14T17:00:00+08:00", reason="医院停电一天")
    await system.set_window("municipal", closes="2023-12-15T17:00:00+08:00", reason_code="other")
    again = await system.set_window("municipal", closes="2023-12-15T17:00:00+08:00")
    assert (again.status_code, again.json()["changed"], again.json()["told"]) == (200, False, 0)
    assert names(await system.said(one)) == ["window-moved"] * 3
    said = await system.said("2024-health-leshan:municipal")
    assert [(e.envelope.sequence, payload(e)["reason_code"]) for e in said] == [
        (1, "announced"),
        (2, "extended"),
        (3, "other"),
    ]
    history = await system.rows("select version, reason, actor from desk_window_changes order by version")
    assert [row["version"] for row in history] == [1, 2, 3]
    assert history[1]["reason"] == "医院停电一天"
    # The first naming took one person; what people had been told took two, and the second stands in the history.
    assert [row["actor"] for row in history] == ["account-of-office", *["another-of-the-office"] * 2]
    assert len(await system.rows("select 1 from audit where action = 'set-desk-window'")) == 3


WRONG_WINDOWS: list[tuple[dict[str, object], str]] = [
    ({"opens": OPENS, "closes": OPENS}, "opens"),
    ({"opens": CLOSES, "closes": OPENS}, "opens"),
    ({"opens": "2023-12-11T09:00:00", "closes": CLOSES}, "opens"),
    ({"opens": OPENS, "closes": "2023-12-13T17:00:00"}, "closes"),
    ({"opens": "2023-12-01T00:00:00+08:00", "closes": "2023-12-03T10:00:00+08:00"}, "closes"),
    ({"closes": CLOSES}, "opens"),
    ({"opens": OPENS}, "closes"),
    ({"opens": OPENS, "closes": CLOSES, "reason": ""}, "reason"),
    ({"opens": OPENS, "closes": CLOSES, "reason_code": "whim"}, "reason_code"),
]


async def test_a_window_that_cannot_be_is_refused(system: System) -> None:
    await system.registered("municipal")
    before = await system.everything()
    for body, field in WRONG_WINDOWS:
        refused = await system.set_window("municipal", **body)
        assert (refused.status_code, refused.json()["code"]) == (422, Code.INVALID)
        assert [f["field"] for f in refused.json()["fields"]] == [field]
    assert await system.everything() == before


async def test_a_desk_that_is_not_in_the_cycle_does_not_exist(system: System) -> None:
    assert (await system.set_window("atlantis", opens=OPENS, closes=CLOSES)).status_code == 404


async def test_telling_everybody_who_waits_is_one_statement(system: System) -> None:
    await system.pre_registered("municipal", many=2)
    await system.set_window("municipal", opens=OPENS, closes=CLOSES)
    with system.statements() as few:
        await system.set_window("municipal", closes="2023-12-14T17:00:00+08:00")
    await system.pre_registered("municipal", many=300)
    with system.statements() as many:
        answer = await system.set_window("municipal", closes="2023-12-15T17:00:00+08:00")
    assert answer.json()["told"] == 302
    assert len(many) == len(few)


async def asked(system: System, closes: str, site: str = "ebian") -> dict[str, Any]:
    body = {"closes": closes, "reason": "outage"}
    answer = await system.call("POST", f"/office/desk-windows/{site}", "office", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["asked"]
    return found


async def test_another_window_of_a_dated_desk_takes_two_people_and_nobody_lapses_meanwhile(
    system: System,
) -> None:
    one = await system.registered("ebian")
    system.at("2023-12-12 23:59:59.999999")
    ask = await asked(system, "2023-12-15T00:00:00+08:00")
    assert ask["waiting"] == 1
    own = await system.decide_window("ebian", ask["ask_id"], "approve", "account-of-office")
    assert (own.status_code, own.json()["code"]) == (403, Code.FORBIDDEN)
    system.at("2023-12-13 09:00")
    assert await system.run_job() is not None
    assert await system.said(one) == []
    approved = await system.decide_window("ebian", ask["ask_id"], "approve")
    assert (approved.status_code, approved.json()["told"]) == (200, 1)
    assert (await system.decide_window("ebian", ask["ask_id"], "reject")).json()["code"] == Code.NOT_ALLOWED
    await system.run_job()
    assert names(await system.said(one)) == ["window-moved"]
    assert (await system.confirm(one, desk="ebian")).status_code == 200


async def test_what_is_rejected_or_decided_by_nobody_lets_them_lapse(system: System) -> None:
    one = await system.registered("ebian")
    other = await system.registered("gaoxin")
    system.at("2023-12-12 20:00")
    ask = await asked(system, "2023-12-15T00:00:00+08:00")
    late = await asked(system, "2023-12-14T00:00:00+08:00", "gaoxin")
    again = {"closes": "2023-12-16T00:00:00+08:00", "reason": "outage"}
    refused = await system.call("POST", "/office/desk-windows/ebian", "office", again)
    assert (refused.status_code, refused.json()["code"]) == (409, Code.NOT_ALLOWED)
    system.at("2023-12-13 00:00")
    await system.run_job()
    system.job.awake.clear()
    assert (await system.decide_window("ebian", ask["ask_id"], "reject")).json()["changed"] is False
    assert system.job.awake.is_set()
    assert await system.run_job() == moment("2023-12-14")
    assert names(await system.said(one)) == ["lapsed"]
    assert await system.said(other) == []
    system.at("2023-12-14 00:00")
    await system.run_job()
    assert names(await system.said(other)) == ["lapsed"]
    answer = await system.decide_window("gaoxin", late["ask_id"], "approve")
    assert answer.json()["code"] == Code.NOT_ALLOWED


EARLIER = "2023-12-13T12:00:00+08:00"


async def test_an_earlier_close_may_cost_one_in_a_hundred_of_a_desk_their_time(system: System) -> None:
    (late,) = await system.pre_registered()
    confirmed = await system.confirmed(many=98)
    body = {"closes": EARLIER, "reason": "设备检修"}
    before = await system.everything()
    refused = await system.call("POST", "/office/desk-windows/shizhong", "office", body)
    assert (refused.status_code, refused.json()["code"]) == (409, Code.NOT_ALLOWED)
    assert refused.json()["hints"] == {"would_fall": 1, "registered": 99}
    assert await system.everything() == before
    # A hundredth is enough; who is out of it, or has a time of their own, counts on neither side.
    sent_back, out = await system.pre_registered(many=2)
    await system.at_desk("return", sent_back, fix_until="2023-12-14T09:00:00+08:00")
    await system.at_desk("reject", out)
    ask = await asked(system, EARLIER, "shizhong")
    assert ask["waiting"] == 2
    # Between asking and approval one more has come.
    (another,) = await system.pre_registered()
    approved = await system.decide_window("shizhong", ask["ask_id"], "approve")
    assert (approved.status_code, approved.json()["hints"]["would_fall"]) == (409, 2)
    assert (await system.confirm(another)).status_code == 200
    approved = await system.decide_window("shizhong", ask["ask_id"], "approve")
    assert (approved.status_code, approved.json()["told"]) == (200, 2)
    assert names(await system.said(late)) == ["window-moved"]
    assert len(confirmed) == 98
    system.at("2023-12-13 12:00")
    await system.run_job()
    assert names(await system.said(late)) == ["window-moved", "lapsed"]
    assert names(await system.said(sent_back)) == ["returned", "window-moved"]


async def test_a_later_close_and_an_opening_that_moves_cost_nobody_anything(system: System) -> None:
    await system.pre_registered(many=3)
    for body in (
        {"closes": "2023-12-14T12:00:00.000001+08:00"},
        {"opens": "2023-12-09T00:00:00+08:00", "closes": "2023-12-14T12:00:00.000001+08:00"},
    ):
        assert (await system.set_window("shizhong", **body)).json()["told"] == 3
    sooner = await system.set_window("shizhong", closes="2023-12-14T12:00:00+08:00")
    assert (sooner.status_code, sooner.json()["hints"]["would_fall"]) == (409, 3)

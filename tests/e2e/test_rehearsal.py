"""A whole cycle over real PostgreSQL and real Kafka, person by person as the independent model says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contracts.cycle import Cycle
from deploy.rehearsal import commands, people_file
from deploy.rehearsal.crowd import crowd
from deploy.rehearsal.people import People, Person
from tests.model.office import Predicted, predict

pytestmark = pytest.mark.e2e

CYCLE = Path(__file__).parents[2] / "deploy" / "cycles" / "2024-health-leshan.toml"
EDGES = Path(__file__).parent / "edges.jsonl"
SEED = 20231201
CROWD = 12


@dataclass(frozen=True)
class Rehearsed:
    exit_code: int
    report: Path
    outcomes: dict[str, dict[str, Any]]
    predicted: dict[str, Predicted]
    summary: dict[str, Any]


def everybody() -> People:
    """The edges by hand, and a seeded crowd after them."""
    edges = people_file.read(EDGES)
    seeded = crowd(Cycle.read(CYCLE), CROWD, SEED)
    after = 1 + max(*(one.line for one in edges.persons), *(one.line for one in edges.world))
    persons = [
        Person(
            one.name, one.site, one.specialty, one.subjects, one.returning, one.steps, one.same_person_as, one.given,
            one.line + after,
        )
        for one in seeded.persons
    ]  # fmt: skip
    return People((*edges.persons, *persons), edges.world)


@pytest.fixture(scope="module")
async def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    directory = tmp_path_factory.mktemp("rehearsal")
    people = directory / "people.jsonl"
    people_file.write(everybody(), people)
    report = directory / "report"
    exit_code = await commands.rehearse(
        cycle=CYCLE, candidates=1, seed=SEED, people=people, report=report, data=directory / "system"
    )
    lines = (report / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    return Rehearsed(
        exit_code,
        report,
        {one["person"]: one for one in map(json.loads, lines)},
        predict(people.read_text(encoding="utf-8").split("\n")),
        json.loads((report / "report.json").read_text(encoding="utf-8")),
    )


def differences(rehearsed: Rehearsed) -> Iterator[str]:
    for name, predicted in rehearsed.predicted.items():
        outcome = rehearsed.outcomes[name]
        refused = [(one["step"], one["code"]) for one in outcome["refused"]]
        told = Counter((one["occasion"], one["channel"], one["state"]) for one in outcome["messages"])
        if outcome["state"] != predicted.state:
            yield f"{name}: {outcome['state']}, the rules say {predicted.state}"
        if outcome["paid_fen"] != predicted.paid_fen:
            yield f"{name}: paid {outcome['paid_fen']} fen, the rules say {predicted.paid_fen}"
        if outcome["refunded_fen"] != predicted.refunded_fen:
            yield f"{name}: {outcome['refunded_fen']} fen went back, the rules say {predicted.refunded_fen}"
        if sorted(refused) != sorted(predicted.refused):
            yield f"{name}: refused {refused}, the rules say {predicted.refused}"
        if told != predicted.messages:
            yield f"{name}: told {dict(told - predicted.messages)} instead of {dict(predicted.messages - told)}"


async def test_everybody_ends_as_the_rules_say(rehearsed: Rehearsed) -> None:
    assert list(differences(rehearsed)) == []


async def test_nobody_is_missing_and_nobody_is_invented(rehearsed: Rehearsed) -> None:
    assert rehearsed.outcomes.keys() == rehearsed.predicted.keys()


async def test_every_invariant_holds_at_the_end(rehearsed: Rehearsed) -> None:
    assert rehearsed.exit_code == 0
    assert [one for one in rehearsed.summary["invariants"] if not one["ok"]] == []


async def test_every_fault_was_really_reached(rehearsed: Rehearsed) -> None:
    faults = rehearsed.summary["faults"]
    for fault in (
        "kill notification",
        "freeze confirmation",
        "broker-down",
        "database-restart",
        "callback-replay",
        "sms-down",
        "wechat-down",
    ):
        assert faults.get(fault, 0) > 0, faults


async def test_what_the_office_cannot_do_is_said(rehearsed: Rehearsed) -> None:
    refused = [one for one in rehearsed.summary["world"] if one["outcome"].startswith("refused")]
    assert [(one["do"], one.get("window") or one["person"]) for one in refused] == [
        ("extend", "pre-registration"),
        ("revive", "not-to-be-revived"),
        ("revive", "early"),
    ]
    window, paid, stranger = (one["outcome"] for one in refused)
    assert "pre-registration window cannot be moved" in window
    assert paid.startswith("refused: not-allowed 该考生目前不是“视为自动放弃”状态")
    assert stranger == "refused: early is not registered; nothing was changed"


async def test_two_people_lift_single_forfeitures(rehearsed: Rehearsed) -> None:
    assert rehearsed.summary["faults"]["two-person-revival"] == 2
    occasions = [one["occasion"] for one in rehearsed.outcomes["revived"]["messages"]]
    assert [one for one in ("expired", "reinstated", "paid") if one in occasions] == [
        "expired",
        "reinstated",
        "paid",
    ]
    assert rehearsed.outcomes["revived-in-vain"]["state"] == "expired"


async def test_whoever_the_gateway_gave_no_answer_about_was_held_and_then_decided(
    rehearsed: Rehearsed,
) -> None:
    """At the close nobody is forfeited on silence; half an hour later the gateway has said what was paid."""
    assert rehearsed.summary["close"]["published"]["counts"]["held"] >= 2
    assert rehearsed.summary["funnel"]["held"] == 0
    decided = {name: rehearsed.outcomes[name]["state"] for name in ("held-then-paid", "held-then-forfeited")}
    assert decided == {"held-then-paid": "paid", "held-then-forfeited": "expired"}


async def test_two_people_put_the_close_of_one_desk_off_after_it_had_come(rehearsed: Rehearsed) -> None:
    (moved,) = [one for one in rehearsed.summary["world"] if one.get("window") == "payment:jinkouhe"]
    assert moved["outcome"] == "done: 0 moved, 3 taken back"
    assert rehearsed.summary["faults"]["two-person-move"] == 2
    told = {
        name: [one["occasion"] for one in rehearsed.outcomes[name]["messages"]]
        for name in ("put-off", "not-put-off")
    }
    assert "reinstated" in told["put-off"]
    assert "reinstated" not in told["not-put-off"]


async def test_messages_keep_the_quiet_hours(rehearsed: Rehearsed) -> None:
    """No SMS between 22:00 and 08:00 but those that would come too late."""
    zone = Cycle.read(CYCLE).zone
    at_night = [
        one
        for outcome in rehearsed.outcomes.values()
        for one in outcome["messages"]
        # What ran out did so three days after it had been sent.
        if (one["channel"] == "sms" and one["state"] != "expired")
        and not 8 <= people_file.moment(one["at"]).astimezone(zone).hour < 22
    ]
    assert {one["occasion"] for one in at_night} <= {"closing-soon", "amended", "returned", "pre-registered"}


async def test_whoever_no_channel_reached_is_on_the_list_of_their_desk(rehearsed: Rehearsed) -> None:
    """The model says what arrived; of the last reminder and of the forfeiture nobody is left untold by all."""
    lost = {
        name
        for name, predicted in rehearsed.predicted.items()
        for occasion in ("expired", "reinstated", "rejected", "lapsed")
        if {state for told, _, state in predicted.messages if told == occasion} == {"undelivered"}
    }
    assert "p0008" in lost
    assert lost == {one["person"] for one in rehearsed.summary["calls"] if one["occasion"] != "closing-soon"}
    last_day, ended = sorted(
        (one for one in rehearsed.summary["calls"] if one["person"] == "p0008"),
        key=lambda one: one["occasion"],
    )
    assert last_day["occasion"] == "closing-soon"
    assert last_day["outcome"] in ("settled", "over"), "the close came"
    assert (ended["occasion"], ended["outcome"], ended["reason_code"]) == (
        "expired",
        None,
        "number-not-in-use",
    )
    assert {one["phone"] for one in (last_day, ended)} == {"199****0008"}


async def test_the_funnel_counts_every_message_once_with_whoever_had_it(rehearsed: Rehearsed) -> None:
    ways, occasions = rehearsed.summary["message_funnel"], rehearsed.summary["messages"]
    by_state = Counter[tuple[str, str, str]]()
    for way in ways:
        known = {"occasion", "channel", "provider", "messages"}
        by_state.update(
            {(way["occasion"], way["channel"], state): n for state, n in way.items() if state not in known}
        )
        assert sum(n for state, n in way.items() if state not in known) == way["messages"]
    assert by_state == Counter(
        {
            (occasion, channel, state): n
            for occasion, channels in occasions.items()
            for channel, states in channels.items()
            for state, n in states.items()
        }
    )
    assert {way["provider"] for way in ways if way["channel"] == "sms"} >= {"aliyun", "tencent"}
    untold = {(one["person"], one["channel"], one["reason_code"]) for one in rehearsed.summary["undelivered"]}
    assert untold >= {
        ("p0005", "sms", "number-not-in-use"),
        ("p0006", "sms", "no-receipt"),
        ("p0007", "email", "mailbox-full"),
        ("p0008", "sms", "number-not-in-use"),
        ("p0008", "email", "mailbox-unknown"),
    }


async def test_the_report_can_be_run_again(rehearsed: Rehearsed) -> None:
    assert people_file.read(rehearsed.report / "people.jsonl").persons
    page = (rehearsed.report / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "缴费截止，逐分钟" in page


async def test_the_sums_of_the_report_agree(rehearsed: Rehearsed) -> None:
    summary = rehearsed.summary
    assert sum(summary["funnel"].values()) == len(rehearsed.outcomes)
    assert sum(sum(states.values()) for states in summary["by_site"].values()) == len(rehearsed.outcomes)
    assert summary["money"]["received"] == sum(one["paid_fen"] for one in rehearsed.outcomes.values())


async def test_check_finds_the_same_over_the_system_that_was_left(
    rehearsed: Rehearsed, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code = await commands.check(data=rehearsed.report.parent / "system", given=False, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert exit_code == 0
    assert [one["id"] for one in said["invariants"]] == [one["id"] for one in rehearsed.summary["invariants"]]

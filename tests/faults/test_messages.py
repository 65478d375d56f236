"""What carriers do to a message: rows 8 and 51 to 55 of the fault matrix, at both carriers of SMS and at the mail relay.

Notification is alone, and people are told that their place is lost: the message that matters most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from deploy.simulators.sms_carrier import DEAD_PREFIX, SILENT_PREFIX
from services.chassis.wire import Wires
from services.notification.domain.life import LEASE
from services.notification.domain.providers import PROBES
from tests.faults.telling import NOTIFICATION, Person, Telling, telling

pytestmark = pytest.mark.faults

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
SHARE: Final = "NOTIFICATION_SMS_SHARE_OF_TENCENT"
CONTROL: Final = {"aliyun": "sms", "tencent": "tencent"}  # a carrier's name at the simulators' control
OVER: Final = "Throttling.User", "RequestLimitExceeded"
PAST_THE_LIMITS: Final = ("isv.BUSINESS_LIMIT_CONTROL", "LimitExceeded.")
PEOPLE: Final = 30
ONLY: Final = {"aliyun": {SHARE: "0"}, "tencent": {SHARE: "100"}, "smtp": {}}


def _states(rows: Sequence[Any]) -> set[str]:
    return {row["state"] for row in rows}


async def _asked(told: Telling) -> int:
    return sum(book["asked"] for book in (await told.books()).values())


@pytest.mark.parametrize("carrier", ["aliyun", "tencent", "smtp"])
async def test_killed_between_a_carriers_yes_and_our_note_of_it_nobody_is_untold_and_nobody_told_three_times(
    tmp_path: Path, carrier: str
) -> None:
    """Row 8. A carrier of SMS is asked by our reference and has it: no copy. A mail server cannot be asked: one, counted."""
    point = "email-accepted" if carrier == "smtp" else "sms-accepted"
    async with telling(tmp_path) as told:
        people = await told.know(PEOPLE)
        await told.away()
        if carrier == "aliyun":
            # Nobody hears by itself what became of it, before the one that takes over has to find out.
            await told.outside("sms/receipts", delay=(LEASE + 2 * MINUTE).total_seconds())
        await told.say(told.expired, people, heard=False)
        await told.dies_at(point, 12, **ONLY[carrier])
        await told.taken_over()
        twice = await told.nothing_lost("expired", people)
        told.reached["asked by our reference"] += await _asked(told)
        rows = await told.of("expired", people)
    assert told.reached[f"died at {point}"] == 1
    assert told.reached["a carrier had it and nobody here knew"]
    assert told.reached[f"{carrier} had it and nobody here knew"]
    assert max(row["ambiguous"] for row in rows) <= 1
    assert not {name: copies for name, copies in twice.items() if name != "smtp"}
    if carrier == "smtp":
        # One mail that nobody here knew of is one that goes out again: at most one each, and counted.
        assert twice["smtp"] == told.reached["smtp had it and nobody here knew"]
    else:
        assert told.reached["asked by our reference"]


@pytest.mark.parametrize("carrier", ["aliyun", "tencent"])
async def test_a_carrier_that_throttles_for_an_hour_is_left_alone_while_the_other_and_mail_go_on(
    tmp_path: Path, carrier: str
) -> None:
    """Row 51, 429. Whom it does not take the other one takes, at once; a few try it now and then, and once it answers them its
    share grows with what it answers."""
    async with telling(tmp_path) as told:
        await told.outside(f"{CONTROL[carrier]}/throttle", seconds=3600)
        first = await told.know(60)
        await told.say(told.expired, first)
        await told.passes(5 * MINUTE, MINUTE)
        assert _states(await told.of("expired", first)) <= {"accepted", "delivered"}
        calls = [await _throttled(told, carrier)]
        assert 0 < calls[0] <= len(first), "each message knocked there once at most"
        second = []
        for _ in range(6):
            await told.passes(3 * MINUTE)
            second += (some := await told.know(20))
            await told.say(told.expired, some)
            await told.passes(MINUTE)
        await told.passes(2 * MINUTE, MINUTE)
        assert _states(await told.of("expired", second)) <= {"accepted", "delivered"}
        calls.append(await _throttled(told, carrier) - calls[0])
        assert 0 < calls[1] <= 6 * PROBES, (
            f"{calls[1]} calls in six waves at a carrier that is known to refuse"
        )
        assert not (await told.books())[CONTROL[carrier]]["messages"]
        told.reached["calls that were throttled"] += sum(calls)
        await told.passes(HOUR, 10 * MINUTE)
        third, taken = [], list[int]()
        for _ in range(6):
            third += (some := await told.know(60))
            await told.say(told.expired, some)
            await told.rests()
            await told.passes(MINUTE)
            taken.append(len((await told.books())[CONTROL[carrier]]["messages"]))
        assert taken[0] == PROBES, "after an hour in which nobody knew how it was"
        told.reached["it had its share again"] += taken[5] - taken[4]
        assert not await told.nothing_lost("expired", [*first, *second, *third])
    assert told.reached["calls that were throttled"]
    assert told.reached["it had its share again"] >= 15


async def _throttled(told: Telling, carrier: str) -> int:
    refused: Mapping[str, int] = (await told.books())[CONTROL[carrier]]["refused"]
    return sum(refused.get(code, 0) for code in OVER)


@pytest.mark.parametrize("away", [("aliyun",), ("tencent",), ("aliyun", "tencent")], ids="+".join)
async def test_a_carrier_that_answers_503_for_an_hour_makes_no_storm_and_loses_nobody(
    tmp_path: Path, away: tuple[str, ...]
) -> None:
    """Row 51, 5xx. Such an answer does not say whether it took the message, so what it had waits for it, further and
    further apart; everything else, and mail, goes on."""
    async with telling(tmp_path) as told:
        for carrier in away:
            await told.outside(f"{CONTROL[carrier]}/down", seconds=3600, how="refuse")
        people = await told.know(60)
        await told.say(told.expired, people)
        await told.passes(3 * MINUTE, MINUTE)
        assert _states(await told.of("expired", people, "email")) == {"delivered"}
        there = [row for row in await told.of("expired", people, "sms") if row["state"] != "created"]
        assert _states(there) <= {"accepted", "delivered"}
        assert {row["provider"] for row in there} == {"aliyun", "tencent"} - set(away)
        await told.passes(57 * MINUTE, 3 * MINUTE)
        calls = {one: await told.reached_by(f"{CONTROL[one]}-down") for one in away}
        await told.passes(3 * HOUR, 15 * MINUTE)
        assert not await told.nothing_lost("expired", people)
    told.reached["calls that met 503"] += min(calls.values())
    assert told.reached["calls that met 503"]
    assert sum(calls.values()) <= 8 * len(people), f"{calls} calls in an hour for {len(people)} messages"


async def test_whether_an_unanswered_sms_was_taken_is_asked_by_our_reference_before_it_is_sent_again(
    tmp_path: Path,
) -> None:
    """Row 52: both carriers take what they are given and say nothing until our patience ends."""
    async with telling(tmp_path) as told:
        for name in CONTROL.values():
            await told.outside(f"{name}/down", seconds=50, how="swallow")
        people = await told.know(PEOPLE)
        await told.say(told.expired, people)
        await told.rests()
        swallowed = [await told.reached_by(f"{name}-down") for name in CONTROL.values()]
        assert all(swallowed), swallowed
        told.reached["taken without an answer"] += sum(swallowed)
        assert await told.rows("ambiguous > 0 and channel = 'sms'")
        await told.taken_over()
        assert not await told.nothing_lost("expired", people)
        told.reached["found by our reference"] += int(await told.metric("kaowu_messages_found"))
        assert await _asked(told) >= told.reached["found by our reference"]
    assert told.reached["taken without an answer"]
    # Carriers that gave no answer are asked by a few at a time; of the others receipts may come first.
    assert 0 < told.reached["found by our reference"] <= told.reached["taken without an answer"]


async def test_what_its_carrier_cannot_be_asked_about_goes_out_once_more_at_most_and_is_counted(
    tmp_path: Path,
) -> None:
    """Row 52 where nobody can know: a carrier that lists only what has a receipt and gives none, and a mail relay."""
    async with telling(tmp_path, **{SHARE: "100"}) as told:
        await told.outside("tencent/receipts", never=True)
        await told.outside("tencent/down", seconds=50, how="swallow")
        await told.outside("mail/down", seconds=50, how="lose")
        people = await told.know(10)
        await told.say(told.expired, people)
        await told.rests()
        met = {name: await told.reached_by(f"{name}-down") for name in ("tencent", "mail")}
        assert all(met.values()), met
        asked = await _asked(told)
        await told.passes(9 * MINUTE, MINUTE)
        told.reached["asked before it was sent again"] += await _asked(told) - asked
        assert max((await told.copies()).values()) <= 2
        await told.passes(11 * MINUTE, MINUTE)
        twice = await told.nothing_lost("expired", people)
        assert max((await told.copies()).values()) == 2
    told.reached["a second SMS, counted"] += twice["tencent"]
    told.reached["a second mail, counted"] += twice["smtp"]
    assert told.reached["asked before it was sent again"]
    assert told.reached["a second SMS, counted"]
    assert told.reached["a second mail, counted"]


async def test_what_a_carrier_allows_one_number_is_kept_to_by_waiting_and_it_never_has_to_refuse(
    tmp_path: Path,
) -> None:
    """Row 53: a hospital's office gave its one number for everybody. Tencent: ten a day of the calendar, the same words once
    in 30 seconds. Aliyun: fifty of one text in 24 hours."""
    async with telling(tmp_path) as told:
        # Two of each pair have the same last four of their number, so the same words.
        people = await told.know(70, phone=lambda _: "13900000000", tail=lambda n: n // 2)
        await told.say(told.expired, people)
        await told.rests()
        told.reached["waited for the 30 seconds"] += await _waits(told, people, MINUTE)
        await told.passes(5 * MINUTE, timedelta(seconds=30))
        taken = {name: len(book["messages"]) for name, book in (await told.books()).items()}
        assert taken == {"sms": 50, "tencent": 10}
        told.reached["waited for another day"] += await _waits(told, people, timedelta(days=2), HOUR)
        assert told.reached["waited for another day"] == 10
        assert (
            len([row for row in await told.of("expired", people, "sms") if row["state"] == "created"]) == 10
        )
        await told.passes(timedelta(days=1) + MINUTE, timedelta(hours=12))
        await told.passes(5 * MINUTE, timedelta(seconds=30))
        assert not await told.nothing_lost("expired", people)
        refused = {code for book in (await told.books()).values() for code in book["refused"]}
        assert not [code for code in refused if code.startswith(PAST_THE_LIMITS)], refused
    assert told.reached["waited for the 30 seconds"]
    assert told.reached["waited for another day"]


async def _waits(
    told: Telling, people: Sequence[Person], most: timedelta, least: timedelta = timedelta(0)
) -> int:
    """How many of their SMS are neither sent nor given up, and come due so far from now."""
    now = told.system.clock.now()
    rows = [row for row in await told.of("expired", people, "sms") if row["state"] == "created"]
    assert all(row["claims"] == row["tries"] == 0 for row in rows), "what waits was never tried"
    return sum(now + least < row["due_at"] <= now + most for row in rows)


async def test_whom_no_sms_reaches_a_mail_reaches_and_whom_no_mail_reaches_a_desk_calls(
    tmp_path: Path,
) -> None:
    """Row 54: numbers that are not in use, and numbers of which nothing is ever heard."""
    async with telling(tmp_path) as told:
        gone, mute = (lambda n: f"{DEAD_PREFIX}{n:04d}"), (lambda n: f"{SILENT_PREFIX}{n:04d}")
        dead, silent = await told.know(8, gone), await told.know(8, mute)
        dead_alone = await told.know(8, gone, lambda _: "nobody@example.cn")
        silent_alone = await told.know(8, mute, lambda _: "nobody@example.cn")
        everybody = [*dead, *silent, *dead_alone, *silent_alone]
        await told.say(told.expired, everybody)
        await told.passes(10 * MINUTE, MINUTE)
        for people in (dead, dead_alone):
            rows = await told.of("expired", people, "sms")
            assert {(row["state"], row["reason_code"]) for row in rows} == {
                ("undelivered", "number-not-in-use")
            }
            told.reached["空号"] += len(rows)
        assert _states(await told.of("expired", silent, "sms")) == {"accepted"}
        assert _states(await told.of("expired", [*dead, *silent], "email")) == {"delivered"}
        on_the_list = {(one.id, "number-not-in-use") for one in dead_alone}
        await told.eventually(
            lambda: _to_call(told, on_the_list), "who can be reached by nothing, to be called"
        )
        await told.passes(timedelta(hours=25), timedelta(hours=5))
        on_the_list |= {(one.id, "unconfirmed") for one in silent_alone}
        await told.eventually(lambda: _to_call(told, on_the_list), "who was reached by nothing, to be called")
        told.reached["on the desk's list"] += len(on_the_list)
        await told.passes(timedelta(hours=48), timedelta(hours=12))
        no_receipt = "channel = 'sms' and state = 'expired' and reason_code = 'no-receipt'"

        async def ran_out() -> bool:
            return len(await told.rows(no_receipt)) == len(silent) + len(silent_alone)

        await told.eventually(ran_out, "all without a receipt running out")
        assert {row["registration_id"] for row in await told.rows(no_receipt)} == {
            one.id for one in (*silent, *silent_alone)
        }
        told.reached["no receipt in 72 hours"] += len(await told.rows(no_receipt))
        shown = await _office(told, "office/messages?limit=5000")
        seen = [one for one in shown["items"] if one["reason_code"] in ("number-not-in-use", "no-receipt")]
        assert len(seen) == len(everybody)
        told.reached["asked what became of it"] += await _asked(told)
        assert max((await told.copies()).values()) == 1
    assert told.reached["空号"] == 16
    assert told.reached["no receipt in 72 hours"] == 16
    assert told.reached["on the desk's list"] == 16
    assert told.reached["asked what became of it"] >= 16


async def _office(told: Telling, path: str) -> Mapping[str, Any]:
    """As somebody of the office sees it."""
    token = told.system.mint(["office"], "an-officer")
    url = f"{told.system.services[NOTIFICATION].public_url}/{path}"
    async with Wires(connections=1, patience=30.0, limit=1 << 24) as wires:
        answer = await wires.request("GET", url, {"authorization": f"Bearer {token}"})
    assert answer.status == 200, answer
    found: Mapping[str, Any] = orjson.loads(answer.body)
    return found


async def _to_call(told: Telling, whom: set[tuple[Any, str]]) -> bool:
    """Whether these are on the list, and why, and nobody else."""
    rows = await told.database.fetch("select registration_id, reason_code from calls where closed_at is null")
    shown = await _office(told, "office/messages/calls?limit=1000")
    assert len(shown["items"]) == len(rows)
    assert set(map(tuple, rows)) <= whom, "nobody need call them"
    return set(map(tuple, rows)) == whom


async def test_a_forfeiture_that_is_lifted_while_its_message_waits_is_not_told(tmp_path: Path) -> None:
    """Row 55. By night SMS wait for eight o'clock; meanwhile the relay is away, so mails wait too."""
    async with telling(tmp_path) as told:
        await told.passes(timedelta(hours=13))
        await told.outside("mail/down", seconds=8 * 3600, how="refuse")
        lifted, found, late, others = [await told.know(10) for _ in range(4)]
        everybody = [*lifted, *found, *late, *others]
        await told.say(told.expired, everybody)
        await told.rests()
        assert _states(await told.of("expired", everybody)) == {"created"}
        await told.say(told.reinstated, lifted)
        await told.say(told.found_paid, found)
        await told.say(told.paid, found)
        await told.say(
            told.refunded, late
        )  # what came after the close goes back: the place is lost all the same
        await told.passes(timedelta(hours=13), 30 * MINUTE)
        stale = await told.of("expired", [*lifted, *found])
        assert _states(stale) == {"superseded"}
        copies = await told.copies()
        assert not [row for row in stale if copies[str(row["message_id"])]], (
            "told although it was not true any more"
        )
        told.reached["superseded"] += len(stale)
        told.reached["superseded, in the log"] += await told.log_lines("superseded")
        for occasion, people in (
            ("reinstated", [*lifted, *found]),
            ("paid", found),
            ("refunded", late),
            ("expired", [*late, *others]),
        ):
            await told.nothing_lost(occasion, people)
    assert told.reached["superseded"] == 40
    assert told.reached["superseded, in the log"] == told.reached["superseded"]

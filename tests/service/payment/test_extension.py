"""Two people of the office move the close of the payment window: nobody is forfeited meanwhile, everybody is told."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from contracts import payment
from tests.service.payment.system import CLOSES, System, moment, rejected
from tests.service.payment.two_people import ASKS, DECIDES, INSTANT, LATER, Office, closes, words


@pytest.fixture
def office(system: System) -> Office:
    return Office(system)


# --- before the close


async def test_an_extension_is_asked_for_previewed_approved_by_another_and_done(
    system: System, office: Office
) -> None:
    owes, pays, gone = await system.approved(3)
    await system.paid_and_heard(await system.ordered(pays))
    await system.deliver(rejected(gone))
    system.at("2024-02-08 12:00")
    decision = await office.asked()
    assert decision["state"] == "asked"
    assert decision["preview"] == {
        "moved": 1,
        "reinstated": 0,
        "would_fall": 0,
        "approved": 2,
        "paid": 1,
        "refunded": 0,
        "orders_under_way": 0,
        "without_site": 0,
        "told": 1,
    }
    assert await closes(system, owes) == moment(CLOSES), "asked is not done"
    assert (await office.approve(decision))["state"] == "under-way"
    assert system.carry_out_job.awake.is_set()
    await system.carry_out_job.run()
    assert await words(system, [owes, pays, gone]) == [["due", "window-moved"], ["due", "paid"], ["due"]]
    moved = (await system.said(owes))[-1]
    assert moved == payment.WindowMoved(
        cycle_id=system.cycle.id,
        registration_id=owes,
        closes_at=moment(LATER),
        reason_code="outage",
        counts=payment.MovedCounts(awaiting=1, reinstated=0),
    )
    done = await office.read(decision)
    assert (done["state"], done["done"], done["asked_by"], done["decided_by"]) == (
        "done",
        {"moved": 1, "reinstated": 0},
        ASKS,
        DECIDES,
    )
    assert done["reason"] == "系统故障，顺延两天"
    # Nobody falls at the old close; whoever pays before the new one has paid in time.
    system.at(CLOSES)
    assert await system.close() == moment(LATER)
    assert await system.status(owes) == "awaiting"
    system.clock.jump(moment(LATER) - timedelta(minutes=10))
    order = await system.ordered(owes)
    system.clock.jump(moment(LATER) - INSTANT)
    await system.paid_and_heard(order)
    assert await system.words(owes) == ["due", "window-moved", "paid"]


async def test_each_desk_says_its_new_close_once(system: System, office: Office) -> None:
    await office.extend()
    said = await system.said(f"{system.cycle.id}:ebian")
    assert said == [
        payment.SiteWindowSet(
            cycle_id=system.cycle.id,
            site_id="ebian",
            closes_at=moment(LATER),
            told_closes_at=moment(LATER),
            reason_code="outage",
        )
    ]
    rows = await system.rows("select count(*) as n from outbox where type = $1", payment.SiteWindowSet.type)
    assert rows[0]["n"] == len(system.cycle.sites)


async def test_whoever_is_approved_after_it_owes_until_the_new_close(system: System, office: Office) -> None:
    await office.extend()
    system.at("2024-02-09 10:00")
    late = await system.owing()
    (due,) = await system.said(late)
    assert isinstance(due, payment.Due)
    assert due.closes_at == moment(LATER)
    await system.close()
    assert await system.status(late) == "awaiting"


async def test_reminders_move_with_the_close_and_none_is_sent_for_a_moment_that_had_passed(
    system: System, office: Office
) -> None:
    candidate = await system.owing()
    system.at("2024-02-08 21:59")
    await system.remind()
    before = await system.words(candidate)
    await office.extend()  # 50 hours before the new close: of its reminders three lie in the past
    assert await system.remind() == moment("2024-02-10 00:00")
    assert await system.words(candidate) == [*before, "window-moved"]
    system.at("2024-02-08 22:00")  # the old close's last reminder
    await system.remind()
    assert await system.words(candidate) == [*before, "window-moved"]
    system.at("2024-02-10 00:00")
    await system.remind()
    told = (await system.said(candidate))[-1]
    assert isinstance(told, payment.ClosingSoon)
    assert (told.closes_at, told.offset) == (moment(LATER), 86_400)


# --- two people


async def test_whoever_asks_cannot_decide_and_is_told_why_in_their_language(
    system: System, office: Office
) -> None:
    decision = await office.asked()
    for word in ("approve", "reject"):
        answer = await office.say(decision, word, ASKS)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert answer.json()["detail"].startswith("提出人不能自己")
        english = await office.say(decision, word, ASKS, language="en-GB")
        assert english.json()["detail"].startswith("Whoever asked for it cannot decide it")
    assert (await office.read(decision))["state"] == "asked"


async def test_the_database_itself_refuses_a_verdict_of_whoever_asked(system: System, office: Office) -> None:
    decision = await office.asked()
    with pytest.raises(Exception, match="two_people"):
        await system.write(
            "insert into verdicts (decision_id, word, asked_by, decided_by, decided_at, figures) "
            "values ($1, 'approved', $2, $2, now(), '{}')",
            UUID(decision["decision_id"]),
            ASKS,
        )
    with pytest.raises(Exception, match="fk_verdicts_decision_id_asked_by"):
        await system.write(
            "insert into verdicts (decision_id, word, asked_by, decided_by, decided_at, figures) "
            "values ($1, 'approved', 'somebody else', $2, now(), '{}')",
            UUID(decision["decision_id"]),
            ASKS,
        )


async def test_decisions_are_only_ever_added_to(system: System, office: Office) -> None:
    await office.extend()
    for table in ("decisions", "verdicts", "carried_out"):
        with pytest.raises(Exception, match="only ever added to"):
            await system.write(f"delete from {table}")


async def test_nobody_but_the_office_asks_decides_or_looks(system: System, office: Office) -> None:
    decision = await office.asked()
    path = f"/office/decisions/{decision['decision_id']}"
    for role in ("ops", "desk:ebian", "reviewer:site", f"candidate:{decision['decision_id']}"):
        for method, where in (
            ("POST", "/office/decisions"),
            ("GET", "/office/decisions"),
            ("GET", path),
            ("POST", f"{path}/approve"),
            ("POST", f"{path}/reject"),
        ):
            answer = await system.call(method, where, role, {} if method == "POST" else None)
            assert answer.status_code == 403, (role, method, where)


async def test_the_audit_trail_shows_both_and_not_the_words_they_wrote(
    system: System, office: Office
) -> None:
    decision = await office.extend()
    rows = await system.rows("select actor, action, subject, detail from audit order by action desc")
    assert [(row["actor"], row["action"]) for row in rows] == [
        (ASKS, "decision-asked"),
        (DECIDES, "decision-approved"),
    ]
    assert {row["subject"] for row in rows} == {decision["decision_id"]}
    assert "顺延" not in str(rows)
    (kept,) = await system.rows("select reason from decisions")
    assert "顺延".encode() not in kept["reason"]


async def test_the_same_request_again_is_one_decision_and_one_word(system: System, office: Office) -> None:
    first = await office.ask(LATER, key="k1")
    again = await office.ask(LATER, key="k1")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert (await office.ask("2024-02-12 00:00", key="k1")).json()["code"] == "idempotency-conflict"
    decision = first.json()
    said = await office.say(decision, "approve", key="k2")
    assert (await office.say(decision, "approve", key="k2")).json() == said.json()
    other = await office.say(decision, "approve", key="k3")
    assert (other.status_code, other.json()["code"]) == (409, "not-allowed")
    assert len(await system.rows("select from decisions")) == 1


async def test_carrying_it_out_again_changes_nothing(system: System, office: Office) -> None:
    await system.approved(2)
    await office.extend()
    after = await system.everything()
    await system.carry_out_job.run()
    assert await system.everything() == after


async def test_one_request_at_a_time_about_the_same_people(system: System, office: Office) -> None:
    decision = await office.asked()
    for site in (None, "ebian"):
        answer = await office.ask("2024-02-12 00:00", site)
        assert (answer.status_code, answer.json()["code"]) == (409, "not-allowed")
        assert answer.json()["hints"] == {"decision_id": decision["decision_id"]}
    assert (await office.say(decision, "reject")).status_code == 200
    await office.asked("2024-02-12 00:00", "ebian")
    assert (await office.ask("2024-02-12 00:00", "ebian")).status_code == 409
    await office.asked("2024-02-12 00:00", "jingyan")
    assert (await office.ask("2024-02-12 00:00")).status_code == 409


@pytest.mark.parametrize(
    ("closes_at", "site", "code"),
    [
        ("2024-01-29 00:00", None, "invalid"),  # now, and when payment opens
        ("2024-01-28 00:00", None, "invalid"),
        (CLOSES, None, "not-allowed"),  # as it is
        (LATER, "nowhere", "not-found"),
    ],
)
async def test_what_cannot_be_is_refused_when_it_is_asked_for(
    system: System, office: Office, closes_at: str, site: str | None, code: str
) -> None:
    answer = await office.ask(closes_at, site)
    assert answer.json()["code"] == code, answer.text
    assert await system.rows("select from decisions") == []


@pytest.mark.parametrize("reason", ["", " \t\u3000"])
async def test_nothing_is_asked_for_without_a_reason(system: System, office: Office, reason: str) -> None:
    for body in (
        {"kind": "extend-payment", "closes_at": moment(LATER).isoformat(), "reason": reason},
        {"kind": "revive", "registration_id": str(await system.owing()), "reason": reason},
    ):
        answer = await office.call(ASKS, "POST", "/office/decisions", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text
    assert await system.rows("select from decisions") == []

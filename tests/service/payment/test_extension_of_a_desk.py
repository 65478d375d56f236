"""An extension of one desk: its people and nobody else, and only while it is known whose desk is whose."""

from __future__ import annotations

import pytest

from contracts import payment
from tests.service.payment.system import CLOSES, System, moment
from tests.service.payment.two_people import LATER, Office, closes, owing_at, without_desk, words


@pytest.fixture
def office(system: System) -> Office:
    return Office(system)


async def test_an_extension_of_one_desk_moves_its_people_and_nobody_else(
    system: System, office: Office
) -> None:
    ebian, jingyan, other = await owing_at(system, "ebian", "jingyan", "mabian")
    system.at("2024-02-08 23:59")
    decision = await office.asked(site="ebian")
    assert (decision["preview"]["moved"], decision["preview"]["without_site"]) == (1, 0)
    system.at("2024-02-09 06:00")
    assert await system.close() == moment(LATER)
    assert await words(system, [ebian, jingyan, other]) == [["due"], ["due", "expired"], ["due", "expired"]]
    assert await system.said(system.cycle.id) == [], "what the close comes to is not known yet"
    await office.approve(decision)
    await system.carry_out_job.run()
    await system.close()
    (first,) = await system.said(system.cycle.id)
    assert isinstance(first, payment.WindowClosed)
    assert (first.closes_at, first.counts.expired, first.proofs) == (moment(CLOSES), 2, 2)
    assert await system.words(ebian) == ["due", "window-moved"]
    assert [await closes(system, one) for one in (ebian, jingyan)] == [moment(LATER), moment(CLOSES)]
    # Approved late at that desk: until its close; elsewhere the close looks once more.
    (later,) = await owing_at(system, "ebian")
    assert await closes(system, later) == moment(LATER)
    system.at(LATER)
    await system.close()
    assert await words(system, [ebian, later]) == [["due", "window-moved", "expired"], ["due", "expired"]]
    second = (await system.said(system.cycle.id))[-1]
    assert isinstance(second, payment.WindowClosed)
    assert (second.closes_at, second.counts.expired, second.proofs) == (moment(LATER), 2, 2)


async def test_one_desk_is_not_extended_while_it_is_not_known_who_belongs_to_it(
    system: System, office: Office
) -> None:
    (ebian,) = await owing_at(system, "ebian")
    owes, pays, falls = await without_desk(system, 3)
    await system.paid_and_heard(await system.ordered(pays))
    answer = await office.ask(LATER, site="ebian")
    assert (answer.status_code, answer.json()["code"], answer.json()["hints"]) == (
        409,
        "not-allowed",
        {"without_site": 2},
    )
    assert answer.json()["detail"].startswith("有 2 位考生在系统记录报名点之前已通过审核")
    assert (
        "请改为全部报名点一起办理，或请运维先补记报名点（docs/runbooks/extension.md）"
        in answer.json()["detail"]
    )
    english = (await office.ask(LATER, site="ebian", language="en")).json()["detail"]
    assert english.startswith("2 were approved before desks were noted here")
    assert await system.rows("select from decisions") == []
    # Of all desks they are reached, so that nothing need be known.
    decision = await office.extend()
    assert (decision["done"]["moved"], decision["preview"]["without_site"]) == (3, 0)
    assert [await closes(system, one) for one in (ebian, owes, falls)] == [moment(LATER)] * 3


async def test_one_desk_is_extended_once_ops_have_filled_in_whose_desk_it_is(
    system: System, office: Office
) -> None:
    (unknown,) = await without_desk(system, 1)
    await system.write("update obligations set site_id = 'ebian' where registration_id = $1", unknown)
    decision = await office.extend(site="ebian")
    assert decision["done"]["moved"] == 1
    assert await closes(system, unknown) == moment(LATER)


async def test_somebody_without_a_desk_who_appears_while_it_is_being_decided_stops_the_approval(
    system: System, office: Office
) -> None:
    await owing_at(system, "ebian")
    decision = await office.asked(site="ebian")
    await without_desk(system, 1)
    answer = await office.say(decision, "approve")
    assert (answer.status_code, answer.json()["hints"]) == (409, {"without_site": 1})
    assert (await office.read(decision))["state"] == "asked"


async def test_a_close_that_a_restore_has_left_half_carried_out_is_asked_for_again_and_reaches_the_rest(
    system: System, office: Office
) -> None:
    """The desk's new close is on the topic, the decision is lost, and one of two people was not moved yet."""
    moved, left = await owing_at(system, "ebian", "ebian")
    await office.extend(site="ebian")
    before = moment(CLOSES)
    await system.write(
        "update obligations set closes_at = $2, told_closes_at = $2 where registration_id = $1", left, before
    )
    decision = await office.extend(site="ebian")
    assert decision["done"] == {"moved": 1, "reinstated": 0}
    assert [await closes(system, one) for one in (moved, left)] == [moment(LATER)] * 2
    answer = await office.ask(LATER, site="ebian")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-allowed")


async def test_an_extension_for_all_leaves_a_desk_that_closes_later_as_it_is(
    system: System, office: Office
) -> None:
    ebian, jingyan = await owing_at(system, "ebian", "jingyan")
    await office.extend("2024-02-12 00:00", "ebian")
    await office.extend(LATER)
    assert [await closes(system, one) for one in (ebian, jingyan)] == [
        moment("2024-02-12 00:00"),
        moment(LATER),
    ]
    assert await system.words(ebian) == ["due", "window-moved"]

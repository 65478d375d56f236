"""What candidates did reaches their cases, once, whatever order and however often it is told."""

from __future__ import annotations

from uuid_utils.compat import uuid7

from contracts import confirmation
from contracts.refusals import Code
from tests.service.confirmation.system import System, amended, payload, pre_registered, withdrawn
from tests.support.under_test import names

DURING = "2023-12-10 09:00"


async def test_a_registration_opens_a_case(system: System) -> None:
    one = uuid7()
    await system.deliver(
        pre_registered(one, "emeishan", subjects=(3, 4), returning=True, level="intermediate")
    )
    case = await system.case(one)
    assert (case["state"], case["site_id"], case["subjects"], case["is_returning"], case["level"]) == (
        "pre-registered",
        "emeishan",
        [3, 4],
        True,
        "intermediate",
    )
    assert (case["version"], case["form_version"]) == (0, 1)
    assert await system.said() == []


async def test_a_poll_of_registrations_is_one_statement_however_many(system: System) -> None:
    records = [system.record(pre_registered(uuid7()), 1) for _ in range(500)]
    with system.statements() as seen:
        await system.process.consumers.on_batch(records)
    assert len(await system.rows("select 1 from cases")) == 500
    assert len(seen) <= 5, seen


async def test_everything_about_one_candidate_in_one_poll_keeps_its_order(system: System) -> None:
    one, two = uuid7(), uuid7()
    await system.deliver(
        pre_registered(one),
        pre_registered(two),
        amended(one, 2, "wutongqiao"),
        amended(one, 3, "shawan", specialty_code="301", level="intermediate", subjects=(1,)),
        withdrawn(two),
    )
    case = await system.case(one)
    assert (case["site_id"], case["form_version"], case["level"], case["subjects"], case["state"]) == (
        "shawan",
        3,
        "intermediate",
        [1],
        "pre-registered",
    )
    assert (await system.case(two))["state"] == "withdrawn"
    assert await system.parked() == []
    assert await system.said() == []


async def test_an_amended_form_moves_to_its_new_desk_and_the_old_form_is_void(system: System) -> None:
    one = await system.registered()
    await system.deliver(amended(one, 2, "wutongqiao"))
    system.at("2023-12-13 09:00")
    assert (await system.confirm(one, form=2)).json()["code"] == Code.OTHER_SITE
    assert (await system.confirm(one, desk="wutongqiao", form=1)).json()["code"] == Code.FORM_OUTDATED
    assert (await system.confirm(one, desk="wutongqiao", form=2)).status_code == 200


async def test_an_amendment_that_crossed_its_confirmation_undoes_it(system: System) -> None:
    (one,) = await system.confirmed()
    await system.deliver(amended(one, 2))
    case = await system.case(one)
    assert (case["state"], case["passed"], case["form_version"], case["version"]) == ("returned", 0, 2, 2)
    said = await system.said(one)
    assert names(said) == ["confirmed", "returned"]
    assert payload(said[-1]) == {"level": "desk", "reason_codes": ["form-outdated"], "fix_until": None}
    assert said[-1].envelope.causation_id is not None
    assert (await system.approve("site", one))[0]["code"] == Code.NOT_CONFIRMED
    assert (await system.confirm(one, form=2)).json()["sequence"] == 3


async def test_an_amendment_that_crossed_even_the_approval_undoes_that(system: System) -> None:
    (one,) = await system.confirmed()
    await system.approve("site", one)
    await system.approve("district", one)
    await system.deliver(amended(one, 2))
    assert names(await system.said(one))[-2:] == ["approved", "returned"]


async def test_two_amendments_that_crossed_a_confirmation_undo_it_once(system: System) -> None:
    (one,) = await system.confirmed()
    await system.deliver(amended(one, 2), amended(one, 3, "jiajiang"))
    case = await system.case(one)
    assert (case["state"], case["form_version"], case["site_id"], case["version"]) == (
        "returned",
        3,
        "jiajiang",
        2,
    )
    assert names(await system.said(one)) == ["confirmed", "returned"]


async def test_a_withdrawal_ends_the_case(system: System) -> None:
    one = await system.registered()
    await system.deliver(withdrawn(one))
    system.at(DURING)
    assert (await system.confirm(one)).json()["code"] == Code.NOT_ALLOWED
    assert (await system.approve("site", one))[0]["code"] == Code.NOT_CONFIRMED
    system.at("2023-12-16 00:00")
    await system.run_job()
    assert await system.said(one) == []


async def test_a_withdrawal_that_crossed_a_confirmation_wins(system: System) -> None:
    (one,) = await system.confirmed()
    await system.deliver(withdrawn(one))
    assert (await system.case(one))["state"] == "withdrawn"
    assert (await system.approve("site", one))[0]["code"] == Code.NOT_CONFIRMED


async def test_what_cannot_be_followed_is_parked_and_the_rest_goes_on(system: System) -> None:
    one, known = await system.pre_registered(many=2)
    other = uuid7()
    strange = [
        amended(uuid7(), 2),  # never opened
        withdrawn(uuid7()),
        pre_registered(uuid7(), cycle_id="2025-another-cycle"),
        pre_registered(uuid7(), "atlantis"),
        amended(one, 1),  # older than what is known
        pre_registered(known),  # opened before
    ]
    await system.deliver(*strange, pre_registered(other))
    assert len(set(await system.parked())) <= 4
    assert len(
        await system.rows("select distinct event_id from parked where reason like 'failed: %'")
    ) == len(strange)
    assert (await system.case(other))["state"] == "pre-registered"
    assert (await system.case(one))["form_version"] == 1
    # later events of a parked key wait behind it
    await system.deliver(withdrawn(one))
    assert (await system.case(one))["state"] == "pre-registered"
    assert (await system.parked())[-1] == "behind-parked"


async def test_a_registration_that_is_heard_of_after_its_desk_closed_lapses_at_once(system: System) -> None:
    system.at("2023-12-14 12:00")
    system.job.awake.clear()
    await system.deliver(pre_registered(in_time := uuid7(), "wutongqiao"))
    assert not system.job.awake.is_set()
    await system.deliver(pre_registered(late := uuid7()))
    assert system.job.awake.is_set()
    await system.run_job()
    assert names(await system.said(late)) == ["lapsed"]
    assert await system.said(in_time) == []


async def test_a_confirmation_undone_after_the_desk_closed_lapses(system: System) -> None:
    (one,) = await system.confirmed(at="2023-12-14 11:59:59.999999")
    system.at("2023-12-14 12:00:01")
    system.job.awake.clear()
    await system.deliver(amended(one, 2))
    assert system.job.awake.is_set()
    await system.run_job()
    said = await system.said(one)
    assert names(said) == ["confirmed", "returned", "lapsed"]
    assert isinstance(said[-1], confirmation.Lapsed)

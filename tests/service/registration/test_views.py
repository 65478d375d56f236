"""What the later stages said, as the candidate's page shows it: once, in order, whatever comes twice or late."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts import confirmation, notification, payment
from contracts.event import Event
from contracts.reasons import (
    Carrier,
    Channel,
    Decision,
    ExpiryCause,
    ReasonCode,
    ReinstatementCause,
    WindowReason,
)
from contracts.refusals import Code
from services.registration.domain.registration import FREEING, Confirmation, Payment, combined
from services.registration.repository import news
from tests.service.registration.system import System
from tests.unit.registration.samples import MICROSECOND, cycle, id_number

CYCLE = cycle().id
OPENS = datetime(2024, 1, 28, 16, tzinfo=UTC)
CLOSES = datetime(2024, 2, 8, 16, tzinfo=UTC)
MOVED = CLOSES + timedelta(days=2)


def confirmed(of: UUID) -> Event:
    return confirmation.Confirmed(
        cycle_id=CYCLE, registration_id=of, site_id="shizhong", form_version=1, desk="shizhong"
    )


def returned(of: UUID, level: str = "desk", fix_until: datetime | None = None) -> Event:
    return confirmation.Returned(
        cycle_id=CYCLE,
        registration_id=of,
        level=level,
        reason_codes=(ReasonCode.DOCUMENTS, ReasonCode.PHOTO),
        fix_until=fix_until,
    )


def reviewed(of: UUID, level: str, decision: Decision = Decision.APPROVE) -> Event:
    return confirmation.Reviewed(cycle_id=CYCLE, registration_id=of, level=level, decision=decision)


def approved(of: UUID) -> Event:
    return confirmation.Approved(
        cycle_id=CYCLE, registration_id=of, level="junior", subjects=(1, 2, 3, 4), specialty_code="203"
    )


def rejected(of: UUID, level: str = "site") -> Event:
    return confirmation.Rejected(
        cycle_id=CYCLE, registration_id=of, level=level, reason_codes=(ReasonCode.YEARS,)
    )


def lapsed(of: UUID) -> Event:
    return confirmation.Lapsed(cycle_id=CYCLE, registration_id=of, site_id="shizhong", closed_at=CLOSES)


def due(of: UUID) -> Event:
    return payment.Due(
        cycle_id=CYCLE,
        registration_id=of,
        amount_fen=20_000,
        currency="CNY",
        opens_at=OPENS,
        closes_at=CLOSES,
    )


def paid(of: UUID) -> Event:
    return payment.Paid(
        cycle_id=CYCLE,
        registration_id=of,
        amount_fen=20_000,
        paid_at=OPENS + timedelta(days=1),
        channel=Channel.WECHAT,
        order_no="20240129000001ABCDEFGH",
    )


def expired(of: UUID) -> Event:
    return payment.Expired(
        cycle_id=CYCLE, registration_id=of, closes_at=CLOSES, cause=ExpiryCause.UNPAID, proof_id=uuid4()
    )


def reinstated(of: UUID, cause: ReinstatementCause) -> Event:
    return payment.Reinstated(cycle_id=CYCLE, registration_id=of, cause=cause, closes_at=MOVED)


def window_moved(of: UUID) -> Event:
    return payment.WindowMoved(
        cycle_id=CYCLE,
        registration_id=of,
        closes_at=MOVED,
        reason_code=WindowReason.OUTAGE,
        counts=payment.MovedCounts(awaiting=1, reinstated=0),
    )


def undeliverable(of: UUID, channel: Carrier, reason: str = "number-not-in-use") -> Event:
    return notification.Undeliverable(
        cycle_id=CYCLE,
        registration_id=of,
        occasion="pre-registered",
        channel=channel,
        template_version=1,
        reason_code=reason,
    )


def desk_window(site: str, opens: datetime, closes: datetime) -> Event:
    return confirmation.DeskWindowSet(
        cycle_id=CYCLE, site_id=site, opens_at=opens, closes_at=closes, reason_code=WindowReason.ANNOUNCED
    )


async def test_a_whole_life_is_shown_stage_by_stage(system: System) -> None:
    one = await system.registered()
    confirmations = itertools.count(1)
    payments = itertools.count(1)
    life: list[tuple[Event, Any, str]] = [
        (confirmed(one), confirmations, "confirmed"),
        (reviewed(one, "site"), confirmations, "confirmed"),
        (reviewed(one, "district"), confirmations, "confirmed"),
        (approved(one), confirmations, "approved"),
        (due(one), payments, "approved"),
        (paid(one), payments, "paid"),
    ]
    for event, sequence, state in life:
        await system.deliver((event, next(sequence)))
        assert await system.state(one) == state
    stages = (await system.page_of(one))["stages"]
    assert stages["confirmation"]["state"] == "approved"
    assert {level: shown["decision"] for level, shown in stages["levels"].items()} == {
        "desk": "approve",
        "site": "approve",
        "district": "approve",
    }
    assert stages["payment"] == {
        "state": "paid",
        "amount_fen": 20_000,
        "opens_at": OPENS.isoformat(),
        "closes_at": CLOSES.isoformat(),
        "paid_at": (OPENS + timedelta(days=1)).isoformat(),
    }


async def test_a_life_that_comes_in_one_poll_ends_the_same(system: System) -> None:
    one, other = await system.registered(), await system.registered(id_number=id_number(order=77))
    await system.deliver(
        (confirmed(one), 1),
        (confirmed(other), 1),
        (reviewed(one, "site"), 2),
        (reviewed(one, "district"), 3),
        (rejected(other), 2),
        (approved(one), 4),
    )
    assert (await system.state(one), await system.state(other)) == ("approved", "rejected")
    assert set((await system.page_of(one))["stages"]["levels"]) == {"desk", "site", "district"}
    shown = (await system.page_of(other))["stages"]["levels"]["site"]
    assert (shown["decision"], shown["reason_codes"]) == ("reject", ["years"])


async def test_a_return_starts_every_level_over(system: System) -> None:
    one = await system.registered()
    until = CLOSES
    await system.deliver(
        (confirmed(one), 1), (reviewed(one, "site"), 2), (returned(one, "district", until), 3)
    )
    stages = (await system.page_of(one))["stages"]
    assert await system.state(one) == "pre-registered"
    assert stages["confirmation"] | {"deadline": None} == {
        "state": "returned",
        "fix_until": until.isoformat(),
        "deadline": None,
    }
    assert stages["confirmation"]["deadline"] == until.isoformat()
    assert stages["levels"]["site"] is None
    assert stages["levels"]["district"]["reason_codes"] == ["documents", "photo"]
    await system.deliver((confirmed(one), 4))
    stages = (await system.page_of(one))["stages"]
    assert stages["confirmation"]["fix_until"] is None
    assert stages["levels"]["district"] is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_an_older_word_never_undoes_a_newer_one(system: System, order: tuple[int, ...]) -> None:
    one = await system.registered()
    said = [(confirmed(one), 1), (approved(one), 2), (rejected(one, "district"), 3)]
    for place in order:
        system.forget()
        await system.deliver(said[place])
    assert await system.state(one) == "rejected"
    assert await system.parked() == []


async def test_each_stream_counts_for_itself(system: System) -> None:
    one = await system.registered()
    await system.deliver((due(one), 7), (paid(one), 8))
    await system.deliver((confirmed(one), 1), (approved(one), 2))
    assert await system.state(one) == "paid"
    system.forget()
    await system.deliver((expired(one), 6))
    assert await system.state(one) == "paid"


async def test_without_the_sequence_an_older_word_would_undo_a_newer_one(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard seen failing."""
    monkeypatch.setattr(
        news,
        "_FOLLOW_PAYMENT",
        news._FOLLOW_PAYMENT.replace("and r.payment_sequence < n.sequence", ""),
    )
    one = await system.registered()
    await system.deliver((due(one), 7), (paid(one), 8))
    system.forget()
    await system.deliver((expired(one), 6))
    assert await system.state(one) == "expired"


@pytest.mark.parametrize(
    ("cause", "state"),
    [
        (ReinstatementCause.PAID_IN_TIME, "paid"),
        (ReinstatementCause.WINDOW_EXTENDED, "approved"),
        (ReinstatementCause.TWO_PERSON_DECISION, "approved"),
    ],
)
async def test_a_forfeiture_that_was_taken_back_is_shown(
    system: System, cause: ReinstatementCause, state: str
) -> None:
    one = await system.registered()
    await system.deliver((confirmed(one), 1), (approved(one), 2), (due(one), 1), (expired(one), 2))
    assert await system.state(one) == "expired"
    await system.deliver((reinstated(one, cause), 3))
    assert await system.state(one) == state
    assert (await system.page_of(one))["stages"]["payment"]["closes_at"] == MOVED.isoformat()


async def test_an_extended_payment_window_is_shown(system: System) -> None:
    one = await system.registered()
    await system.deliver((confirmed(one), 1), (approved(one), 2), (due(one), 1), (window_moved(one), 2))
    shown = (await system.page_of(one))["stages"]["payment"]
    assert (shown["state"], shown["closes_at"]) == ("awaiting", MOVED.isoformat())


async def test_a_deadline_for_many_is_a_handful_of_statements(system: System) -> None:
    ones = [await system.registered(id_number=id_number(order=order)) for order in range(40)]
    await system.process.consumers.on_batch([system.record(due(one), 1) for one in ones])
    records = [system.record(expired(one), 2) for one in ones]
    with system.statements() as seen:
        await system.process.consumers.on_batch(records)
    assert len(seen) <= 5, seen
    rows = await system.rows("select distinct payment from registrations")
    assert [row["payment"] for row in rows] == ["expired"]


async def test_news_of_somebody_unknown_is_parked_and_everybody_else_goes_on(system: System) -> None:
    one, nobody = await system.registered(), uuid4()
    await system.process.consumers.on_batch(
        [system.record(confirmed(nobody), 1), system.record(confirmed(one), 1)]
    )
    assert await system.state(one) == "confirmed"
    assert await system.parked() == ["failed: Unknown"]


async def test_a_message_that_does_not_arrive_surfaces_for_candidate_and_desk(system: System) -> None:
    one = await system.registered()
    other = await system.registered(id_number=id_number(order=77), site_id="shawan")
    await system.deliver(
        (undeliverable(one, Carrier.SMS), 1),
        (undeliverable(one, Carrier.EMAIL), 2),
        (undeliverable(other, Carrier.SMS), 1),
    )
    assert (await system.page_of(one))["contact_to_fix"] == ["sms", "email"]
    desk = await system.http.get("/desks/shizhong/contacts-to-fix", headers=system.token("desk:shizhong"))
    (shown,) = desk.json()["items"]
    assert (shown["registration_id"], shown["contact_to_fix"]) == (str(one), ["sms", "email"])
    other_desk = await system.http.get("/desks/shizhong/contacts-to-fix", headers=system.token("desk:shawan"))
    assert other_desk.status_code == 403


async def test_a_carrier_that_was_away_or_took_no_such_text_makes_no_number_one_to_fix(
    system: System,
) -> None:
    one = await system.registered()
    said = [
        (undeliverable(one, channel, reason), number)
        for number, (channel, reason) in enumerate(
            [
                (Carrier.SMS, "too-late"),
                (Carrier.SMS, "given-up"),
                (Carrier.SMS, "template-refused"),
                (Carrier.EMAIL, "given-up"),
                (Carrier.EMAIL, "mail-too-big"),
            ],
            1,
        )
    ]
    await system.deliver(*said)
    assert (await system.page_of(one))["contact_to_fix"] == []
    await system.deliver(
        (undeliverable(one, Carrier.SMS, "given-up"), 6), (undeliverable(one, Carrier.SMS), 7)
    )
    assert (await system.page_of(one))["contact_to_fix"] == ["sms"]


async def test_a_new_number_is_no_longer_to_be_fixed_and_old_failures_say_nothing_of_it(
    system: System,
) -> None:
    one = await system.registered()
    sent_at = system.clock.now()
    await system.deliver((undeliverable(one, Carrier.SMS), 1), (undeliverable(one, Carrier.EMAIL), 2))
    system.at(sent_at + timedelta(hours=1))
    await system.amend(one, phone="13912340002")
    assert (await system.page_of(one))["contact_to_fix"] == ["email"]
    await system.deliver((undeliverable(one, Carrier.SMS), 3), at=sent_at + timedelta(minutes=30))
    assert (await system.page_of(one))["contact_to_fix"] == ["email"]
    await system.deliver((undeliverable(one, Carrier.SMS), 4), at=sent_at + timedelta(hours=2))
    assert (await system.page_of(one))["contact_to_fix"] == ["sms", "email"]


async def test_a_window_that_the_office_set_binds_the_next_candidate(system: System) -> None:
    now = system.clock.now()
    await system.deliver((desk_window("gaoxin", now - timedelta(days=1), now + timedelta(hours=1)), 1))
    system.at(now + timedelta(hours=1) - MICROSECOND)
    one = await system.registered(site_id="gaoxin")
    system.at(now + timedelta(hours=1))
    closed = await system.pre_register(site_id="gaoxin", id_number=id_number(order=77))
    assert closed.json()["code"] == Code.DESK_CLOSED
    assert (await system.amend(one, phone="13912340002")).json()["code"] == Code.WINDOW_CLOSED
    await system.deliver((desk_window("gaoxin", now, now + timedelta(days=2)), 2))
    assert (await system.amend(one, phone="13912340002")).status_code == 200
    system.forget()
    await system.deliver((desk_window("gaoxin", now, now + timedelta(minutes=1)), 1))
    assert (await system.amend(one, phone="13912340003")).status_code == 200, "older words change nothing"


async def test_the_undated_desk_shows_its_days_once_the_office_named_them(system: System) -> None:
    one = await system.registered(site_id="municipal")
    assert (await system.page_of(one))["site"]["note"] is not None
    opens = datetime(2023, 12, 9, 16, tzinfo=UTC)
    await system.deliver((desk_window("municipal", opens, opens + timedelta(days=2)), 1))
    site = (await system.page_of(one))["site"]
    assert (site["opens"], site["closes"], site["note"]) == (
        opens.isoformat(),
        (opens + timedelta(days=2)).isoformat(),
        None,
    )


async def test_a_window_of_a_desk_that_does_not_exist_is_parked(system: System) -> None:
    now = system.clock.now()
    await system.process.consumers.on_batch(
        [system.record(desk_window("chengdu", now, now + timedelta(days=1)), 1)]
    )
    assert await system.parked() == ["failed: KeyError"]
    assert await system.count("desk_windows") == 0


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_database_and_rules_agree_on_who_may_not_register_again(
    system: System, withdrawn: bool
) -> None:
    ones = [await system.registered(id_number=id_number(order=order)) for order in range(len(Confirmation))]
    if withdrawn:
        for one in ones:
            await system.withdraw(one)
    async with system.database.unit_of_work() as uow:
        for one, state in zip(ones, Confirmation, strict=True):
            await uow.sql("update registrations set confirmation = $2 where id = $1", one, state.value)
    for row in await system.rows("select active, confirmation from registrations"):
        stands = combined(withdrawn, Confirmation(row["confirmation"]), Payment.NONE)
        assert row["active"] == (stands not in FREEING)


async def test_a_desk_that_lapses_many_frees_them_all(system: System) -> None:
    ones = [await system.registered(id_number=id_number(order=order)) for order in range(5)]
    await system.deliver(*((lapsed(one), 1) for one in ones))
    assert [row["active"] for row in await system.rows("select active from registrations")] == [False] * 5

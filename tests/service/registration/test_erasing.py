"""Whoever asks to be forgotten: when that may be, what is left of them, and what is said of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx2
import pytest

from contracts import confirmation, notification, payment
from contracts.reasons import Carrier, ExpiryCause, ReasonCode
from contracts.refusals import Code
from contracts.registration import Erased
from deploy.replay.folds import FOLDS
from tests.service.registration.system import System
from tests.support.under_test import names
from tests.unit.registration.samples import MICROSECOND, cycle, form

CLOSES = datetime(2024, 2, 8, 16, tzinfo=UTC)
MAY = CLOSES + timedelta(days=30)
PRE_REGISTRATION_ENDS = datetime(2023, 12, 14, 16, tzinfo=UTC)


async def erase(
    system: System, one: UUID, role: str | None = "office", key: str | None = None
) -> httpx2.Response:
    headers = (system.token(role, "account-of-staff") if role else {}) | (
        {"Idempotency-Key": key} if key else {}
    )
    return await system.http.post(f"/office/registrations/{one}/erase", headers=headers)


async def forfeited(system: System) -> UUID:
    one = await system.registered()
    await system.deliver(
        (
            payment.Due(
                cycle_id=cycle().id, registration_id=one, amount_fen=28_000, currency="CNY",
                opens_at=datetime(2024, 1, 28, 16, tzinfo=UTC), closes_at=CLOSES,
            ),
            1,
        ),
        (
            payment.Expired(
                cycle_id=cycle().id, registration_id=one, closes_at=CLOSES, cause=ExpiryCause.UNPAID, proof_id=one
            ),
            2,
        ),
    )  # fmt: skip
    assert await system.state(one) == "expired"
    return one


async def contacts(system: System, one: UUID) -> list[dict[str, Any]]:
    answer = await system.internal.post(
        "/internal/contacts", json={"registration_ids": [str(one)]}, headers=system.token("service")
    )
    found: list[dict[str, Any]] = answer.json()["contacts"]
    return found


async def test_nothing_of_the_person_is_left_and_what_happened_stays(system: System) -> None:
    one = await forfeited(system)
    typed = form()
    (before,) = await system.rows("select * from registrations where id = $1", one)
    system.at(MAY)
    answer = await erase(system, one)
    assert (answer.status_code, answer.json()["erased"], answer.json()["state"]) == (200, True, "expired")
    (after,) = await system.rows("select * from registrations where id = $1", one)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"account", "identity_index", "remarks", "erased_at", "version"}
    assert (after["account"], after["erased_at"], after["remarks"]) == ("", MAY, [])
    assert bytes(after["identity_index"]) != bytes(before["identity_index"])
    assert (await system.count("people"), await system.count("photos")) == (0, 0)
    everything = json.dumps(await system.everything(), default=str, ensure_ascii=False)
    for name in ("name", "phone", "email", "id_number", "employer"):
        assert str(typed[name]) not in everything
    (found,) = await contacts(system, one)
    assert (found["phone"], found["email"]) == (None, None)
    looked = await system.http.get(f"/registrations/{one}", headers=system.token("office"))
    assert looked.status_code == 404


async def test_it_is_said_once_with_the_next_number_and_is_on_record(system: System) -> None:
    one = await forfeited(system)
    system.at(MAY)
    first = await erase(system, one, key="k1")
    assert (await erase(system, one, key="k1")).json() == first.json()
    again = await erase(system, one)
    assert (again.status_code, again.json()["code"]) == (404, Code.NOT_FOUND)
    assert names(await system.said(one)) == ["pre-registered", "erased"]
    said = (await system.said(one))[-1]
    assert isinstance(said, Erased)
    assert [row["sequence"] for row in await system.rows("select sequence from outbox order by id")] == [1, 2]
    trail = await system.rows("select actor_kind, action, subject from audit where action = 'erase'")
    assert [(row["actor_kind"], row["subject"]) for row in trail] == [("office", str(one))]


async def test_a_forfeiture_may_be_lifted_for_thirty_days_and_its_person_is_known_so_long(
    system: System,
) -> None:
    one = await forfeited(system)
    system.at(MAY - MICROSECOND)
    refused = await erase(system, one)
    assert (refused.status_code, refused.json()["code"]) == (409, Code.NOT_ALLOWED)
    system.at(MAY)
    assert (await erase(system, one)).status_code == 200


async def test_whose_registration_goes_on_is_not_forgotten(system: System) -> None:
    one = await system.registered()
    refused = await erase(system, one)
    assert (refused.status_code, refused.json()["code"]) == (409, Code.NOT_ALLOWED)
    assert (await system.count("people"), len(await system.said(one))) == (1, 1)


async def test_the_rejected_are_known_until_nobody_can_register_any_more(system: System) -> None:
    """Else a new registration of the same person would be taken for somebody else's."""
    one = await system.registered()
    rejected = confirmation.Rejected(
        cycle_id=cycle().id, registration_id=one, level="desk", reason_codes=(ReasonCode.SPECIALTY,)
    )
    await system.deliver((rejected, 1))
    system.at(PRE_REGISTRATION_ENDS - MICROSECOND)
    assert (await erase(system, one)).status_code == 409
    system.at(PRE_REGISTRATION_ENDS)
    assert (await erase(system, one)).status_code == 200


async def test_the_withdrawn_are_forgotten_at_once_and_a_late_word_of_their_phone_asks_nobody(
    system: System,
) -> None:
    one = await system.registered()
    await system.withdraw(one)
    assert (await erase(system, one)).status_code == 200
    undeliverable = notification.Undeliverable(
        cycle_id=cycle().id, registration_id=one, occasion="withdrawn", channel=Carrier.SMS, template_version=1,
        reason_code="bad-number",
    )  # fmt: skip
    await system.deliver((undeliverable, 1))
    (row,) = await system.rows("select phone_failed_at from registrations where id = $1", one)
    assert row["phone_failed_at"] is None
    assert await system.parked() == []


@pytest.mark.parametrize("role", [None, "candidate", "desk:shizhong", "reviewer:site", "ops", "service"])
async def test_only_the_office_forgets(system: System, role: str | None) -> None:
    one = await system.registered()
    assert (await erase(system, one, role)).status_code == (403 if role else 401)
    own = await erase(system, one, f"candidate:{one}")
    assert own.status_code == 403
    assert await system.count("people") == 1


async def test_a_backup_from_before_still_knows_them_until_it_is_caught_up(system: System) -> None:
    one = await forfeited(system)
    event = {"key": str(one), "sequence": 2, "at": MAY.isoformat(), "causation": None, "p": {}}
    async with system.database.unit_of_work() as uow:
        for statement in FOLDS["registration"]["erased"]:
            await uow.sql(statement, json.dumps([event]))
    (caught_up,) = await system.rows("select * from registrations where id = $1", one)
    assert (await system.count("people"), await system.count("photos")) == (0, 0)
    other = await forfeited(system)
    system.at(MAY)
    assert (await erase(system, other)).status_code == 200
    (erased,) = await system.rows("select * from registrations where id = $1", other)
    told = ("account", "remarks", "erased_at", "version", "phone_failed_at", "email_failed_at")
    assert [caught_up[name] for name in told] == [erased[name] for name in told]
    assert [bytes(row["identity_index"]) for row in (caught_up, erased)] == [
        sha256(row["id"].bytes).digest() for row in (caught_up, erased)
    ]

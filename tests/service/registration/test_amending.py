"""Amending and withdrawing: every save voids the form before it, and nothing moves once a desk has confirmed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.confirmation import Confirmed, Returned
from contracts.reasons import ChangedField, ReasonCode
from contracts.refusals import Code
from contracts.registration import Amended, ContactChanged, Withdrawn
from services.registration.repository import candidates
from tests.service.registration.system import System
from tests.support.under_test import names
from tests.unit.registration.samples import MICROSECOND, cycle, encoded, form, id_number, jpeg

NOON = datetime(2023, 12, 14, 4, tzinfo=UTC)  # 市中区 「14日上午」
GAOXIN_ENDS = datetime(2023, 12, 12, 16, tzinfo=UTC)


def confirmed(registration_id: UUID, form_version: int = 1) -> Confirmed:
    return Confirmed(
        cycle_id=cycle().id,
        registration_id=registration_id,
        site_id="shizhong",
        form_version=form_version,
        desk="shizhong",
    )


def returned(registration_id: UUID, fix_until: datetime | None = None) -> Returned:
    return Returned(
        cycle_id=cycle().id,
        registration_id=registration_id,
        level="desk",
        reason_codes=(ReasonCode.DOCUMENTS,),
        fix_until=fix_until,
    )


async def test_a_save_makes_a_new_form_and_says_what_changed_by_name_only(system: System) -> None:
    registration_id = await system.registered()
    first = await system.page_of(registration_id)
    answer = await system.amend(registration_id, specialty_code="368", employer="三江骨科医院")
    assert answer.status_code == 200
    saved = answer.json()
    assert (saved["form_version"], saved["sequence"], saved["state"]) == (2, 2, "pre-registered")
    assert saved["form_code"].startswith(first["number"] + "-2-")
    assert saved["form_code"] != first["form_code"]
    assert saved["changed"] == ["employer", "specialty_code"]
    _, said = await system.said()
    assert said == Amended(
        cycle_id=cycle().id,
        registration_id=registration_id,
        form_version=2,
        changed=(ChangedField.EMPLOYER, ChangedField.SPECIALTY_CODE),
        site_id="shizhong",
        specialty_code="368",
        level="intermediate",
        subjects=(1, 2, 3, 4),
    )
    page = await system.page_of(registration_id)
    assert page["person"]["employer"] == "三江骨科医院"
    assert page["specialty"] == {
        "code": "368",
        "name": "护理学",
        "level": "intermediate",
        "level_name": "中级",
    }


@pytest.mark.parametrize("changed", [{"phone": "13912340002"}, {"email": "neu@example.cn"}])
async def test_a_new_contact_is_two_facts_and_voids_the_form_too(
    system: System, changed: dict[str, str]
) -> None:
    registration_id = await system.registered()
    saved = (await system.amend(registration_id, **changed)).json()
    assert (saved["form_version"], saved["sequence"]) == (2, 3)
    said = await system.said(registration_id)
    assert names(said) == ["pre-registered", "contact-changed", "amended"]
    assert isinstance(said[1], ContactChanged)
    assert [event.envelope.sequence for event in said] == [1, 2, 3]


async def test_everything_changeable_is_kept_as_amended_and_the_rest_stays(system: System) -> None:
    registration_id = await system.registered(returning=True, employer_code="91350100M000100Y43")
    changes: dict[str, Any] = {
        "name": "刘\ue900",
        "phone": "18812340003",
        "email": "andere@example.cn",
        "employer": "三江骨科医院",
        "employer_code": None,
        "site_id": "shawan",
        "specialty_code": "101",
        "subjects": [3, 2],
        "photo": encoded(jpeg(mode="L")),
    }
    saved = (await system.amend(registration_id, **changes)).json()
    assert saved["changed"] == list(changes)
    page = await system.page_of(registration_id)
    assert page["person"] == {
        "name": "刘*",
        "id_type": "resident-id",
        "id_type_name": "居民身份证",
        "id_number": id_number()[:3] + "*" * 11 + id_number()[-4:],
        "phone": "188****0003",
        "email": "a***@example.cn",
        "employer": "三江骨科医院",
        "employer_code": None,
    }
    assert page["site"]["id"] == "shawan"
    assert [subject["number"] for subject in page["subjects"]] == [2, 3]
    assert {remark["code"] for remark in page["remarks"]} == {"name-private-use", "photo-grey"}
    (row,) = await system.rows("select jpeg from photos")
    assert system.vault.decrypt(row["jpeg"], row=str(registration_id)) == jpeg(mode="L")


async def test_amending_ends_when_the_desk_ends(system: System) -> None:
    registration_id = await system.registered()
    system.at(NOON - MICROSECOND)
    assert (await system.amend(registration_id, email="a@example.cn")).status_code == 200
    system.at(NOON)
    late = await system.amend(registration_id, email="b@example.cn")
    assert (late.status_code, late.json()["code"]) == (409, Code.WINDOW_CLOSED)
    assert names(await system.said()) == ["pre-registered", "contact-changed", "amended"]


async def test_moving_to_a_desk_that_has_ended_is_refused_and_changes_nothing(system: System) -> None:
    registration_id = await system.registered()
    system.at(GAOXIN_ENDS)
    before = await system.everything()
    answer = await system.amend(registration_id, site_id="gaoxin", phone="13912340002")
    assert answer.json()["code"] == Code.DESK_CLOSED
    assert "jingyan" in [desk["id"] for desk in answer.json()["hints"]["desks"]]
    assert await system.everything() == before
    assert (await system.amend(registration_id, site_id="jingyan")).status_code == 200


async def test_who_is_confirmed_can_neither_amend_nor_withdraw(system: System) -> None:
    registration_id = await system.registered()
    await system.deliver((confirmed(registration_id), 1))
    amended = await system.amend(registration_id, phone="13912340002")
    assert (amended.json()["code"], amended.json()["hints"]) == (Code.NOT_ALLOWED, {"state": "confirmed"})
    assert (await system.withdraw(registration_id)).json()["code"] == Code.NOT_ALLOWED
    assert names(await system.said()) == ["pre-registered"]


async def test_the_lock_is_the_desks_word(system: System) -> None:
    """The guard seen failing: the same two acts pass when the desk has not confirmed."""
    registration_id = await system.registered()
    assert (await system.amend(registration_id, phone="13912340002")).status_code == 200
    assert (await system.withdraw(registration_id)).status_code == 200


async def test_after_a_return_the_candidate_may_amend_until_the_named_moment(system: System) -> None:
    registration_id = await system.registered()
    until = NOON + timedelta(days=3)
    await system.deliver((confirmed(registration_id), 1), (returned(registration_id, until), 2))
    system.at(until - MICROSECOND)
    assert (await system.amend(registration_id, phone="13912340002")).json()["form_version"] == 2
    system.at(until)
    assert (await system.amend(registration_id, phone="13912340003")).json()["code"] == Code.WINDOW_CLOSED


async def test_the_state_is_asked_before_the_fields(system: System) -> None:
    registration_id = await system.registered()
    assert (await system.amend(registration_id, phone="1")).json()["code"] == Code.INVALID
    await system.deliver((confirmed(registration_id), 1))
    assert (await system.amend(registration_id, phone="1")).json()["code"] == Code.NOT_ALLOWED
    system.at(NOON)
    assert (await system.amend(registration_id, phone="1")).json()["code"] == Code.WINDOW_CLOSED


async def test_wrong_fields_are_named_all_at_once_and_nothing_is_saved(system: System) -> None:
    registration_id = await system.registered()
    before = await system.everything()
    answer = await system.amend(
        registration_id, phone="1", subjects=["a"], id_number=id_number(order=99), hobby="x"
    )
    assert answer.status_code == 422
    reasons = {field["field"]: field["reason"] for field in answer.json()["fields"]}
    assert set(reasons) == {"phone", "subjects", "id_number", "hobby"}
    assert await system.everything() == before
    nothing = await system.http.patch(
        f"/registrations/{registration_id}", json={}, headers=system.token(f"candidate:{registration_id}")
    )
    assert nothing.json()["code"] == Code.INVALID


async def test_ten_saves_at_once_make_ten_forms_one_after_another(system: System) -> None:
    registration_id = await system.registered()
    answers = await asyncio.gather(
        *(system.amend(registration_id, phone=f"1391234{n:04d}") for n in range(10))
    )
    assert sorted(answer.json()["form_version"] for answer in answers) == list(range(2, 12))
    assert len(await system.said()) == 21


async def test_without_the_lock_saves_would_share_a_version(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard seen failing: reading without holding the row, two of the ten collide on their version."""
    registration_id = await system.registered()
    monkeypatch.setattr(candidates, "_LOCK", candidates._LOCK.replace("for update", ""))
    answers = await asyncio.gather(
        *(system.amend(registration_id, phone=f"1391234{n:04d}") for n in range(10))
    )
    assert any(answer.status_code == 500 for answer in answers)


async def test_an_amendment_repeated_with_its_key_is_one_amendment(system: System) -> None:
    registration_id = await system.registered()
    first = await system.amend(registration_id, key="k", phone="13912340002")
    again = await system.amend(registration_id, key="k", phone="13912340002")
    assert first.json() == again.json()
    other = await system.amend(registration_id, key="k", phone="13912340003")
    assert other.json()["code"] == Code.IDEMPOTENCY_CONFLICT
    assert names(await system.said()) == ["pre-registered", "contact-changed", "amended"]


async def test_a_withdrawal_is_said_once(system: System) -> None:
    registration_id = await system.registered()
    answer = await system.withdraw(registration_id, key="w", reason="mistake")
    assert answer.json() | {"number": ""} == {
        "registration_id": str(registration_id),
        "number": "",
        "state": "withdrawn",
        "state_text": "已撤回",
        "sequence": 2,
    }
    assert (await system.withdraw(registration_id, key="w", reason="mistake")).json() == answer.json()
    assert (await system.withdraw(registration_id)).json()["code"] == Code.NOT_ALLOWED
    assert (await system.amend(registration_id, phone="13912340002")).json()["code"] == Code.NOT_ALLOWED
    _, said = await system.said()
    assert isinstance(said, Withdrawn)
    assert said.reason_code == "mistake"


async def test_a_withdrawal_needs_no_reason_but_takes_only_known_ones(system: System) -> None:
    registration_id = await system.registered()
    unknown = await system.withdraw(registration_id, reason="我不想说")
    assert (unknown.status_code, unknown.json()["fields"][0]["field"]) == (422, "reason")
    assert (await system.withdraw(registration_id)).status_code == 200


async def test_withdrawing_ends_when_the_desk_ends(system: System) -> None:
    registration_id = await system.registered()
    other = await system.registered(id_number=id_number(order=77))
    system.at(NOON - MICROSECOND)
    assert (await system.withdraw(registration_id)).status_code == 200
    system.at(NOON)
    assert (await system.withdraw(other)).json()["code"] == Code.NOT_ALLOWED


@pytest.mark.parametrize(
    "role", ["candidate", "office", "desk:shizhong", f"candidate:{UUID(int=1)}", "service"]
)
async def test_nobody_else_amends_or_withdraws(system: System, role: str) -> None:
    registration_id = await system.registered()
    assert (await system.amend(registration_id, role=role, phone="13912340002")).status_code == 403
    answer = await system.http.post(f"/registrations/{registration_id}/withdraw", headers=system.token(role))
    assert answer.status_code == 403
    assert names(await system.said()) == ["pre-registered"]


async def test_what_a_candidate_did_is_in_the_audit_trail_without_their_data(system: System) -> None:
    registration_id = await system.registered()
    await system.amend(registration_id, phone="13912340002")
    await system.withdraw(registration_id)
    trail = await system.rows("select actor_kind, action, subject, outcome, detail from audit order by id")
    assert [(row["actor_kind"], row["action"], row["subject"]) for row in trail] == [
        ("candidate", "amend", str(registration_id)),
        ("candidate", "withdraw", str(registration_id)),
    ]
    assert form()["phone"] not in str(trail)
    assert "13912340002" not in str(trail)


async def test_a_registration_that_does_not_exist_is_not_found(system: System) -> None:
    nobody = uuid4()
    for answer in (await system.amend(nobody, phone="13912340002"), await system.withdraw(nobody)):
        assert (answer.status_code, answer.json()["code"]) == (404, Code.NOT_FOUND)

"""Pre-registering: one active registration per person, one answer per key, nothing half written, nothing readable."""

from __future__ import annotations

import asyncio
import re
import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from contracts.confirmation import Lapsed
from contracts.refusals import Code
from contracts.registration import PreRegistered
from services.chassis import migrations, outbox
from tests.service.registration.system import System
from tests.support.under_test import names
from tests.unit.registration.samples import DURING, MICROSECOND, cycle, encoded, form, id_number, jpeg, people

OPENS = datetime(2023, 11, 30, 16, tzinfo=UTC)
CLOSES = datetime(2023, 12, 14, 16, tzinfo=UTC)
LAPSED_AT = datetime(2023, 12, 14, 4, tzinfo=UTC)


def lapsed(registration_id: UUID) -> Lapsed:
    return Lapsed(
        cycle_id=cycle().id, registration_id=registration_id, site_id="shizhong", closed_at=LAPSED_AT
    )


async def test_tables_and_migrations_agree(system: System) -> None:
    await migrations.drift(system.database.url, "registration")


async def test_a_candidate_gets_a_number_a_form_and_a_desk(system: System) -> None:
    answer = await system.pre_register()
    assert answer.status_code == 201
    given = answer.json()
    assert re.fullmatch(r"2024\d{8}", given["number"])
    assert re.fullmatch(given["number"] + r"-1-[A-Z2-7]{8}", given["form_code"])
    assert (given["form_version"], given["sequence"], given["state"]) == (1, 1, "pre-registered")
    assert given["site"] == {
        "id": "shizhong",
        "name": "市中区",
        "place": "市中区卫生健康局",
        "phone": "0833-2422047",
        "opens": "2023-12-07T16:00:00+00:00",
        "closes": "2023-12-14T04:00:00+00:00",
        "note": None,
    }
    (said,) = await system.said()
    assert said == PreRegistered(
        cycle_id="2024-health-leshan",
        registration_id=UUID(given["registration_id"]),
        site_id="shizhong",
        specialty_code="203",
        level="junior",
        subjects=(1, 2, 3, 4),
        form_version=1,
        returning=False,
    )
    assert said.envelope.time == DURING


async def test_who_chooses_the_undated_desk_is_told_who_will_name_the_days(system: System) -> None:
    given = (await system.pre_register(site_id="municipal")).json()
    assert (given["site"]["opens"], given["site"]["closes"]) == (None, None)
    assert "通知" in given["site"]["note"]


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (OPENS - MICROSECOND, Code.WINDOW_NOT_OPEN),
        (OPENS, None),
        (CLOSES - MICROSECOND, None),
        (CLOSES, Code.WINDOW_CLOSED),
    ],
)
async def test_the_window_opens_and_closes_to_the_microsecond(
    system: System, at: datetime, code: Code | None
) -> None:
    system.at(at)
    answer = await system.pre_register(site_id="wutongqiao")
    if code is None:
        assert answer.status_code == 201
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert await system.count("outbox") == 0


async def test_what_is_wrong_is_said_in_one_order_window_fields_desk_person(system: System) -> None:
    taken = await system.pre_register(site_id="wutongqiao")
    assert taken.status_code == 201
    system.at(datetime(2023, 12, 12, 16, tzinfo=UTC))  # gaoxin has just ended
    everything = {"site_id": "gaoxin", "phone": "1"}
    assert (await system.pre_register(**everything)).json()["code"] == Code.INVALID
    ended = (await system.pre_register(site_id="gaoxin")).json()
    assert ended["code"] == Code.DESK_CLOSED
    assert {"id": "jingyan", "name": "井研县", "closes": "2023-12-13T16:00:00+00:00"} in ended["hints"][
        "desks"
    ]
    assert (await system.pre_register(site_id="shawan")).json()["code"] == Code.ALREADY_REGISTERED
    system.at(CLOSES)
    assert (await system.pre_register(**everything)).json()["code"] == Code.WINDOW_CLOSED
    assert names(await system.said()) == ["pre-registered"]


async def test_fifty_submits_of_one_person_at_once_make_one_registration(system: System) -> None:
    accounts = [f"account-{n}" for n in range(50)]
    answers = await asyncio.gather(*(system.pre_register(account=account) for account in accounts))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49
    assert {answer.json().get("code") for answer in answers} == {None, Code.ALREADY_REGISTERED}
    assert [await system.count(table) for table in ("registrations", "people", "photos", "outbox")] == [1] * 4


async def test_the_database_itself_holds_one_active_registration_per_person(system: System) -> None:
    """The guard seen failing: without its index the fifty would be more than one."""
    async with system.database.unit_of_work() as uow:
        await uow.sql("drop index uq_registrations_active_identity")
    answers = await asyncio.gather(*(system.pre_register(account=f"account-{n}") for n in range(5)))
    assert [answer.status_code for answer in answers] == [201] * 5


async def test_another_edition_of_the_same_card_is_the_same_person(system: System) -> None:
    await system.registered(id_type="hk-macao-permit", id_number="H99900011")
    again = await system.pre_register(id_type="hk-macao-permit", id_number="h9990001102")
    assert again.json()["code"] == Code.ALREADY_REGISTERED


async def test_who_withdrew_may_register_again_under_a_new_number(system: System) -> None:
    first = await system.registered()
    assert (await system.withdraw(first)).status_code == 200
    second = await system.registered()
    assert second != first
    numbers = [row["number"] for row in await system.rows("select number from registrations")]
    assert len(set(numbers)) == 2
    assert (await system.pre_register()).json()["code"] == Code.ALREADY_REGISTERED


async def test_who_lapsed_may_register_again_while_the_window_is_open(system: System) -> None:
    first = await system.registered()
    system.at(LAPSED_AT)
    assert (await system.pre_register(site_id="shawan")).json()["code"] == Code.ALREADY_REGISTERED
    await system.deliver((lapsed(first), 1))
    assert await system.state(first) == "lapsed"
    second = await system.registered(site_id="shawan")
    assert await system.state(second) == "pre-registered"


async def test_the_same_request_again_gets_the_first_answer(system: System) -> None:
    first = await system.pre_register(key="first-try")
    assert first.status_code == 201
    again = await system.pre_register(key="first-try")
    assert (again.status_code, again.json()) == (201, first.json())
    other = await system.pre_register(key="first-try", phone="13912340009")
    assert (other.status_code, other.json()["code"]) == (409, Code.IDEMPOTENCY_CONFLICT)
    assert await system.count("registrations") == await system.count("outbox") == 1


async def test_twenty_copies_of_one_request_at_once_get_one_answer(system: System) -> None:
    answers = await asyncio.gather(*(system.pre_register(key="one") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["number"] for answer in answers}) == 1
    assert await system.count("registrations") == 1


async def test_a_refusal_is_not_remembered_under_its_key(system: System) -> None:
    assert (await system.pre_register(key="k", phone="1")).status_code == 422
    assert (await system.pre_register(key="k")).status_code == 201


async def test_every_wrong_field_is_named_also_those_that_cannot_be_read(system: System) -> None:
    answer = await system.pre_register(
        name=7, subjects=["1"], returning="no", phone="1", photo=None, hobby="x"
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert problem["code"] == "invalid"
    reasons = {field["field"]: field["reason"] for field in problem["fields"]}
    assert set(reasons) == {"name", "subjects", "returning", "phone", "photo", "hobby"}
    assert reasons["name"] == "应为文字。"
    assert reasons["hobby"] == "没有这一项。"
    assert await system.count("registrations") == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff\xfe"])
async def test_what_is_no_form_at_all_is_refused(system: System, body: bytes) -> None:
    answer = await system.http.post("/registrations", content=body, headers=system.token("candidate"))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_a_photo_straight_from_a_camera_is_a_field_error_too_although_nobody_reads_it(
    system: System,
) -> None:
    answer = await system.pre_register(photo="A" * 5_000_000)
    assert (answer.status_code, answer.json()["code"]) == (413, Code.INVALID)
    (field,) = answer.json()["fields"]
    assert (field["field"], field["reason"]) == ("photo", "照片文件不得大于 45 KB，请压缩后重新上传。")


async def test_a_photo_of_46_kb_is_a_field_error_not_a_body_that_is_too_large(system: System) -> None:
    answer = await system.pre_register(photo=encoded(jpeg() + bytes(46_081)))
    assert [field["field"] for field in answer.json()["fields"]] == ["photo"]


async def test_when_a_number_is_taken_another_is_drawn(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([1, 1, 1, 2])
    monkeypatch.setattr(secrets, "randbelow", lambda _: next(drawn))
    one, two = people(), people()
    next(two)
    await system.registered(id_number=next(one))
    await system.registered(id_number=next(two))
    assert [
        row["number"] for row in await system.rows("select number from registrations order by number")
    ] == [
        "202400000001",
        "202400000002",
    ]


async def test_when_no_free_number_is_found_nothing_is_half_written(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda _: 1)
    await system.registered()
    answer = await system.pre_register(id_number=id_number(order=99))
    assert (answer.status_code, answer.json()["code"]) == (503, Code.UNAVAILABLE)
    assert [await system.count(table) for table in ("registrations", "people", "photos", "outbox")] == [1] * 4


async def test_a_fault_on_the_way_leaves_nothing(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("the connection went away")

    monkeypatch.setattr(outbox, "add", fail)
    answer = await system.pre_register(key="k")
    assert (answer.status_code, answer.json()["code"]) == (503, Code.UNAVAILABLE)
    monkeypatch.undo()
    assert [await system.count(t) for t in ("registrations", "people", "photos", "idempotency_keys")] == [
        0
    ] * 4
    assert (await system.pre_register(key="k")).status_code == 201


async def test_it_takes_three_statements(system: System) -> None:
    await system.registered(id_number=id_number(order=500))
    with system.statements() as seen:
        assert (await system.pre_register()).status_code == 201
    assert len(seen) == 3, seen


async def test_nothing_of_a_person_can_be_read_in_the_database(system: System) -> None:
    typed = form(name="秘密·人名", employer_code="91350100M000100Y43")
    await system.registered(**typed)
    secrets_of = [typed[f] for f in ("name", "id_number", "phone", "email", "employer", "employer_code")]
    picture = jpeg()
    for table, rows in (await system.everything()).items():
        for row in rows:
            for column, value in row.items():
                held = value if isinstance(value, bytes) else str(value).encode()
                for secret in secrets_of:
                    assert secret.encode() not in held, f"{table}.{column}"
                assert picture[1000:1100] not in held, f"{table}.{column}"


async def test_a_value_moved_to_another_row_does_not_open(system: System) -> None:
    one = await system.registered()
    other = await system.registered(id_number=id_number(order=77))
    async with system.database.unit_of_work() as uow:
        await uow.sql(
            "update people set phone = (select phone from people where registration_id = $2) "
            "where registration_id = $1",
            one,
            other,
        )
    answer = await system.http.get(f"/registrations/{one}", headers=system.token(f"candidate:{one}"))
    assert answer.status_code == 500
    assert (await system.page_of(other))["person"]["phone"] == "139****0001"


async def test_the_photo_is_kept_without_its_metadata_and_opens_again(system: System) -> None:
    plain = jpeg()
    comment = plain[:2] + b"\xff\xfe\x00\x09secret\x00" + plain[2:]
    registration_id = await system.registered(photo=encoded(comment + b"PK tail"))
    (row,) = await system.rows("select * from photos")
    assert system.vault.decrypt(row["jpeg"], row=str(registration_id)) == plain
    assert (row["byte_size"], row["width"], row["height"]) == (len(plain), 413, 579)
    (column,) = await system.rows(
        "select attstorage from pg_attribute where attrelid = 'photos'::regclass and attname = 'jpeg'"
    )
    assert column["attstorage"] in ("e", b"e")


async def test_a_candidate_without_a_token_or_with_another_role_is_kept_out(system: System) -> None:
    nobody = await system.http.post("/registrations", json=form())
    assert (nobody.status_code, nobody.json()["code"]) == (401, Code.UNAUTHENTICATED)
    desk = await system.http.post("/registrations", json=form(), headers=system.token("desk:shizhong"))
    assert (desk.status_code, desk.json()["code"]) == (403, Code.FORBIDDEN)
    assert await system.count("registrations") == 0


async def test_the_first_moment_of_a_day_belongs_to_that_day_in_beijing(system: System) -> None:
    """Born yesterday in Beijing is a past date there, whatever the date is in UTC."""
    system.at(datetime(2023, 12, 5, 16, 30, tzinfo=UTC))  # 6 December, half past midnight in Beijing
    assert (await system.pre_register(id_number=id_number(datetime(2023, 12, 5).date()))).status_code == 201  # noqa: DTZ001
    today = await system.pre_register(id_number=id_number((DURING + timedelta(days=1)).date()))
    assert today.json()["fields"][0]["field"] == "id_number"

"""Who may see what: masked for people, open for the service that writes to them, and every look kept."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import httpx2
import pytest

from contracts.refusals import Code
from tests.service.registration.system import System
from tests.unit.registration.samples import form, id_number, photo


async def test_a_candidates_own_page_is_masked_too(system: System) -> None:
    one = await system.registered()
    page = await system.page_of(one)
    assert page["person"]["name"] == "吉**"
    assert page["person"]["phone"] == "139****0001"
    assert page["specialty"] == {"code": "203", "name": "护理学", "level": "junior", "level_name": "初级师"}
    assert page["subjects"][0] == {"number": 1, "name": "基础知识"}
    assert page["stages"]["levels"] == {"desk": None, "site": None, "district": None}
    assert page["stages"]["confirmation"]["deadline"] == "2023-12-14T04:00:00+00:00"
    shown = json.dumps(page, ensure_ascii=False)
    for secret in ("name", "id_number", "phone", "email"):
        assert form()[secret] not in shown
    assert await system.count("audit") == 0


@pytest.mark.parametrize(
    "role", ["candidate", "desk:shizhong", "reviewer:site", "ops", "service", f"candidate:{UUID(int=1)}"]
)
async def test_nobody_but_candidate_and_office_sees_the_page(system: System, role: str) -> None:
    one = await system.registered()
    answer = await system.http.get(f"/registrations/{one}", headers=system.token(role))
    assert (answer.status_code, answer.json()["code"]) == (403, Code.FORBIDDEN)


async def test_a_look_of_the_office_is_kept(system: System) -> None:
    one = await system.registered()
    assert (await system.page_of(one, role="office"))["person"]["name"] == "吉**"
    (look,) = await system.rows("select actor_kind, action, subject from audit")
    assert look == {"actor_kind": "office", "action": "look", "subject": str(one)}


async def test_a_page_that_does_not_exist_is_not_found(system: System) -> None:
    answer = await system.http.get(f"/registrations/{uuid4()}", headers=system.token("office"))
    assert (answer.status_code, answer.json()["code"]) == (404, Code.NOT_FOUND)
    malformed = await system.http.get("/registrations/x", headers=system.token("office"))
    assert (malformed.status_code, malformed.json()["code"]) == (422, Code.INVALID)


async def test_the_office_pages_through_everybody_once(system: System) -> None:
    made = {await system.registered(id_number=id_number(order=order)) for order in range(7)}
    seen: list[UUID] = []
    after: str | None = None
    while True:
        query = {"limit": "3"} | ({"after": after} if after else {})
        answer = (
            await system.http.get("/office/registrations", params=query, headers=system.token("office"))
        ).json()
        seen += [UUID(item["registration_id"]) for item in answer["items"]]
        after = answer["next"]
        if after is None:
            break
    assert len(seen) == 7
    assert set(seen) == made
    kept = await system.rows("select action, detail from audit order by id")
    assert [(row["action"], row["detail"]["shown"]) for row in kept] == [
        ("list", 3),
        ("list", 3),
        ("list", 1),
    ]


async def test_a_line_of_the_list_is_masked(system: System) -> None:
    one = await system.registered()
    (line,) = (await system.http.get("/office/registrations", headers=system.token("office"))).json()["items"]
    assert line | {"number": ""} == {
        "registration_id": str(one),
        "number": "",
        "state": "pre-registered",
        "state_text": "已预报名，待现场确认",
        "sequence": 1,
        "name": "吉**",
        "site_id": "shizhong",
        "specialty_code": "203",
        "subjects": [1, 2, 3, 4],
        "form_version": 1,
        "contact_to_fix": [],
    }


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"after": "x"}])
async def test_a_page_that_cannot_be_is_refused(system: System, query: dict[str, str]) -> None:
    answer = await system.http.get("/office/registrations", params=query, headers=system.token("office"))
    assert (answer.status_code, answer.json()["code"]) == (422, Code.INVALID)


async def test_the_service_that_writes_gets_contacts_in_one_go(system: System) -> None:
    ones = [await system.registered(id_number=id_number(order=n), phone=f"1391234000{n}") for n in range(3)]
    asked = [str(one) for one in ones] + [str(uuid4())]
    with system.statements() as seen:
        answer = await system.internal.post(
            "/internal/contacts", json={"registration_ids": asked}, headers=system.token("service")
        )
    assert len(seen) == 2, seen
    given = {contact["registration_id"]: contact for contact in answer.json()["contacts"]}
    assert set(given) == {str(one) for one in ones}
    assert [given[str(one)]["phone"] for one in ones] == ["13912340000", "13912340001", "13912340002"]
    assert {contact["email"] for contact in given.values()} == {form()["email"]}
    assert all(len(contact["number"]) == 12 for contact in given.values())
    (kept,) = await system.rows("select actor_kind, action, detail from audit")
    assert (kept["actor_kind"], kept["action"]) == ("service", "contacts")
    assert kept["detail"] == {"registration_ids": asked, "given": 3}


async def test_a_contact_that_does_not_open_keeps_nobody_elses_back(system: System) -> None:
    ones = [await system.registered(id_number=id_number(order=n), phone=f"1391234000{n}") for n in range(3)]
    await system.write("update people set phone = '\\x78' where registration_id = $1", ones[1])

    async def ask(*whom: UUID) -> httpx2.Response:
        return await system.internal.post(
            "/internal/contacts",
            json={"registration_ids": [str(one) for one in whom]},
            headers=system.token("service"),
        )

    given = (await ask(*ones)).json()["contacts"]
    assert {contact["registration_id"] for contact in given} == {str(ones[0]), str(ones[2])}
    assert (await ask(ones[1])).status_code >= 500, (
        "nothing opens: the keys are wrong, and it is worth asking again"
    )


async def test_whose_person_a_restore_could_not_give_back_has_no_contact_and_nobody_waits_for_one(
    system: System,
) -> None:
    one = await system.registered()
    await system.write("delete from photos")
    await system.write("delete from people")
    answer = await system.internal.post(
        "/internal/contacts", json={"registration_ids": [str(one)]}, headers=system.token("service")
    )
    (given,) = answer.json()["contacts"]
    assert (given["registration_id"], given["phone"], given["email"]) == (str(one), None, None)


async def test_contacts_are_for_a_service_and_on_the_internal_port_only(system: System) -> None:
    body = {"registration_ids": [str(uuid4())]}
    for role in ("office", "candidate", "ops", "desk:shizhong"):
        answer = await system.internal.post("/internal/contacts", json=body, headers=system.token(role))
        assert answer.status_code == 403
    outside = await system.http.post("/internal/contacts", json=body, headers=system.token("service"))
    assert outside.status_code == 404


async def test_more_than_500_contacts_at_once_are_refused(system: System) -> None:
    for many, status in ((500, 200), (501, 422)):
        answer = await system.internal.post(
            "/internal/contacts",
            json={"registration_ids": [str(uuid4()) for _ in range(many)]},
            headers=system.token("service"),
        )
        assert answer.status_code == status


async def test_no_refusal_repeats_what_was_typed(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    typed = {"name": "秘密9", "id_number": "999001199003070099", "phone": "12345678901", "email": "geheim@x"}
    answer = await system.pre_register(**typed)
    assert answer.status_code == 422
    logged = "".join(capsys.readouterr())
    for secret in typed.values():
        assert secret not in answer.text
        assert secret not in logged
    assert photo()[:60] not in answer.text

"""Who may read what, and what is shown."""

from __future__ import annotations

import pytest
from uuid_utils.compat import uuid7

from tests.service.notification.system import System


async def test_candidates_read_their_own_messages_as_they_were_sent(system: System) -> None:
    (one,) = await system.registered()
    answer = await system.call("GET", f"/registrations/{one}/messages", f"candidate:{one}")
    assert answer.status_code == 200
    items = answer.json()["items"]
    assert {(i["occasion"], i["channel"], i["state"]) for i in items} == {
        ("pre-registered", "sms", "delivered"),
        ("pre-registered", "email", "delivered"),
    }
    assert all("市中区卫生健康局" in i["text"] for i in items)


@pytest.mark.parametrize(
    ("role", "status"),
    [("office", 200), ("ops", 403), ("desk:shizhong", 403), ("candidate:someone", 403), (None, 401)],
)
async def test_nobody_else_reads_them(system: System, role: str | None, status: int) -> None:
    answer = await system.call("GET", f"/registrations/{uuid7()}/messages", role)
    assert answer.status_code == status


@pytest.mark.parametrize("role", [None, "ops", "candidate:x", "desk:shizhong", "service"])
async def test_the_list_of_all_messages_is_the_offices(system: System, role: str | None) -> None:
    assert (await system.call("GET", "/office/messages", role)).status_code == (403 if role else 401)


async def test_the_office_pages_through_every_message_once(system: System) -> None:
    people = await system.registered(7)
    seen: list[tuple[str, str]] = []
    after: str | None = None
    while True:
        query = "?limit=4" + (f"&after={after}" if after else "")
        page = (await system.call("GET", f"/office/messages{query}", "office")).json()
        seen += [(i["registration_id"], i["channel"]) for i in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == sorted((str(one), c) for one in people for c in ("sms", "email"))
    assert "phone" not in str(page)

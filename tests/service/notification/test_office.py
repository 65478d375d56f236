"""What the office and the desks read of messages: the funnel, whom nothing reached, and only their own people's."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from deploy.simulators.sms_carrier import DEAD_PREFIX
from services.notification import api
from tests.service.notification.system import System, due, expired, pre_registered

DEAD = f"{DEAD_PREFIX}0001"
LONG = pytest.mark.faults(long=True)  # `make test-faults` plays these
DESKS = ("shizhong", "emeishan")
ROLES = [
    "candidate", f"candidate:{UUID(int=1)}", "desk", "desk:shizhong", "desk:emeishan", "reviewer:site", "office", "ops",
    "service",
]  # fmt: skip
ROUTES = {
    "/office/messages/funnel": {"office"},
    "/office/messages/undelivered": {"office"},
    "/office/messages/promise": {"office", "ops"},
    **{
        f"/desks/{desk}/messages/{what}": {f"desk:{desk}"}
        for desk in DESKS
        for what in ("funnel", "undelivered")
    },
}


async def at_two_desks(system: System) -> tuple[UUID, UUID]:
    """One at each desk: the first's phone is dead, the second's mailbox unknown; both were told that they registered."""
    found = (uuid7(), uuid7())
    system.registry.add(found[0], phone=DEAD)
    system.registry.add(found[1], email="nobody@bounce.example.cn")
    await system.deliver(*(pre_registered(one, desk) for one, desk in zip(found, DESKS, strict=True)))
    await system.settle()
    return found


async def items(system: System, path: str, role: str = "office") -> list[dict[str, Any]]:
    answer = await system.call("GET", path, role)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_the_funnel_counts_occasion_channel_provider_and_state(system: System) -> None:
    people = await system.registered(3)
    system.at("2024-02-01 23:00")
    await system.deliver(due(people[0]))
    await system.mail_job.run()
    found = {
        (i["occasion"], i["channel"], i["provider"], i["state"]): (i["messages"], i["parts"], i["ambiguous"])
        for i in await items(system, "/office/messages/funnel")
    }
    assert found == {
        ("pre-registered", "sms", "aliyun", "delivered"): (3, 9, 0),
        ("pre-registered", "email", "smtp", "delivered"): (3, 0, 0),
        ("due", "sms", None, "created"): (1, 0, 0),
        ("due", "email", "smtp", "delivered"): (1, 0, 0),
    }
    of_one = await items(system, "/office/messages/funnel?occasion=due")
    assert {(i["occasion"], i["channel"]) for i in of_one} == {("due", "sms"), ("due", "email")}


async def test_whom_a_message_did_not_reach_is_listed_with_the_reason_and_only_the_ends_of_the_address(
    system: System,
) -> None:
    one, other = await at_two_desks(system)
    listed, of_mail = sorted(
        await items(system, "/office/messages/undelivered"), key=lambda item: item["channel"], reverse=True
    )
    shown = ("registration_id", "site_id", "tail", "address", "channel", "provider", "reason_code", "reason")
    assert {name: listed[name] for name in shown} == {
        "registration_id": str(one),
        "site_id": "shizhong",
        "tail": "0000",
        "address": f"{DEAD[:3]}****{DEAD[-4:]}",
        "channel": "sms",
        "provider": "aliyun",
        "reason_code": "number-not-in-use",
        "reason": "空号或停机",
    }
    assert (listed["told_otherwise"], listed["on_call_list"]) == (True, False), "the mail arrived"
    text = (await system.call("GET", "/office/messages/undelivered", "office")).text
    assert DEAD not in text
    assert "nobody@" not in text
    assert (of_mail["registration_id"], of_mail["address"]) == (str(other), "n***@bounce.example.cn")
    assert (of_mail["reason_code"], of_mail["reason"]) == ("mailbox-unknown", "邮箱不存在")


async def test_the_list_is_paged_and_filtered_without_losing_or_repeating_anybody(system: System) -> None:
    people = []
    for number in range(5):
        one = uuid7()
        system.registry.add(one, phone=f"{DEAD_PREFIX}{number:04d}")
        people.append(one)
    await system.deliver(*(pre_registered(one, DESKS[n % 2]) for n, one in enumerate(people)))
    await system.settle()
    system.at("2024-02-09 09:00")
    await system.deliver(expired(people[0]))
    await system.settle()
    seen: list[tuple[str, str]] = []
    after = ""
    while True:
        answer = (await system.call("GET", f"/office/messages/undelivered?limit=2{after}", "office")).json()
        seen += [(item["registration_id"], item["occasion"]) for item in answer["items"]]
        if answer["next"] is None:
            break
        after = f"&after={answer['next']}"
    assert sorted(seen) == sorted(
        [(str(one), "pre-registered") for one in people] + [(str(people[0]), "expired")]
    )
    of_desk = await items(system, "/office/messages/undelivered?site_id=emeishan")
    assert {item["registration_id"] for item in of_desk} == {str(people[1]), str(people[3])}
    of_both = await items(system, "/office/messages/undelivered?site_id=shizhong&occasion=expired")
    assert [item["registration_id"] for item in of_both] == [str(people[0])]
    assert (await system.call("GET", "/office/messages/undelivered?occasion=x", "office")).status_code == 422


async def test_a_desk_reads_its_own_people_and_nobody_elses(system: System) -> None:
    """I17."""
    one, other = await at_two_desks(system)
    system.at("2024-02-09 09:00")
    await system.deliver(expired(other))
    await system.settle()
    own = await items(system, "/desks/shizhong/messages/undelivered", "desk:shizhong")
    assert [item["registration_id"] for item in own] == [str(one)]
    theirs = await items(system, "/desks/emeishan/messages/undelivered", "desk:emeishan")
    assert {item["registration_id"] for item in theirs} == {str(other)}
    counted = await items(system, "/desks/shizhong/messages/funnel", "desk:shizhong")
    assert {(i["occasion"], i["messages"]) for i in counted} == {("pre-registered", 1)}
    counted = await items(system, "/desks/emeishan/messages/funnel", "desk:emeishan")
    assert {i["occasion"] for i in counted} == {"pre-registered", "expired"}
    every = await items(system, "/office/messages/funnel?site_id=shizhong")
    assert sum(i["messages"] for i in every) == 2


async def test_every_role_at_every_one_of_these_routes(system: System) -> None:
    """I17."""
    for path, welcome in ROUTES.items():
        assert (await system.call("GET", path, None)).status_code == 401
        for role in ROLES:
            answer = await system.call("GET", path, role)
            assert answer.status_code == (200 if role in welcome else 403), f"{role} at {path}"


def test_every_such_route_is_in_that_table() -> None:
    router = api.office_routes(None, None, 0.99)  # type: ignore[arg-type]  # only its routes are looked at
    listed = {path.replace(f"/desks/{desk}", "/desks/{site_id}") for path in ROUTES for desk in DESKS}
    listed = {path for path in listed if not any(f"/desks/{desk}" in path for desk in DESKS)}
    assert {route.path for route in router.routes} == listed  # type: ignore[attr-defined]  # all are APIRoute

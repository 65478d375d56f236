"""The dry run of the close: the list equals the real run when nothing changes in between, and looking changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deploy.evidence import commands
from deploy.evidence.reaching import Reach
from services.chassis.vault import Vault
from tests.service.payment.system import CLOSES, System, moment, rejected, withdrawn
from tests.service.payment.two_people import Office

LAST = "2024-02-08 23:57:59"


async def previewed(
    system: System, limit: int = 3, query: str = ""
) -> tuple[dict[UUID, dict[str, Any]], dict[str, Any]]:
    """Every page of the dry run, and its totals."""
    items: dict[UUID, dict[str, Any]] = {}
    page = await system.office(f"close/preview?limit={limit}{query}")
    totals: dict[str, Any] = page["totals"]
    while True:
        for item in page["items"]:
            assert UUID(item["registration_id"]) not in items, "listed twice"
            items[UUID(item["registration_id"])] = item
        if page["next"] is None:
            return items, totals
        page = await system.office(f"close/preview?limit={limit}&after={page['next']}{query}")
        assert "totals" not in page


async def forfeited(system: System) -> set[UUID]:
    return {row["registration_id"] for row in await system.rows("select registration_id from proofs")}


@pytest.mark.parametrize("seed", range(4))
async def test_the_dry_run_equals_the_real_run_when_nothing_changes_in_between(
    system: System, seed: int
) -> None:
    chance = random.Random(seed)
    gateway_answers = seed != 3
    people = await system.approved(24)
    lives = ["sleeps", "opens", "opens-and-pays-unheard", "paid", "lets-it-end", "rejected", "withdrawn"]
    life = {
        one: lives[place % len(lives)] if place < 14 else chance.choice(lives)
        for place, one in enumerate(people)
    }
    later = {one for one in people if chance.random() < 0.25}
    for one, how in life.items():
        if how == "lets-it-end":
            await system.ordered(one)
        if how == "paid":
            await system.paid_and_heard(await system.ordered(one))
    system.at("2024-01-30 12:00")
    await system.settle()
    # The window of some was extended: another close, in the same list.
    await system.write(
        "update obligations set closes_at = closes_at + interval '2 days', told_closes_at = told_closes_at + interval '2 days' "
        "where registration_id = any($1::uuid[])",
        list(later),
    )
    await system.deliver(*(rejected(one) for one, how in life.items() if how == "rejected"))
    await system.deliver(*(withdrawn(one) for one, how in life.items() if how == "withdrawn"))
    system.at(LAST)
    orders = {one: await system.ordered(one) for one, how in life.items() if how.startswith("opens")}
    system.at("2024-02-08 23:59:59")
    for one, order_no in orders.items():
        if life[one] == "opens-and-pays-unheard":
            system.pay(order_no)

    before = await system.everything()
    items, totals = await previewed(system)
    after = await system.everything()
    assert after == before, "looking changed something"

    would = {one: item["would"] for one, item in items.items()}
    certain = {one for one, what in would.items() if what == "forfeit"}
    asked = {one for one, what in would.items() if what == "ask"}
    assert {life[one] for one in certain} == {"sleeps", "lets-it-end"}
    assert asked == set(orders)
    for one, order_no in orders.items():
        assert items[one]["open_order"]["order_no"] == order_no
        assert items[one]["why"] == "order-under-way"
    assert {items[one]["why"] for one in certain if life[one] == "lets-it-end"} == {"orders-unpaid"}
    assert {items[one]["why"] for one in certain if life[one] == "sleeps"} == {"never-ordered"}
    assert totals["forfeit"] == {"registrations": len(certain), "amount_fen": 20_000 * len(certain)}
    assert totals["ask"]["in_flight_fen"] == 20_000 * len(orders)
    assert sum(row["registrations"] for row in totals["by_reason"]) == len(items)

    # The real run: first of the people whose window was not extended, then of the others.
    if not gateway_answers:
        system.gateway_down(7 * 86_400)
    expected: set[UUID] = set()
    for close, concerned in (
        (moment(CLOSES), set(people) - later),
        (moment(CLOSES) + timedelta(days=2), later),
    ):
        system.clock.jump(close)
        await system.close()
        expected |= certain & concerned
        if gateway_answers:
            expected |= {one for one in asked & concerned if life[one] == "opens"}
        assert await forfeited(system) == expected
    for one in asked:
        wanted = (
            {"opens": "expired", "opens-and-pays-unheard": "paid"}[life[one]] if gateway_answers else "held"
        )
        assert await system.status(one) == wanted

    # Whoever is held is still in the list, under the same word.
    items, totals = await previewed(system)
    assert set(items) == (set() if gateway_answers else asked)
    assert {item["state"] for item in items.values()} <= {"held"}


async def test_the_dry_run_may_be_of_one_window_only(system: System) -> None:
    first, second = await system.approved(2)
    await system.write(
        "update obligations set closes_at = closes_at + interval '1 day' where registration_id = $1", second
    )
    items, totals = await previewed(system, query="&closes_at=2024-02-08T16:00:00Z")
    assert set(items) == {first}
    assert totals["forfeit"]["registrations"] == 1
    items, totals = await previewed(system, query="&closes_at=2024-02-09T16:00:00Z")
    assert set(items) == {second}


async def test_who_has_several_codes_under_way_stands_there_once_with_all_the_money(system: System) -> None:
    await system.with_alipay()
    people = await system.approved(4)
    latest = ""
    for one in people[:2]:
        await system.ordered(one, "alipay")
        system.clock.jump(system.clock.now() + timedelta(minutes=1))
        latest = await system.ordered(one, "wechat")
    for limit in (1, 2):
        items, _ = await previewed(system, limit=limit)
        assert set(items) == set(people)
    items, totals = await previewed(system)
    assert set(items) == set(people)
    assert (items[people[1]]["open_order"]["order_no"], items[people[1]]["orders"]) == (latest, 2)
    assert (items[people[1]]["open_order"]["amount_fen"], items[people[1]]["in_flight_fen"]) == (
        20_000,
        40_000,
    )
    assert items[people[3]]["in_flight_fen"] == 0
    assert totals["ask"] == {"registrations": 2, "amount_fen": 40_000, "in_flight_fen": 80_000}


async def test_a_desk_sees_its_own_people_and_the_office_how_many_each_has(system: System) -> None:
    here, there, unknown = await system.approved(3)
    await system.write("update obligations set site_id = 'ebian' where registration_id = $1", here)
    await system.write("update obligations set site_id = 'shizhong' where registration_id = $1", there)
    await system.ordered(here)
    answer = await system.call("GET", "/desks/ebian/close/preview", "desk:ebian")
    page = answer.json()
    assert [(UUID(one["registration_id"]), one["why"]) for one in page["items"]] == [
        (here, "order-under-way")
    ]
    assert page["totals"]["ask"] == {"registrations": 1, "amount_fen": 20_000, "in_flight_fen": 20_000}
    assert page["totals"]["forfeit"]["registrations"] == 0
    (line,) = await system.rows("select * from audit where action = 'close-previewed'")
    assert (line["actor_kind"], line["detail"]["site_id"], line["detail"]["listed"]) == ("desk", "ebian", 1)

    items, totals = await previewed(system)
    assert set(items) == {here, there, unknown}
    assert [
        (one["site_id"], one["forfeit"]["registrations"], one["ask"]["registrations"])
        for one in totals["by_site"]
    ] == [("ebian", 0, 1), ("shizhong", 1, 0), (None, 1, 0)]
    assert [(one["why"], one["registrations"]) for one in totals["by_reason"]] == [
        ("order-under-way", 1),
        ("never-ordered", 2),
    ]
    items, _ = await previewed(system, query="&site=shizhong")
    assert set(items) == {there}
    answer = await system.call("GET", "/office/close/preview?site=nowhere", "office")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_a_desk_sees_nobody_elses_people(system: System) -> None:
    await system.owing()
    for role in ("desk:shizhong", "candidate:x", "ops", "office"):
        assert (await system.call("GET", "/desks/ebian/close/preview", role)).status_code == 403
    assert await system.rows("select * from audit where action = 'close-previewed'") == []


async def test_while_a_restore_is_made_up_for_the_dry_run_lists_nobody_as_forfeited(system: System) -> None:
    candidate = await system.owing()
    await system.write(
        "insert into recoveries (recovery_id, backup_at, begun_at) values (uuidv7(), $1, $1)", moment(CLOSES)
    )
    items, totals = await previewed(system)
    assert (items[candidate]["would"], items[candidate]["why"]) == ("spare", "restore-under-way")
    assert totals["forfeit"]["registrations"] == 0


async def test_while_a_later_close_is_being_decided_the_dry_run_spares_whom_it_would_move(
    system: System,
) -> None:
    candidate, orderer = await system.approved(2)
    system.at(LAST)
    order_no = await system.ordered(orderer)
    decision = await Office(system).asked()
    items, totals = await previewed(system)
    for one in (candidate, orderer):
        assert (items[one]["would"], items[one]["why"]) == ("spare", "decision-under-way")
    assert (totals["spare"]["registrations"], totals["spare"]["in_flight_fen"]) == (2, 20_000)
    assert totals["ask"]["in_flight_fen"] == 0
    system.at(CLOSES)
    await system.close()
    assert [await system.status(one) for one in (candidate, orderer)] == ["awaiting", "awaiting"]
    assert (await system.order_row(order_no))["status"] == "open"
    assert decision["state"] == "asked"


async def test_only_the_office_may_look_and_every_look_is_in_the_audit_trail(system: System) -> None:
    await system.owing()
    for role in (None, "ops", "candidate:x", "desk:shizhong"):
        answer = await system.call("GET", "/office/close/preview", role)
        assert answer.status_code == (401 if role is None else 403)
    assert await system.rows("select * from audit where action = 'close-previewed'") == []
    await system.office("close/preview")
    (line,) = await system.rows("select * from audit where action = 'close-previewed'")
    assert (line["actor_kind"], line["actor"]) == ("office", "account-of-office")
    assert (line["subject"], line["detail"]["listed"]) == (system.cycle.id, 1)


async def test_the_terminal_shows_the_same_list(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @asynccontextmanager
    async def here(*_: object, **__: object) -> AsyncIterator[Reach]:
        yield Reach(
            system.cycle,
            system.database,
            system.database,
            Vault.open(system.settings.vault_keys_file, "local"),
            {},
        )

    monkeypatch.setattr(commands, "_reach", here)
    sleeper, orderer = await system.approved(2)
    order_no = await system.ordered(orderer)
    assert await commands.preview(tmp_path, None, use_given=False, as_json=True) == 0
    shown = json.loads("{" + capsys.readouterr().out.partition("\n{\n")[2])
    page = await system.office("close/preview")
    assert (shown["items"], shown["totals"]) == (page["items"], page["totals"])
    assert await commands.preview(tmp_path, None, use_given=False, as_json=False) == 0
    text = capsys.readouterr().out
    assert str(sleeper) in text
    assert order_no in text
    assert "视为自动放弃" in text
    assert "200.00" in text
    assert await commands.preview(tmp_path, None, site_id="ebian", use_given=False, as_json=False) == 0
    assert "ebian: 没有人欠费" in capsys.readouterr().out
    never = moment(CLOSES) + timedelta(minutes=5)
    assert await commands.preview(tmp_path, never, use_given=False, as_json=False) == 1
    assert "no window closes at" in capsys.readouterr().err
    assert await commands.preview(tmp_path, moment(CLOSES), use_given=False, as_json=False) == 0
    assert "缴费截止 2024-02-09 00:00" in capsys.readouterr().out
    assert await commands.preview(tmp_path, None, site_id="nowhere", use_given=False, as_json=False) == 1
    assert "there is no desk nowhere in this cycle: shizhong" in capsys.readouterr().err

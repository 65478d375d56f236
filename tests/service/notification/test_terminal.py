"""`kaowu messages`: the same lists in a terminal, of a running service, and what it says where there is none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from uuid_utils.compat import uuid7

from deploy.cli import app
from deploy.simulators.http import Reply, Request, serving
from deploy.simulators.sms_carrier import DEAD_PREFIX
from tests.service.notification.system import START, System, closing_soon, moment

DEAD = f"{DEAD_PREFIX}0001"


async def kaowu(system: System, *arguments: str, role: str = "office") -> Result:
    """The command, at the service's real routes, in a thread of its own as it has a loop of its own."""

    async def door(request: Request) -> Reply:
        headers = {"authorization": request.headers["authorization"]}
        answer = await system.http.request(request.method, request.target, headers=headers)
        return Reply(answer.status_code, answer.content)

    token = system.tokens.mint(role, "somebody", at=moment(START))
    async with serving(door) as url:
        return await asyncio.to_thread(
            CliRunner().invoke, app, ["messages", *arguments, "--url", url, "--token", token]
        )


async def reminded(system: System) -> str:
    """One whose reminder of the last day reached nobody, on the desk's list."""
    (one,) = await system.registered(phone=DEAD, email=None)
    system.at("2024-02-08 09:00")
    await system.deliver(closing_soon(one))
    await system.settle()
    await system.calls_job.run()
    return str(one)


async def test_the_office_reads_funnel_promise_carriers_and_whom_nothing_reached(system: System) -> None:
    one = await reminded(system)
    shown = await kaowu(system)
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()

    def line(*words: str) -> str:
        found = [line for line in lines if all(word in line for word in words)]
        assert len(found) == 1, (words, shown.output)
        return found[0]

    assert line("02-09 00:00", "02-08 18:00").split()[4:7] == ["1", "0", "0"]
    assert line("02-09 00:00", "02-08 18:00").rstrip().endswith("✗")
    assert "100.0/100.0" in line("burn rate")
    assert line("缴费将截止", "短信", "aliyun").split()[-2:] == ["1", "2"]
    assert "正常" in line("aliyun", "100")
    assert f"{DEAD[:3]}****{DEAD[-4:]}" in line(one, "短信", "缴费将截止", "空号或停机")
    assert f"{DEAD[:3]}****{DEAD[-4:]}" in line(one, "空号或停机", "02-09 00:00")
    assert DEAD not in shown.output


async def test_of_one_registration_it_shows_the_text_that_was_sent(system: System) -> None:
    one = await reminded(system)
    shown = await kaowu(system, one)
    assert shown.exit_code == 0
    body = (
        await system.rows("select body from messages where occasion = 'closing-soon' and channel = 'sms'")
    )[0]
    assert body["body"] in shown.output
    assert "缴费将截止 closing-soon · 短信 aliyun · 未送达" in shown.output
    nobody = await kaowu(system, str(uuid7()))
    assert (nobody.exit_code, "no messages" in nobody.output) == (0, True)


async def test_for_programs_it_is_one_document_and_can_be_narrowed_to_a_desk(system: System) -> None:
    one = await reminded(system)
    found = json.loads((await kaowu(system, "--json", "--site", "shizhong")).stdout)
    assert set(found) == {"promise", "funnel", "providers", "undelivered", "calls"}
    assert {item["registration_id"] for item in found["undelivered"]["items"]} == {one}
    other = json.loads((await kaowu(system, "--json", "--site", "emeishan")).stdout)
    assert (other["undelivered"]["items"], other["calls"]["items"], other["funnel"]["items"]) == ([], [], [])
    cut = await kaowu(system, "--limit", "1", "--occasion", "closing-soon")
    assert "更多" in cut.output
    assert "预报名成功" not in cut.output


async def given(system: System, *arguments: str, **environ: str) -> Result:
    """The command, of the system that the environment names; none of its services runs for it."""
    named = {
        "NOTIFICATION_DATABASE_URL": system.settings.database_url,
        "NOTIFICATION_VAULT_KEYS_FILE": str(system.settings.vault_keys_file),
        "KAOWU_ENVIRONMENT": "local",
        **environ,
    }
    return await asyncio.to_thread(
        CliRunner().invoke, app, ["messages", "--given", *arguments], env=named | {"KAOWU_TOKEN": None}
    )


async def test_of_the_given_system_it_shows_what_a_running_service_shows(system: System) -> None:
    one = await reminded(system)
    theirs = json.loads((await given(system, "--json")).stdout)
    running = json.loads((await kaowu(system, "--json")).stdout)
    # The two have clocks of their own: only what the moment of asking changes may differ.
    for found in (theirs, running):
        del found["funnel"]["at"], found["promise"]
    assert theirs == running
    assert {item["registration_id"] for item in theirs["undelivered"]["items"]} == {one}
    shown = await given(system, one)
    assert (shown.exit_code, shown.stdout) == (0, (await kaowu(system, one)).stdout)
    both = await given(
        system, "--json", NOTIFICATION_TENCENT_ACCOUNT_FILE="x", NOTIFICATION_PROMISE_SHARE="0.9"
    )
    found = json.loads(both.stdout)
    assert [item["provider"] for item in found["providers"]["items"]] == ["aliyun", "tencent"]
    assert found["promise"]["goal"] == 0.9


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        (
            {"NOTIFICATION_DATABASE_URL": "", "NOTIFICATION_VAULT_KEYS_FILE": ""},
            "set NOTIFICATION_DATABASE_URL, ",
        ),
        ({"NOTIFICATION_VAULT_KEYS_FILE": "/nowhere"}, "/nowhere"),
        ({"NOTIFICATION_DATABASE_URL": "postgresql://n:pw@127.0.0.1:9/n"}, "does not answer as one of ours"),
        ({"NOTIFICATION_PROMISE_SHARE": "most"}, "NOTIFICATION_PROMISE_SHARE is no number"),
    ],
)
async def test_what_is_missing_of_the_given_system_is_named(
    system: System, environ: dict[str, str], why: str
) -> None:
    shown = await given(system, **environ)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert why in shown.stderr
    assert "pw" not in shown.stderr
    assert "Traceback" not in shown.output


async def test_it_says_why_it_shows_nothing(system: System) -> None:
    refused = await kaowu(system, role="ops")
    assert (refused.exit_code, "承诺" in refused.stdout) == (1, False)
    assert "answers 403: the token is not an office's" in refused.stderr
    unknown = await kaowu(system, "--occasion", "birthday")
    assert unknown.exit_code == 2
    assert "closing-soon" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--url", "http://127.0.0.1:9", "--token", "x"], "does not answer (ConnectionRefusedError)"),
        (["--url", "nonsense", "--token", "x"], "is no address of a service"),
        (["--url", "http://127.0.0.1:9"], "needs the office's token"),
        (["--data", "DIRECTORY"], "no local system in"),
        (["--given", "--data", "DIRECTORY"], "without --data and --url"),
    ],
)
def test_where_nothing_runs_it_says_what_to_do(tmp_path: Path, arguments: list[str], why: str) -> None:
    given = [str(tmp_path) if one == "DIRECTORY" else one for one in arguments]
    shown = CliRunner().invoke(app, ["messages", *given], env={"KAOWU_TOKEN": None})
    assert shown.exit_code == 1
    assert why in shown.stderr
    assert "Traceback" not in shown.output

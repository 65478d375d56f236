"""Mail that comes back: which message it undoes, why, and what can be sent to the return path without any effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.notification import Delivered, Undeliverable
from deploy.simulators.bouncing import BOUNCING, bounce_of
from deploy.simulators.sms_carrier import DEAD_PREFIX, SILENT_PREFIX
from services.chassis.jobs import Job
from services.chassis.process import CannotStart
from services.notification import app
from services.notification.adapters.bounces import LARGEST, BounceBox, read_bounce
from services.notification.adapters.return_path import ReturnPath
from services.notification.adapters.smtp import SmtpAccount
from services.notification.domain.returned import Bounce, Left, reason_word
from services.notification.handlers.bounces import BOUNCES
from tests.conftest import ServiceDatabase
from tests.service.notification.system import System, closing_soon, expired, paid, receipts, running

PATH = ReturnPath("bounce@office.example.cn", b"0123456789abcdef")
ID = UUID("018c0000-0000-8000-8000-000000000001")
TO = PATH.of(ID)
AT = datetime(2024, 2, 1, tzinfo=UTC)
ORIGINAL = b"From: exam@office.example.cn\nSubject: x\nMessage-ID: <m@office.example.cn>\n\nbody\n"


def report(**changed: str) -> bytes:
    """A report as most servers write it."""
    raw = bounce_of("report", TO, "gone@example.cn", ORIGINAL, AT).decode()
    for before, after in changed.items():
        raw = raw.replace(
            {"action": "Action: failed", "status": "Status: 5.1.1", "diagnostic": "550 5.1.1"}[before], after
        )
    return raw.encode()


def plain(sender: str, subject: str, text: str, charset: str = "utf-8") -> bytes:
    return f"From: {sender}\nTo: {TO}\nSubject: {subject}\nContent-Type: text/plain; charset={charset}\n\n{text}\n".encode(
        charset
    )


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("report", Bounce(ID, "5.1.1")),
        ("report-full", Bounce(ID, "5.2.2")),
        ("report-delayed", Left.DELAYED),
        ("qq", Bounce(ID, "5.1.1")),
        ("netease", Bounce(ID, "5.2.2")),
    ],
)
def test_each_form_in_which_mail_comes_back_is_understood(how: str, found: object) -> None:
    assert set(BOUNCING.values()) == {"report", "report-full", "report-delayed", "qq", "netease"}
    assert read_bounce(bounce_of(how, TO, "gone@example.cn", ORIGINAL, AT), PATH) == found


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (report(action="Action: delivered"), Left.OTHER),
        (report(action="Action: Failed"), Bounce(ID, "5.1.1")),
        (report(status="Status: nonsense", diagnostic="550 no"), Bounce(ID, "5.0.0")),
        (report(status="Status: 4.4.7"), Bounce(ID, "4.4.7")),
        (
            plain(
                "MAILER-DAEMON@mx.example.cn",
                "failure notice",
                "Sorry, no mailbox here by that name (#5.1.1)",
            ),
            Bounce(ID, "5.1.1"),
        ),
        (
            plain(
                "Postmaster@163.example.cn", "系统退信", "邮件地址（x@163.example.cn）不存在，邮件无法送达"
            ),
            Bounce(ID, "5.1.1"),
        ),
        (plain("postmaster@mx.example.cn", "退信", "邮箱已停用", "gb18030"), Bounce(ID, "5.2.1")),
        (plain("postmaster@mx.example.cn", "Returned mail", "who knows why"), Bounce(ID, "5.0.0")),
        (plain("postmaster@mx.example.cn", "Warning", "We will keep trying until"), Left.DELAYED),
        (plain("postmaster@mx.example.cn", "Maintenance", "on Sunday"), Left.OTHER),
        (plain("candidate@example.cn", "退信", "该用户不存在"), Left.OTHER),
        (plain("postmaster@mx.example.cn", "自动回复：退信", "我在休假，用户不存在"), Left.OTHER),
    ],
    ids=[
        "arrived",
        "capitals",
        "no-status",
        "expired",
        "qmail",
        "netease",
        "gb18030",
        "unexplained",
        "still-trying",
        "a-letter",
        "from-a-person",
        "on-holiday",
    ],
)
def test_only_a_failure_is_a_bounce(raw: bytes, found: object) -> None:
    assert read_bounce(raw, PATH) == found


def test_a_bounce_is_for_the_one_message_whose_address_it_came_to() -> None:
    other = PATH.of(UUID(int=2))
    assert read_bounce(report().replace(TO.encode(), b"bounce@office.example.cn"), PATH) is Left.FOREIGN
    assert (
        read_bounce(report().replace(f"\nTo: {TO}".encode(), f"\nTo: {other}".encode()), PATH) is Left.FOREIGN
    )
    forged = TO.replace("bounce+", "bounce+a")
    assert read_bounce(report().replace(TO.encode(), forged.encode()), PATH) is Left.FORGED
    elsewhere = ReturnPath("bounce@office.example.cn", b"somebody else's key")
    assert read_bounce(report(), elsewhere) is Left.FORGED


@settings(max_examples=100, deadline=None)
@given(
    cut=st.integers(0, 1200),
    junk=st.binary(max_size=80),
    where=st.integers(0, 1200),
)
def test_whatever_comes_is_judged_and_never_fails(cut: int, junk: bytes, where: int) -> None:
    raw = report()
    assert isinstance(
        read_bounce(raw[:where] + junk + raw[where : max(where, len(raw) - cut)], PATH), Bounce | Left
    )


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("5.1.1", "mailbox-unknown"), ("5.1.2", "domain-unknown"), ("5.1.10", "domain-unknown"), ("5.2.1", "mailbox-disabled"),
        ("5.2.2", "mailbox-full"), ("4.2.2", "mailbox-full"), ("5.3.4", "mail-too-big"), ("4.4.7", "not-reached"),
        ("5.7.1", "refused"), ("5.0.0", "refused"),
    ],
)  # fmt: skip
def test_the_reason_is_a_word_of_ours(status: str, word: str) -> None:
    assert reason_word(status) == word


def test_a_huge_mail_is_not_even_read(tmp_path: Path) -> None:
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "new" / "1.huge").write_bytes(report() + b"x" * LARGEST)
    box = BounceBox(tmp_path, PATH)
    assert box.has_new()
    found = asyncio.run(box.waiting(10))
    assert [one.what for one in found] == [Left.HUGE]
    asyncio.run(box.done(found))
    assert not box.has_new()
    assert [file.name for file in (tmp_path / "cur").iterdir()] == ["1.huge:2,S"]


# --- in the service


@pytest.fixture
async def office(
    service_database: ServiceDatabase, tmp_path: Path, carrier_keys: Path
) -> AsyncIterator[System]:
    """The service with a mailbox for what comes back."""
    async with running(await service_database("notification"), tmp_path, carrier_keys) as system:
        await system.end()
        system.settings = system.settings.model_copy(
            update={"bounces_maildir": system.world.mailbox.bouncer.directory}
        )
        system.start()
        yield system


async def read_box(office: System) -> None:
    job = next(job for job in office.process.jobs.jobs if job.name == "read-bounces")
    assert await job.run() is None


def counted(outcome: str) -> float:
    return float(BOUNCES.labels(outcome)._value.get())


async def test_a_mail_that_comes_back_was_not_delivered_after_all(office: System) -> None:
    [one] = await office.registered(email="gone@example.cn")
    assert (await office.states(one, "pre-registered")) == {"sms": "delivered", "email": "delivered"}
    taken, repeated = counted("taken"), counted("repeated")
    await read_box(office)
    row = (await office.messages(one, "pre-registered"))["email"]
    assert (row["state"], row["reason_code"], row["carrier_code"]) == (
        "undelivered",
        "mailbox-unknown",
        "5.1.1",
    )
    said = [event for event in await office.told() if event.channel == "email"]
    assert [type(event) for event in said] == [Delivered, Undeliverable]
    assert said[-1].reason_code == "mailbox-unknown"
    directory = office.world.mailbox.bouncer.directory
    assert list((directory / "new").iterdir()) == list((directory / "cur").iterdir()) == []
    # The same once more: a server that says it twice is heard once.
    envelope = office.world.mailbox.path_of(0)
    office.world.mailbox.bouncer.put(bounce_of("report", envelope, "gone@example.cn", ORIGINAL, AT))
    await read_box(office)
    assert len([event for event in await office.told() if event.channel == "email"]) == 2
    assert (counted("taken") - taken, counted("repeated") - repeated) == (1, 1)


async def test_what_is_forged_foreign_or_no_bounce_changes_nothing_and_is_counted(office: System) -> None:
    [one] = await office.registered()
    before = await office.told()
    put = office.world.mailbox.bouncer.put
    envelope = office.world.mailbox.path_of(0)
    put(report())  # by a key that is not ours
    put(report().replace(TO.encode(), b"bounce@office.example.cn"))
    put(bounce_of("report-delayed", envelope, "p0@example.cn", ORIGINAL, AT))
    put(b"\x00\xff not a mail")
    counts = {what: counted(what) for what in ("forged", "foreign", "delayed", "taken")}
    await read_box(office)
    assert {what: counted(what) - count for what, count in counts.items()} == {
        "forged": 1, "foreign": 2, "delayed": 1, "taken": 0,
    }  # fmt: skip
    assert (await office.states(one, "pre-registered"))["email"] == "delivered"
    assert await office.told() == before
    assert len(list((office.world.mailbox.bouncer.directory / "cur").iterdir())) == 4


async def test_a_bounce_of_a_mail_that_never_was_is_unknown(office: System) -> None:
    account = SmtpAccount.read(office.settings.smtp_account_file)
    assert account.return_path
    office.world.mailbox.bouncer.put(report().replace(TO.encode(), account.return_path.of(ID).encode()))
    before = counted("unknown")
    await read_box(office)
    assert counted("unknown") - before == 1


async def test_an_sms_is_never_undone_by_a_mail(office: System) -> None:
    [one] = await office.registered()
    sms = (await office.messages(one, "pre-registered"))["sms"]["message_id"]
    account = SmtpAccount.read(office.settings.smtp_account_file)
    assert account.return_path
    office.world.mailbox.bouncer.put(report().replace(TO.encode(), account.return_path.of(sms).encode()))
    await read_box(office)
    assert (await office.states(one, "pre-registered")) == {"sms": "delivered", "email": "delivered"}


async def test_whoever_neither_sms_nor_mail_told_of_the_end_is_looked_at_again(office: System) -> None:
    [one] = await office.registered(email="gone@example.cn", phone=f"{SILENT_PREFIX}0001")
    await read_box(office)
    office.at("2024-02-09 09:00")
    await office.deliver(expired(one))
    await office.settle(receipts=False)
    # The desk's list was made up while the mail counted as delivered.
    await office.write("update messages set call_at = null where registration_id = $1", one)
    await office.hear_receipts()
    await read_box(office)
    rows = await office.messages(one, "expired")
    assert rows["email"]["state"] == "undelivered"
    assert rows["sms"]["call_at"] is not None


async def test_a_reminder_that_bounces_after_the_phone_rang_calls_nobody(office: System) -> None:
    [one] = await office.registered(email="gone@example.cn")
    office.at("2024-02-08 09:00")
    await office.deliver(closing_soon(one))
    await office.settle()
    await read_box(office)
    rows = await office.messages(one, "closing-soon")
    assert (rows["sms"]["state"], rows["email"]["state"]) == ("delivered", "undelivered")
    assert not [row for row in await office.rows("select * from calls") if row["registration_id"] == one]


async def reminded_twice(office: System) -> tuple[UUID, Job]:
    """On the last day, of whom no SMS and, as is said a minute later, no mail reaches: on the list, and off it by the second
    mail, which has not come back yet. Also the job that keeps the list."""
    calls = next(job for job in office.process.jobs.jobs if job.name == "call-list")
    (one,) = await office.registered(email="gone@example.cn", phone=f"{DEAD_PREFIX}0001")
    office.at("2024-02-08 18:00")
    await office.deliver(closing_soon(one, hours=6))
    await office.settle()
    await read_box(office)
    await calls.run()
    assert [row["outcome"] for row in await office.rows("select outcome from calls")] == [None]
    office.at("2024-02-08 22:00")
    await office.deliver(closing_soon(one, hours=2))
    await office.settle()
    return one, calls


async def test_who_left_the_list_by_a_mail_that_came_back_is_on_it_again(office: System) -> None:
    """Two reminders of the last day. The server took the second one's mail, and said a minute later that nobody is there."""
    _, calls = await reminded_twice(office)
    assert [row["outcome"] for row in await office.rows("select outcome from calls")] == ["told"]
    await read_box(office)
    await calls.run()
    (row,) = await office.rows("select outcome, closed_at, attempts from calls")
    assert (row["outcome"], row["closed_at"]) == (None, None)


async def test_whoever_paid_before_the_mail_came_back_is_not_on_the_list_again(office: System) -> None:
    one, _ = await reminded_twice(office)
    await office.deliver(paid(one))
    await read_box(office)
    assert [row["outcome"] for row in await office.rows("select outcome from calls")] == ["settled"]


async def test_who_has_heard_otherwise_stays_off_the_list_when_a_mail_comes_back(office: System) -> None:
    calls = next(job for job in office.process.jobs.jobs if job.name == "call-list")
    [one] = await office.registered(email="gone@example.cn", phone=f"{SILENT_PREFIX}0001")
    office.at("2024-02-08 18:00")
    await office.deliver(closing_soon(one, hours=6))
    await office.settle()
    await read_box(office)
    office.at("2024-02-08 18:31")
    await calls.run()
    office.at("2024-02-08 22:00")
    await office.deliver(closing_soon(one, hours=2))
    await office.settle()
    await office.push(receipts(office.sms_to(one)[-1:]))
    assert [row["outcome"] for row in await office.rows("select outcome from calls")] == ["told"]
    await read_box(office)
    await calls.run()
    assert [row["outcome"] for row in await office.rows("select outcome from calls")] == ["told"]


async def test_a_mailbox_without_return_paths_or_no_mailbox_stops_the_start(
    office: System, tmp_path: Path
) -> None:
    with pytest.raises(CannotStart, match="no maildir"):
        app.create_app(office.settings.model_copy(update={"bounces_maildir": tmp_path / "nothing"}))
    account = tmp_path / "open.json"
    account.write_text(
        '{"host": "127.0.0.1", "port": 25, "security": "none", "sender": "a@b.cn", "sender_name": "x"}',
        encoding="utf-8",
    )
    with pytest.raises(CannotStart, match="return paths"):
        app.create_app(office.settings.model_copy(update={"smtp_account_file": account}))

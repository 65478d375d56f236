"""The line to the relay: closed to others, only to the relay we mean, and known there; what it refuses and when."""

from __future__ import annotations

import asyncio
import dataclasses
import email
import email.policy
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.simulators.mail_credentials import MailWorld
from services.notification.adapters.return_path import Forged, ReturnPath
from services.notification.adapters.smtp import CERTIFICATE, NO_TLS, SmtpAccount, SmtpMail
from services.notification.ports import Letter, NoAnswer, Rejected
from tests.simulators.outside import Outside, outside

TO = "candidate@example.cn"
LETTER = Letter("缴费", "请缴费。\n", "<!doctype html><p>请缴费。</p>")
M1, M2 = str(UUID(int=1)), str(UUID(int=2))
KEY = b"0123456789abcdef"


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        yield stage


@pytest.fixture
def account(stage: Outside) -> SmtpAccount:
    return SmtpAccount.read(stage.world.accounts["smtp"])


async def say(stage: Outside, *lines: str) -> list[str]:
    """What the simulated relay answers to these, said in the open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.world.smtp_port)
    await reader.readline()
    answers = []
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        answer = await asyncio.wait_for(reader.readline(), 5)
        while answer[3:4] == b"-":
            answers.append(answer.decode().strip())
            answer = await asyncio.wait_for(reader.readline(), 5)
        answers.append(answer.decode().strip())
    writer.close()
    return answers


async def test_nothing_is_taken_in_the_open_or_from_a_stranger(stage: Outside) -> None:
    answers = await say(stage, "EHLO x", "MAIL FROM:<a@example.cn>", "AUTH PLAIN AGEAYg==")
    assert "250 STARTTLS" in answers
    assert not any("AUTH PLAIN" in answer for answer in answers)
    assert answers[-2].startswith("530 5.7.0")
    assert answers[-1].startswith("538")


async def test_what_is_pipelined_behind_starttls_is_never_obeyed(stage: Outside) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.world.smtp_port)
    await reader.readline()
    writer.write(b"STARTTLS\r\nEHLO x\r\nMAIL FROM:<a@example.cn>\r\n")
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"220")
    writer.write(b"not a handshake at all, and long enough to be read as one\r\n")
    assert b"250" not in await asyncio.wait_for(reader.read(), 5)
    writer.close()


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
async def test_both_ways_to_say_a_password_are_understood(
    stage: Outside, account: SmtpAccount, method: str
) -> None:
    from aiosmtplib import SMTP  # noqa: PLC0415  what the adapter speaks with

    client = SMTP(
        hostname=account.host, port=account.port, start_tls=True, tls_context=account.tls(), timeout=5
    )
    await client.connect()
    login = client.auth_plain if method == "PLAIN" else client.auth_login
    assert account.username
    assert account.password
    assert (await login(account.username, account.password)).code == 235
    await client.quit()


async def test_a_mail_goes_out_in_two_forms_and_its_envelope_names_the_message(
    stage: Outside, account: SmtpAccount
) -> None:
    mail = SmtpMail(account, clock=stage.clock)
    assert await mail.check()
    await mail.send(TO, LETTER, M1)
    await mail.aclose()
    record = (stage.world.mailbox.mails[0], stage.world.mailbox.raw(0))
    message = email.message_from_bytes(record[1], policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert "<p>请缴费。</p>" in message.get_body(("html",)).get_content()  # type: ignore[union-attr]  # it has one
    assert message.defects == []
    assert message["Content-Language"] == "zh-CN"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Unsubscribe"] is None
    envelope = stage.world.mailbox.path_of(0)
    assert envelope.startswith("bounce+")
    assert account.return_path
    assert account.return_path.message_of(envelope) == UUID(int=1)


async def test_a_second_try_differs_from_the_first_in_its_date_alone(
    stage: Outside, account: SmtpAccount
) -> None:
    mail = SmtpMail(account, clock=stage.clock)
    await mail.send(TO, LETTER, M1)
    stage.clock.move(minutes=1)
    await mail.send(TO, LETTER, M1)
    await mail.aclose()
    first, second = (stage.world.mailbox.raw(n).splitlines() for n in range(2))
    assert [a.partition(b":")[0] for a, b in zip(first, second, strict=True) if a != b] == [b"Date"]


async def test_a_wrong_password_is_said_at_the_start_and_loses_no_mail(
    stage: Outside, account: SmtpAccount
) -> None:
    mail = SmtpMail(dataclasses.replace(account, password="wrong"), clock=stage.clock)
    assert not await mail.check()
    with pytest.raises(Rejected) as refused:
        await mail.send(TO, LETTER, M1)
    assert (refused.value.code, refused.value.permanent) == ("535", False)
    assert stage.world.mailbox.mails == []


async def test_a_relay_with_a_certificate_of_another_authority_hears_no_password(
    stage: Outside, account: SmtpAccount, tmp_path: Path
) -> None:
    other = MailWorld.of(tmp_path / "other")
    mail = SmtpMail(
        dataclasses.replace(account, ca_file=other.directory / "authority.pem"), clock=stage.clock
    )
    with pytest.raises(NoAnswer) as nothing:
        await mail.send(TO, LETTER, M1)
    assert (nothing.value.reason, nothing.value.maybe_accepted) == (CERTIFICATE, False)
    by_another_name = SmtpMail(dataclasses.replace(account, host="127.0.0.2"), clock=stage.clock)
    with pytest.raises(NoAnswer):
        await by_another_name.send(TO, LETTER, M1)
    assert not await mail.check()


async def test_a_relay_that_does_not_close_the_line_gets_nothing(
    session_directory: Path, tmp_path: Path
) -> None:
    async with outside(session_directory / "simulator-keys", tmp_path, smtp_open=True) as stage:
        account = SmtpAccount.read(stage.world.accounts["smtp"])
        mail = SmtpMail(account, clock=stage.clock)
        with pytest.raises(NoAnswer) as nothing:
            await mail.send(TO, LETTER, M1)
        assert (nothing.value.reason, nothing.value.maybe_accepted) == (NO_TLS, False)
        assert stage.world.mailbox.mails == []


async def test_greylisting_is_a_no_for_now(stage: Outside, account: SmtpAccount) -> None:
    await stage.control("/sim/mail/manners", {"greylist": 300})
    mail = SmtpMail(account, clock=stage.clock)
    for _ in range(2):
        with pytest.raises(Rejected) as refused:
            await mail.send(TO, LETTER, M1)
        assert (refused.value.code, refused.value.permanent) == ("451", False)
        stage.clock.move(seconds=200)
    await mail.send(TO, LETTER, M1)
    await mail.aclose()
    rest = await stage.control("/sim/rest")
    assert rest["reached"]["mail-greylisted"] == 2


@pytest.mark.parametrize(
    ("place", "reply", "permanent"),
    [
        ("mail", "451 4.3.0 Later", False),
        ("rcpt", "451 4.3.0 Later", False),
        ("data", "451 4.3.0 Later", False),
        ("rcpt", "554 5.7.1 Never", True),
        ("data", "554 5.7.1 Never", True),
        # Said of us, before it knows whom we write to.
        ("mail", "550 5.7.1 Sender's daily limit exceeded", False),
        ("mail", "552 5.3.4 Message too big", True),
    ],
)
async def test_a_no_is_a_no_wherever_it_is_said_and_for_good_only_where_it_is_said_of_this_mail(
    stage: Outside, account: SmtpAccount, place: str, reply: str, permanent: bool
) -> None:
    await stage.control("/sim/mail/manners", {"answers": {place: [reply]}})
    mail = SmtpMail(account, clock=stage.clock)
    with pytest.raises(Rejected) as refused:
        await mail.send(TO, LETTER, M1)
    assert (refused.value.code, refused.value.permanent) == (reply[:3], permanent)
    await mail.send(TO, LETTER, M1)
    await mail.aclose()
    assert (await stage.control("/sim/rest"))["reached"]["mail-answers"] == 1


async def test_a_mail_that_is_too_big_is_refused_before_it_is_on_the_line(
    stage: Outside, account: SmtpAccount
) -> None:
    await stage.control("/sim/mail/manners", {"size": 900})
    mail = SmtpMail(account, clock=stage.clock)
    with pytest.raises(Rejected) as refused:
        await mail.send(TO, Letter("长", "字" * 1000), M2)
    assert (refused.value.code, refused.value.permanent) == ("552", True)
    assert (await stage.control("/sim/rest"))["reached"]["mail-too-big"] == 1
    await mail.aclose()


async def test_manners_that_are_none_are_refused(stage: Outside) -> None:
    for manners in ({"kindness": 1}, {"answers": {"mail": ["250 fine"]}}, {"answers": {"quit": ["451 x"]}}):
        assert (await stage.try_control("/sim/mail/manners", manners))[0] == 400


@given(message=st.uuids())
def test_an_address_names_its_message_in_any_case(message: UUID) -> None:
    path = ReturnPath("Bounce@office.example.cn", KEY)
    address = path.of(message)
    assert len(address.partition("@")[0]) <= 64
    for seen in (address, address.upper(), f" {address} "):
        assert path.message_of(seen) == message


@given(
    message=st.uuids(),
    position=st.integers(7, 48),
    letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"),
)
def test_an_address_that_we_did_not_make_is_known_as_forged(
    message: UUID, position: int, letter: str
) -> None:
    path = ReturnPath("bounce@office.example.cn", KEY)
    address = path.of(message)
    altered = address[:position] + letter + address[position + 1 :]
    # The last letter of Base32 has two bits that mean nothing.
    if altered != address and position < 48:
        with pytest.raises(Forged):
            path.message_of(altered)
    with pytest.raises(Forged):
        ReturnPath("bounce@office.example.cn", b"another key of 16").message_of(address)


@pytest.mark.parametrize("token", ["", "x", "1" * 42, "候" * 42, "a" * 41, "a" * 43])
def test_what_looks_like_one_of_ours_is_forged(token: str) -> None:
    with pytest.raises(Forged):
        ReturnPath("bounce@office.example.cn", KEY).message_of(f"bounce+{token}@office.example.cn")


@pytest.mark.parametrize(
    "address", ["bounce@office.example.cn", "exam+x@office.example.cn", "bounce+x@example.com", ""]
)
def test_another_mailbox_is_nobodys(address: str) -> None:
    assert ReturnPath("bounce@office.example.cn", KEY).message_of(address) is None

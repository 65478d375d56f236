"""The mailbox speaks SMTP with whoever comes, keeps mails unchanged, and finds them again after a restart."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
import tempfile
from collections.abc import AsyncIterator
from email import policy
from email.message import EmailMessage
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.simulators.mailbox import Mailbox
from tests.simulators.outside import HandClock, Outside, outside


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path, smtp_open=True) as stage:
        yield stage


async def talk(stage: Outside, *groups: bytes) -> list[bytes]:
    """Send each group in one piece; all the lines of the server until it falls silent or hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.world.smtp_port)
    heard = b""
    for group in (b"", *groups):
        writer.write(group)
        try:
            while True:
                chunk = await asyncio.wait_for(reader.read(65536), 0.1)
                heard += chunk
                if not chunk:
                    break
        except TimeoutError:
            continue
    writer.close()
    return heard.decode().encode().splitlines()


def codes(lines: list[bytes]) -> list[bytes]:
    return [line[:3] for line in lines]


async def test_pythons_own_client_delivers(stage: Outside) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.cn", "b@example.cn", "考试通知"
    message["Message-ID"] = "<own-1@example.cn>"
    message.set_content("正文\n.\n..\nFrom 行首\n>From 已引用\n", cte="8bit")

    def deliver() -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", stage.world.smtp_port, timeout=5) as client:
            return client.sendmail("a@example.cn", ["b@example.cn"], message.as_bytes(policy=policy.SMTP))

    assert await asyncio.to_thread(deliver) == {}
    [found] = (await stage.control("/sim/mail/box?to=B@Example.cn"))["mails"]
    assert (found["subject"], found["message_id"]) == ("考试通知", "own-1@example.cn")
    assert found["text"] == "正文\n.\n..\nFrom 行首\n>From 已引用\n"


async def test_one_recipient_of_two_may_be_refused(stage: Outside) -> None:
    def deliver() -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", stage.world.smtp_port, timeout=5) as client:
            return client.sendmail(
                "a@example.cn", ["b@example.cn", "nobody@example.cn"], b"Subject: x\r\n\r\nx"
            )

    assert list(await asyncio.to_thread(deliver)) == ["nobody@example.cn"]
    assert (await stage.control("/sim/mail/book"))["totals"] == {"mails": 1}


async def test_a_pipelined_group_is_answered_in_order(stage: Outside) -> None:
    lines = await talk(
        stage,
        b"EHLO client.test\r\n",
        b"MAIL FROM:<a@example.cn>\r\nRCPT TO:<nobody@example.cn>\r\nRCPT TO:<b@example.cn>\r\nDATA\r\n",
        b"Subject: x\r\n\r\nx\r\n.\r\nNOOP\r\nQUIT\r\n",
    )
    assert codes(lines)[-8:] == [b"250", b"250", b"550", b"250", b"354", b"250", b"250", b"221"]
    assert lines[0].startswith(b"220 ")
    assert b"250-PIPELINING" in lines


async def test_commands_may_come_one_byte_at_a_time(stage: Outside) -> None:
    script = b"EHLO c\r\nMAIL FROM:<a@example.cn>\r\nRCPT TO:<b@example.cn>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.world.smtp_port)
    for byte in script:
        writer.write(bytes([byte]))
        await writer.drain()
    writer.write(b"QUIT\r\n")
    lines = (await asyncio.wait_for(reader.read(), 5)).splitlines()
    writer.close()
    assert codes(lines)[-5:] == [b"250", b"250", b"354", b"250", b"221"]
    assert stage.world.mailbox.raw(0) == b"Subject: x\n\nx\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (b"MAIL FROM:<a@example.cn>\r\n", [b"503"]),
        (b"EHLO\r\n", [b"501"]),
        (b"HELO c\r\nRCPT TO:<b@example.cn>\r\n", [b"250", b"503"]),
        (b"HELO c\r\nDATA\r\n", [b"250", b"503"]),
        (b"HELO c\r\nMAIL FROM:a@example.cn\r\n", [b"250", b"501"]),
        (b"HELO c\r\nMAIL FROM:<a@example.cn> SIZE=9999999\r\n", [b"250", b"552"]),
        (b"HELO c\r\nMAIL FROM:<a@example.cn> BODY=BINARYMIME\r\n", [b"250", b"555"]),
        (b"HELO c\r\nMAIL FROM:<>\r\nMAIL FROM:<b@example.cn>\r\n", [b"250", b"250", b"503"]),
        (b"HELO c\r\nMAIL FROM:<>\r\nRSET\r\nRCPT TO:<b@example.cn>\r\n", [b"250", b"250", b"250", b"503"]),
        (
            b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@example.cn>\r\nDATA\r\n",
            [b"250", b"250", b"550", b"503"],
        ),
        (b"STARTTLS\r\nVRFY x\r\nNOOPE\r\nnoop\r\n", [b"500", b"252", b"500", b"250"]),
        (b"x" * 5000, [b"421"]),
        (b"helo c\r\nmail from:<a@example.cn> body=8bitmime smtputf8\r\n", [b"250", b"250"]),
    ],
)
async def test_commands_out_of_order_or_form_are_refused(
    stage: Outside, script: bytes, expected: list[bytes]
) -> None:
    assert codes(await talk(stage, script))[1:] == expected


async def test_two_mails_on_one_line_do_not_mix(stage: Outside) -> None:
    mail = b"MAIL FROM:<a@example.cn>\r\nRCPT TO:<%s@example.cn>\r\nDATA\r\nSubject: %s\r\n\r\nx\r\n.\r\n"
    await talk(stage, b"EHLO c\r\n" + mail % (b"one", b"first") + mail % (b"two", b"second"))
    for person, subject in (("one", "first"), ("two", "second")):
        [found] = (await stage.control(f"/sim/mail/box?to={person}@example.cn"))["mails"]
        assert (found["subject"], found["to"]) == (subject, [f"{person}@example.cn"])


async def test_an_empty_mail_is_a_mail(stage: Outside) -> None:
    lines = await talk(
        stage, b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.cn>\r\nDATA\r\n.\r\nMAIL FROM:<>\r\n"
    )
    assert codes(lines)[-3:] == [b"354", b"250", b"250"]


@settings(max_examples=200)
@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=30))
)
def test_whatever_is_delivered_is_read_back_the_same_even_after_a_restart(lines: list[str]) -> None:
    content = "".join(line + "\r\n" for line in ["Message-ID: <m@x>", "", *lines]).encode()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mail.mbox"
        mailbox = Mailbox(path, HandClock())
        for n in range(3):
            assert mailbox.deliver("a@x.cn", [f"p{n}@x.cn"], content).startswith(b"250")
        before = [mailbox.raw(n) for n in range(3)]
        mailbox.close()
        again = Mailbox(path, HandClock())
        assert [again.raw(n) for n in range(3)] == before == [content.replace(b"\r\n", b"\n")] * 3
        assert again.mails == mailbox.mails
        assert again.of("P1@x.cn") == [1]
        again.close()


async def test_the_book_shows_no_address(stage: Outside) -> None:
    await talk(
        stage, b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<B@example.cn>\r\nDATA\r\nMessage-ID: <1@x>\r\n\r\n.\r\n"
    )
    book = await stage.control("/sim/mail/book")
    assert "example.cn" not in str(book)
    assert book["mails"][0]["to"] == [hashlib.sha256(b"b@example.cn").hexdigest()]
    assert book["mails"][0]["message_id"] == "1@x"


async def test_the_pages_show_mails_and_nothing_of_their_markup(stage: Outside) -> None:
    evil = b"Subject: <script>alert(1)</script>\r\nFrom: a@example.cn\r\n\r\n<img src=x onerror=alert(2)>\r\n"
    await talk(stage, b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.cn>\r\nDATA\r\n" + evil + b".\r\n")
    async with httpx2.AsyncClient(base_url=stage.world.control_url, trust_env=False, verify=False) as client:
        listed = (await client.get("/mail", params={"to": "b@example.cn"})).text
        shown = (await client.get("/mail/0")).text
        assert (await client.get("/mail/1")).status_code == 404
    for page in (listed, shown):
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert "<img" not in page
    assert 'href="/mail/0"' in listed

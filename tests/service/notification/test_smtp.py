"""Mail: composed by hand, read by the standard library; delivered to a real SMTP server, ours and aiosmtpd."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
from aiosmtpd import smtp as oracle
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.clock import SystemClock
from services.notification.adapters.smtp import AccountInvalid, SmtpAccount, SmtpMail, compose, message_id
from services.notification.ports import Letter, Mail, NoAnswer, Rejected
from tests.simulators.outside import START, Outside, outside

TO = "candidate@example.cn"
SUBJECT = "网上缴费即将截止：请于2024年2月8日（星期四）24时前完成，逾期视为自动放弃考试"
TEXT = "考生5678：\n\n网上缴费截止时间：2024年2月8日（星期四）24时（北京时间）。\n.\n..两个点\n逾期视为自动放弃考试。\n"
LETTER = Letter(SUBJECT, TEXT)
ACCOUNT = SmtpAccount("127.0.0.1", 25, "none", "exam@office.example.cn", "乐山考点")
ONE_LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120)


@pytest.fixture
async def stage(session_directory: Path, tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(session_directory / "simulator-keys", tmp_path) as stage:
        yield stage


@pytest.fixture
async def mail(stage: Outside) -> AsyncIterator[SmtpMail]:
    client = SmtpMail(SmtpAccount.read(stage.world.accounts["smtp"]), clock=stage.clock)
    yield client
    await client.aclose()


def message(name: str) -> str:
    """A message's reference."""
    return str(uuid5(NAMESPACE_URL, name))


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_composed_mail_is_read_as_it_was_meant() -> None:
    raw = compose(ACCOUNT, TO, LETTER, "message-1@office.example.cn", START)
    message = read(raw)
    assert message["Subject"] == SUBJECT
    assert message["From"].addresses[0].display_name == "乐山考点"
    assert message["From"].addresses[0].addr_spec == "exam@office.example.cn"
    assert message["To"] == TO
    assert message["Message-ID"] == "<message-1@office.example.cn>"
    assert message["Date"].datetime == START
    assert message.get_content_type() == "text/plain"
    assert message.get_content() == TEXT.replace("\n", "\r\n")  # text is sent with CRLF, RFC 2045
    assert message.defects == []


@given(subject=ONE_LINE, text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_any_subject_and_any_text_arrive(subject: str, text: str) -> None:
    raw = compose(ACCOUNT, TO, Letter(subject, text), "m@office.example.cn", START)
    message = read(raw)
    # A header's outer blanks mean nothing, and the reader takes them off.
    assert str(message["Subject"]).strip() == subject.strip()
    assert message.get_payload(decode=True) == text.replace("\n", "\r\n").encode()


@given(subject=ONE_LINE, text=st.text(st.characters(exclude_categories=["Cs"])))
def test_every_line_is_one_that_any_relay_takes(subject: str, text: str) -> None:
    raw = compose(ACCOUNT, TO, Letter(subject, text), "m@office.example.cn", START)
    assert raw.isascii()
    assert raw.endswith(b"\r\n")
    for line in raw.split(b"\r\n"):
        assert len(line) <= 78
        assert b"\n" not in line
        assert b"\r" not in line
        assert not line.startswith(b".")


@pytest.mark.parametrize("subject", ["一行\r\nBcc: x@example.cn", "一行\n二行", "一行\r二行", "零\x00"])
def test_a_subject_cannot_begin_another_header(subject: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        compose(ACCOUNT, TO, Letter(subject, TEXT), "m@office.example.cn", START)


@pytest.mark.parametrize("reference", ["", "a b", "a>b", "a@b", "a\r\nb", "长", "x" * 129])
def test_a_reference_cannot_leave_its_header(reference: str) -> None:
    with pytest.raises(ValueError, match="reference"):
        message_id(reference, "office.example.cn")


async def test_a_mail_is_in_the_persons_mailbox(stage: Outside, mail: SmtpMail) -> None:
    await mail.send(TO, LETTER, message("0190a1b2-message"))
    box = (await stage.control(f"/sim/mail/box?to={TO}"))["mails"]
    assert [(m["subject"], m["text"], m["message_id"], m["at"]) for m in box] == [
        (SUBJECT, TEXT, f"{message('0190a1b2-message')}@office.example.cn", START.isoformat())
    ]


async def test_the_same_message_keeps_its_id_at_every_try(stage: Outside, mail: SmtpMail) -> None:
    for _ in range(2):
        await mail.send(TO, LETTER, message("message-1"))
    book = await stage.control("/sim/mail/book")
    assert {m["message_id"] for m in book["mails"]} == {f"{message('message-1')}@office.example.cn"}


async def test_connections_are_kept_and_few(stage: Outside, mail: SmtpMail) -> None:
    await asyncio.gather(*(mail.send(f"p{n}@example.cn", LETTER, message(f"m{n}")) for n in range(100)))
    assert (await stage.control("/sim/mail/book"))["totals"]["mails"] == 100
    assert 1 <= len(mail._resting) <= 4
    assert len(stage.world._sessions) == len(mail._resting)


@pytest.mark.parametrize(
    ("to", "code", "permanent"), [("nobody@example.cn", "550", True), ("full@example.cn", "452", False)]
)
async def test_a_refused_recipient_is_told_apart_and_the_line_stays_good(
    stage: Outside, mail: SmtpMail, to: str, code: str, permanent: bool
) -> None:
    await mail.send(TO, LETTER, message("before"))
    with pytest.raises(Rejected) as refused:
        await mail.send(to, LETTER, message("refused"))
    assert (refused.value.code, refused.value.permanent) == (code, permanent)
    assert to not in str(refused.value)
    await mail.send(TO, LETTER, message("after"))
    assert len(stage.world._sessions) == 1
    assert (await stage.control("/sim/mail/book"))["totals"]["mails"] == 2


@pytest.mark.parametrize(
    "to",
    [
        "",
        "no-at",
        "a b@example.cn",
        "a@b@example.cn",
        "x@example.cn>\r\nRCPT TO:<y@example.cn",
        "候选人@example.cn",
    ],
)
async def test_what_is_no_address_is_refused_for_good_and_never_sent(
    stage: Outside, mail: SmtpMail, to: str
) -> None:
    with pytest.raises(Rejected) as refused:
        await mail.send(to, LETTER, message("m"))
    assert refused.value.permanent
    assert stage.world._sessions == set()


async def test_a_relay_that_is_down_took_nothing(stage: Outside, mail: SmtpMail) -> None:
    await stage.control("/sim/mail/down", {"seconds": 60})
    with pytest.raises(Rejected) as refused:
        await mail.send(TO, LETTER, message("m"))
    assert (refused.value.code, refused.value.permanent) == ("421", False)
    stage.clock.move(seconds=60)
    await mail.send(TO, LETTER, message("m"))


async def test_a_relay_going_down_between_two_mails_took_nothing(stage: Outside, mail: SmtpMail) -> None:
    await mail.send(TO, LETTER, message("m1"))
    await stage.control("/sim/mail/down", {"seconds": 60})
    with pytest.raises(Rejected, match="421"):
        await mail.send(TO, LETTER, message("m2"))
    stage.clock.move(seconds=60)
    await mail.send(TO, LETTER, message("m2"))
    assert (await stage.control("/sim/mail/book"))["totals"]["mails"] == 2


async def test_a_line_cut_after_the_content_may_have_been_a_delivery(stage: Outside, mail: SmtpMail) -> None:
    await mail.send(TO, LETTER, message("m1"))
    await stage.control("/sim/mail/down", {"seconds": 60, "how": "lose"})
    with pytest.raises(NoAnswer) as nothing:
        await mail.send(TO, LETTER, message("m2"))
    assert nothing.value.maybe_accepted
    assert (await stage.control("/sim/mail/book"))["totals"]["mails"] == 2


async def test_a_connection_that_died_at_rest_costs_nothing(stage: Outside, mail: SmtpMail) -> None:
    await asyncio.gather(*(mail.send(TO, LETTER, message(f"m{n}")) for n in range(8)))
    for session in list(stage.world._sessions):
        session.close()
    await mail.send(TO, LETTER, message("after"))
    assert (await stage.control("/sim/mail/book"))["totals"]["mails"] == 9


async def test_nobody_at_home_took_nothing() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    mail = _at(port)
    with pytest.raises(NoAnswer) as nothing:
        await mail.send(TO, LETTER, message("m"))
    assert not nothing.value.maybe_accepted
    await mail.aclose()


@asynccontextmanager
async def _talking(lines: list[bytes]) -> AsyncIterator[int]:
    """A server that says these lines, one for each it hears, and then nothing more."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            writer.write(line + b"\r\n")
            if not await reader.readline():
                break
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _at(port: int, patience: float = 5) -> SmtpMail:
    account = SmtpAccount("127.0.0.1", port, "none", "exam@office.example.cn", "乐山考点")
    return SmtpMail(account, clock=SystemClock(), patience=patience)


@pytest.mark.parametrize(
    ("lines", "maybe_accepted"),
    [
        ([], False),
        ([b"220 hello"], False),
        ([b"220 hello", b"250 relay", b"250 ok"], False),
        ([b"220 hello", b"250 relay", b"250 ok", b"250 ok", b"354 go on"], True),
    ],
    ids=["greeting", "ehlo", "recipient", "content"],
)
async def test_a_relay_that_falls_silent_is_given_up_in_time(
    lines: list[bytes], maybe_accepted: bool
) -> None:
    async with _talking(lines) as port:
        mail = _at(port, patience=0.2)
        with pytest.raises(NoAnswer) as nothing:
            await mail.send(TO, LETTER, message("m"))
        assert nothing.value.maybe_accepted is maybe_accepted
        await mail.aclose()


@pytest.mark.parametrize(("code", "permanent"), [("554", True), ("451", False)])
async def test_content_that_is_refused_is_refused(code: str, permanent: bool) -> None:
    script = [b"220 hello", b"250 relay", b"250 ok", b"250 ok", f"{code} no".encode(), b"250 reset"]
    async with _talking(script) as port:
        mail = _at(port)
        with pytest.raises(Rejected) as refused:
            await mail.send(TO, LETTER, message("m"))
        assert (refused.value.code, refused.value.permanent) == (code, permanent)
        await mail.aclose()


async def test_a_cancelled_mail_leaves_no_line_in_the_middle_of_a_dialogue() -> None:
    async with _talking([b"220 hello", b"250 relay", b"250 ok"]) as port:
        mail = _at(port)
        sending = asyncio.create_task(mail.send(TO, LETTER, message("m")))
        await asyncio.sleep(0.1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert mail._resting == []
        await mail.aclose()


class _Catcher:
    """aiosmtpd's idea of a mailbox."""

    def __init__(self) -> None:
        self.caught: list[tuple[str, list[str], bytes]] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.caught.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"


async def test_another_implementation_of_smtp_understands_us() -> None:
    catcher = _Catcher()
    make: Callable[[], asyncio.Protocol] = lambda: oracle.SMTP(catcher, enable_SMTPUTF8=True)  # noqa: E731
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    mail: Mail = _at(server.sockets[0].getsockname()[1])
    for n in range(3):
        await mail.send(TO, LETTER, message(f"m{n}"))
    assert isinstance(mail, SmtpMail)
    await mail.aclose()
    server.close()
    assert [(sender, recipients) for sender, recipients, _ in catcher.caught] == [
        ("exam@office.example.cn", [TO])
    ] * 3
    assert read(catcher.caught[2][2])["Subject"] == SUBJECT
    assert read(catcher.caught[2][2]).get_content() == TEXT.replace(
        "\n", "\r\n"
    )  # text is sent with CRLF, RFC 2045


def test_an_account_file_says_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    content: dict[str, Any] = {
        "host": "relay.test",
        "port": 465,
        "security": "tls",
        "sender": "exam@office.example.cn",
        "sender_name": "乐山考点",
        "username": "exam",
        "password_file": "password",
    }
    file.write_text(json.dumps(content))
    with pytest.raises(AccountInvalid, match="cannot be read"):
        SmtpAccount.read(file)
    (tmp_path / "password").write_text("hidden\n")
    with pytest.raises(AccountInvalid, match="chmod 600"):
        SmtpAccount.read(file)
    (tmp_path / "password").chmod(0o600)
    assert SmtpAccount.read(file).password == "hidden"
    for name, secret in (("key", "0123456789abcdef"), ("short", "0123")):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    for change, reason in (
        ({"security": "none"}, "open line"),
        ({"security": "ssl"}, "security is one of"),
        ({"sender": "exam"}, "no mail address"),
        ({"port": "many"}, "cannot be read"),
        ({"port": 0}, "port is between"),
        ({"host": "smtp://relay.test"}, "without a scheme"),
        ({"username": None}, "go together"),
        ({"sender_name": "考点\r\nBcc: x"}, "one line"),
        ({"securty": "tls"}, "'securty'] is no entry"),
        ({"ca_file": "password"}, "no certificate"),
        ({"ca_file": "nothing-there"}, "no certificate"),
        ({"bounces": "bounce@office.example.cn"}, "go together"),
        ({"bounces": "bounce", "bounce_key_file": "key"}, "bounces is no mail address"),
        ({"bounces": "bounce@example.com", "bounce_key_file": "key"}, "of office.example.cn or below"),
        ({"bounces": f"{'b' * 22}@office.example.cn", "bounce_key_file": "key"}, "longer than 21"),
        ({"bounces": "bounce@office.example.cn", "bounce_key_file": "short"}, "shorter than 16"),
    ):
        file.write_text(json.dumps(content | change))
        with pytest.raises(AccountInvalid, match=reason) as invalid:
            SmtpAccount.read(file)
        assert "hidden" not in str(invalid.value)
    del content["host"]
    file.write_text(json.dumps(content))
    with pytest.raises(AccountInvalid, match="host"):
        SmtpAccount.read(file)


async def test_the_date_is_the_clocks(stage: Outside, mail: SmtpMail) -> None:
    stage.clock.move(days=10)
    await mail.send(TO, LETTER, message("m"))
    found = read(stage.world.mailbox.raw(0))
    assert found["Date"].datetime == datetime(2024, 2, 9, 12, tzinfo=UTC)

"""The composition root of notification: the only file that sees all its parts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog

from contracts.reasons import Carrier
from services.chassis.jobs import Job
from services.chassis.process import CannotStart, Plumbing, Process
from services.notification import api, jobs
from services.notification.adapters import aliyun, smtp, tencent
from services.notification.adapters.bounces import BounceBox
from services.notification.adapters.registration import RegistrationContacts
from services.notification.consumers import BATCH, HANDLERS
from services.notification.domain.life import State
from services.notification.domain.limits import NumberLimits
from services.notification.domain.moments import UnknownZone, zone_in_words
from services.notification.domain.words import unfit
from services.notification.handlers.delivery import Delivery
from services.notification.handlers.outgoing import Channel, Provider, Send
from services.notification.handlers.routing import Routing
from services.notification.handlers.scoreboard import Scoreboard
from services.notification.handlers.telling import Teller
from services.notification.ports import Accepted, Letter, Mail, Sms
from services.notification.settings import Settings, sms_shares
from services.notification.templates.wording import TemplatesInvalid, Text, Wording

log = structlog.get_logger(__name__)

_RECEIPTS_BODY = 4 * 1024 * 1024  # a push of some thousand receipts
_SHORTEST_SECRET = 16


def create_app(settings: Settings) -> Process:
    """The service, put together; nothing is connected yet. Raises CannotStart."""
    plumbing = Plumbing.of(settings)
    wording, secret = _checked(settings, plumbing)
    carriers = _carriers(settings, plumbing)
    mail_account = _mail_account(settings)
    mail = smtp.SmtpMail(mail_account, clock=plumbing.clock, connections=settings.mails_in_flight)
    contacts = RegistrationContacts(settings.registration_internal_url, settings.service_token_file)
    shares = sms_shares(settings.sms_share_of_tencent if "tencent" in carriers else None)
    by_sms = Channel(
        Carrier.SMS,
        {
            name: Provider(
                name,
                sending_by_sms(sms),
                shares[name],
                sms.find,
                sms.shows_after,
                lists_all=sms.lists_all,
                by_serial=sms.by_serial,
                signature=sms.signature,
            )
            for name, sms in carriers.items()
        },
        State.ACCEPTED,
        settings.sms_in_flight,
    )
    # A mailbox that says 250 has it: nothing more is heard of a mail that arrives.
    by_mail = Channel.of_one(
        Carrier.EMAIL, "smtp", sending_by_mail(mail), State.DELIVERED, settings.mails_in_flight
    )
    scoreboard = Scoreboard(shares)
    routing = Routing(
        by_sms,
        scoreboard,
        of_numbers=_of_numbers(settings),
        parts_a_day=settings.sms_parts_a_day,
        zone=plumbing.cycle.zone,
    )
    through = partial(
        Delivery,
        database=plumbing.database,
        cycle=plumbing.cycle,
        wording=wording,
        vault=plumbing.vault,
    )
    sms_delivery = through(by_sms, routing=routing, scoreboard=scoreboard)
    pace = timedelta(seconds=settings.delivery_pace_seconds)
    deliver = jobs.delivery_jobs(
        [(str(Carrier.SMS), sms_delivery), (str(Carrier.EMAIL), through(by_mail))], pace
    )
    fetch = jobs.fetch_job(plumbing.database, contacts, plumbing.vault, _wake(deliver), pace)
    teller = Teller(plumbing.cycle, wording, fetch.wake, _wake(deliver))
    return Process(
        plumbing,
        public=[
            api.public_routes(plumbing.database),
            api.office_routes(plumbing.database, plumbing.vault, settings.promise_share),
            api.language_routes(plumbing.database, wording.languages),
            api.call_routes(plumbing.database, plumbing.vault),
            api.carrier_routes(plumbing.database, carriers, shares, secret),
        ],
        handlers=HANDLERS,
        deps={"teller": teller},
        batch=BATCH,
        jobs=[
            fetch,
            *deliver,
            jobs.pull_job(
                plumbing.database,
                list(carriers.values()),
                timedelta(seconds=settings.receipts_pull_seconds),
            ),
            jobs.follow_job(plumbing.database, sms_delivery, deliver[0].wake),
            jobs.calls_job(plumbing.database),
            jobs.forget_job(plumbing.database),
            jobs.promise_job(plumbing.database, settings.promise_share),
            *_bounces(settings, mail_account, plumbing),
        ],
        resources=[_closing(carriers, mail, contacts)],
        max_body=_RECEIPTS_BODY,
    )


def _checked(settings: Settings, plumbing: Plumbing) -> tuple[Wording, str]:
    try:
        zone_in_words(plumbing.cycle.zone)
        wording = Wording.load()
        secret = settings.receipts_secret_file.read_text(encoding="ascii").strip()
    except (TemplatesInvalid, UnknownZone) as error:
        raise CannotStart(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(
            f"the secret of the receipts' path cannot be read: {type(error).__name__}"
        ) from None
    if len(secret) < _SHORTEST_SECRET:
        raise CannotStart(f"the secret of the receipts' path is shorter than {_SHORTEST_SECRET} characters")
    if too_long := unfit(plumbing.cycle):
        raise CannotStart("; ".join(too_long))
    for language in wording.languages:
        if lacking := wording.lacking(language):
            log.warning("sent-in-chinese", language=language, texts=lacking)
    return wording, secret


def _mail_account(settings: Settings) -> smtp.SmtpAccount:
    try:
        return smtp.SmtpAccount.read(settings.smtp_account_file)
    except smtp.AccountInvalid as error:
        raise CannotStart(f"mail: {error}") from None


def _bounces(settings: Settings, account: smtp.SmtpAccount, plumbing: Plumbing) -> list[Job]:
    """The job that reads the office's mailbox of bounces, if there is one."""
    maildir = settings.bounces_maildir
    if maildir is None:
        return []
    if account.return_path is None:
        raise CannotStart("bounces_maildir is read for return paths: the mail account names none (bounces)")
    if not (maildir / "new").is_dir() or not (maildir / "cur").is_dir():
        raise CannotStart(f"{maildir} is no maildir (new, cur, tmp)")
    every = timedelta(seconds=settings.bounces_seconds)
    return [jobs.bounces_job(plumbing.database, BounceBox(maildir, account.return_path), every)]


def _carriers(settings: Settings, plumbing: Plumbing) -> dict[str, aliyun.AliyunSms | tencent.TencentSms]:
    """By name, whoever carries most of it first. Raises CannotStart."""
    found: dict[str, aliyun.AliyunSms | tencent.TencentSms] = {}
    connections = settings.sms_in_flight
    try:
        account = aliyun.AliyunAccount.read(settings.aliyun_account_file)
        found["aliyun"] = aliyun.AliyunSms(account, clock=plumbing.clock, connections=connections)
        if settings.tencent_account_file is not None:
            second = tencent.TencentAccount.read(settings.tencent_account_file)
            found["tencent"] = tencent.TencentSms(second, clock=plumbing.clock, connections=connections)
    except aliyun.AccountInvalid as error:
        raise CannotStart(f"SMS: {error}") from None
    return found


def _of_numbers(settings: Settings) -> dict[str, NumberLimits]:
    same, most = timedelta(seconds=settings.sms_same_text_seconds), settings.sms_per_template
    return {
        "aliyun": NumberLimits(same, most),
        "tencent": NumberLimits(same, most, settings.tencent_per_number),
    }


def sending_by_sms(sms: Sms) -> Send:
    """An SMS goes out by its template and variables, under the name that this carrier has for the template."""

    async def send(to: str, text: Text, reference: str) -> Accepted:
        code = text.codes.get(sms.name, text.template)
        return await sms.send(to, code, text.variables, text.body, reference)

    return send


def sending_by_mail(mail: Mail) -> Send:
    """A mail goes out by its subject and text."""

    async def send(to: str, text: Text, reference: str) -> Accepted:
        return await mail.send(to, Letter(text.subject, text.body, text.html, text.language), reference)

    return send


def _wake(deliver: list[Job]) -> Callable[[], None]:
    def wake() -> None:
        for job in deliver:
            job.wake()

    return wake


@asynccontextmanager
async def _closing(
    carriers: Mapping[str, aliyun.AliyunSms | tencent.TencentSms],
    mail: smtp.SmtpMail,
    contacts: RegistrationContacts,
) -> AsyncIterator[None]:
    await mail.check()
    try:
        yield
    finally:
        for client in (*carriers.values(), mail, contacts):
            with contextlib.suppress(Exception):
                await client.aclose()

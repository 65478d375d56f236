"""Mail through a relay, over a few SMTP connections that are kept open."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from uuid import UUID

import structlog
from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from services.chassis.clock import Clock
from services.notification.adapters.lines import AccountInvalid
from services.notification.adapters.mail_account import ADDRESS, SmtpAccount
from services.notification.adapters.mail_content import compose, message_id
from services.notification.ports import Accepted, Letter, NoAnswer, Rejected

__all__ = ["PATIENCE", "AccountInvalid", "SmtpAccount", "SmtpMail", "compose", "message_id"]

log = structlog.get_logger(__name__)

PATIENCE: Final = 20.0  # real seconds for one mail, connecting included; relays may scan before they answer
CERTIFICATE: Final = "relay-certificate"
NO_TLS: Final = "relay-without-tls"
_CHECKING: Final = 5.0  # real seconds that a start waits for the relay
_CLOSING: Final = 421
_TOO_BIG: Final = 552


class SmtpMail:
    """`connections` at most at one time; those at rest are used again. Close with `aclose`."""

    def __init__(
        self, account: SmtpAccount, *, clock: Clock, connections: int = 4, patience: float = PATIENCE
    ) -> None:
        self._account = account
        self._clock = clock
        self._patience = patience
        self._tls = account.tls()
        self._slots = asyncio.Semaphore(connections)
        self._resting: list[SMTP] = []

    async def check(self) -> bool:
        """Whether the relay takes us, said in the log: a wrong password is to be known before a message needs it.

        A relay that is away stops nothing: the other channel goes on, and mail waits.
        """
        try:
            async with asyncio.timeout(_CHECKING):
                client = await self._connect()
        except (Rejected, NoAnswer, TimeoutError) as error:
            log.error("relay-not-usable", reason=str(error) or "no answer", host=self._account.host)
            return False
        self._resting.append(client)
        return True

    async def aclose(self) -> None:
        while self._resting:
            client = self._resting.pop()
            try:
                async with asyncio.timeout(1):
                    await client.quit()
            except (SMTPException, OSError, TimeoutError):
                client.close()

    async def send(self, to: str, letter: Letter, reference: str) -> Accepted:
        if not ADDRESS.fullmatch(to):
            raise Rejected("address", permanent=True)
        if not to.isascii():
            # Delivered only where every relay on the way speaks SMTPUTF8; nobody could be told that it failed.
            raise Rejected("address-not-ascii", permanent=True)
        account = self._account
        message = compose(account, to, letter, message_id(reference, account.domain), self._clock.now())
        sender = account.return_path.of(UUID(reference)) if account.return_path else account.sender
        async with self._slots:
            return await self._deliver(sender, to, message)

    async def _deliver(self, sender: str, to: str, message: bytes) -> Accepted:
        """A connection at rest may have died unseen: then, before any content went out, a new one is tried."""
        while self._resting:
            try:
                return await self._deliver_by(self._resting.pop(), sender, to, message)
            except NoAnswer as error:
                if error.maybe_accepted:
                    raise
        return await self._deliver_by(await self._connect(), sender, to, message)

    async def _deliver_by(self, client: SMTP, sender: str, to: str, message: bytes) -> Accepted:
        named = content_sent = False
        # A relay that says how much it takes can refuse before the content is on the line.
        size = [f"SIZE={len(message)}"] if client.supports_extension("size") else []
        try:
            async with asyncio.timeout(self._patience):
                await client.mail(sender, options=size)
                named = True
                await client.rcpt(to)
                content_sent = True
                response = await client.data(message)
        except SMTPResponseException as error:
            if error.code == _CLOSING and not content_sent:
                # The relay ends a connection that rested too long: it says nothing about this mail.
                client.close()
                raise NoAnswer(str(error.code), maybe_accepted=False) from None
            await self._put_back(client)
            # A relay that does not take us as a sender, our day's mails being spent, says nothing about whom we write to.
            about_this = named or error.code == _TOO_BIG
            raise Rejected(str(error.code), permanent=about_this and error.code >= 500) from None
        except (SMTPException, OSError, TimeoutError) as error:
            client.close()
            raise NoAnswer(type(error).__name__, maybe_accepted=content_sent) from None
        except BaseException:
            # Cancelled in the middle of a dialogue: nobody may go on with it.
            client.close()
            raise
        self._resting.append(client)
        return Accepted(response.message[:200])

    async def _put_back(self, client: SMTP) -> None:
        """After a refusal: forget the mail begun, keep the connection if it still stands."""
        try:
            async with asyncio.timeout(self._patience):
                await client.rset()
        except (SMTPException, OSError, TimeoutError):
            client.close()
        else:
            self._resting.append(client)

    async def _connect(self) -> SMTP:
        account = self._account
        client = SMTP(
            hostname=account.host,
            port=account.port,
            use_tls=account.security == "tls",
            start_tls=account.security == "starttls",
            tls_context=self._tls,
            username=account.username,
            password=account.password,
            local_hostname=account.domain,
            timeout=self._patience,
        )
        try:
            async with asyncio.timeout(self._patience):
                await client.connect()
                await client.ehlo()
        except SMTPResponseException as error:
            client.close()
            # A relay that refuses us altogether, or our password, says nothing about this mail.
            raise Rejected(str(error.code), permanent=False) from None
        except (SMTPException, OSError, TimeoutError) as error:
            client.close()
            raise NoAnswer(_reason(error), maybe_accepted=False) from None
        return client


def _reason(error: BaseException) -> str:
    """Why there is no line, in a word that an operator can act on."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return CERTIFICATE
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, SMTPException) and "STARTTLS" in str(error):
        return NO_TLS
    return type(error).__name__

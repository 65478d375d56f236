"""`kaowu messages` where no service runs: notification's own routes, in this process, over its database.

The routes are the service's, so that what is shown cannot differ; whoever may read the database and
its keys needs no token, so they are asked with one that only this process accepts.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
from joserfc.jwk import KeySet, OKPKey

from deploy.asking import CannotShow
from deploy.local.data_directory import Mismatch
from deploy.local.keys import TOKEN_KEY_ID, Tokens
from deploy.replay.standing import CannotLook, standing
from services.chassis.clock import Clock, RehearsalClock, SystemClock
from services.chassis.db import Database
from services.chassis.http import Doorkeeper, make_app
from services.chassis.tokens import TokenVerifier
from services.chassis.vault import Vault, VaultError
from services.notification import api
from services.notification.settings import Settings, sms_shares

DATABASE: Final = "NOTIFICATION_DATABASE_URL"
VAULT: Final = "NOTIFICATION_VAULT_KEYS_FILE"


@dataclass(frozen=True, slots=True)
class Given:
    """Notification's routes, as the office reads them."""

    http: httpx2.AsyncClient

    async def get(self, path: str) -> dict[str, Any]:
        """What they show at this path. Raises CannotShow."""
        answer = await self.http.get(path)
        if answer.status_code != 200:
            raise CannotShow(f"{path} answers {answer.status_code}")
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def given(environ: Mapping[str, str]) -> AsyncIterator[Given]:
    """Of the system that the environment names, as its notification is told it. Raises CannotShow."""
    missing = [name for name in (DATABASE, VAULT) if not environ.get(name)]
    if missing:
        raise CannotShow(f"set {', '.join(missing)} to say which system is meant")
    both = environ.get("NOTIFICATION_TENCENT_ACCOUNT_FILE")
    try:
        vault = Vault.open(Path(environ[VAULT]), environ.get("KAOWU_ENVIRONMENT", "production"))
        goal = _number(environ, "promise_share")
        shares = sms_shares(_number(environ, "sms_share_of_tencent") if both else None)
    except (VaultError, ValueError) as error:
        raise CannotShow(str(error)) from None
    async with _over(environ[DATABASE], SystemClock(), vault, goal, shares) as found:
        yield found


@asynccontextmanager
async def left(data: Path, *, say: Callable[[str], None]) -> AsyncIterator[Given]:
    """Of the local system that was left in this directory, whose databases are started for a look. Raises CannotShow, InUse."""
    async with AsyncExitStack() as stack:
        try:
            place = await stack.enter_async_context(standing(data, say=say, stopped=True))
        except (CannotLook, Mismatch) as error:
            raise CannotShow(str(error)) from None
        virtual = place.state["clock"] == "virtual"
        both = "tencent" in ((place.state.get("simulators") or {}).get("accounts") or {})
        yield await stack.enter_async_context(
            _over(
                place.databases["notification"],
                RehearsalClock(data / "clock") if virtual else SystemClock(),
                Vault.open(data / "keys" / "vault-notification.json", "local"),
                _number({}, "promise_share"),
                sms_shares(_number({}, "sms_share_of_tencent") if both else None),
            )
        )


@asynccontextmanager
async def _over(
    url: str, clock: Clock, vault: Vault, goal: float, shares: Mapping[str, float]
) -> AsyncIterator[Given]:
    database = Database(url, clock=clock, pool_size=2, application="kaowu-messages")
    key = Tokens(OKPKey.generate_key("Ed25519", {"kid": TOKEN_KEY_ID}))
    app = make_app(
        "kaowu messages",
        [
            api.public_routes(database),
            api.office_routes(database, vault, goal),
            api.carrier_routes(database, {}, shares, secrets.token_urlsafe()),
            api.call_routes(database, vault),
        ],
        Doorkeeper(TokenVerifier(KeySet([key.key])), clock),
    )
    token = key.mint("office", "kaowu-messages", at=clock.now())
    try:
        await _answers(database)
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url="http://notification",
            headers={"authorization": f"Bearer {token}"},
        ) as http:
            yield Given(http)
    finally:
        await database.dispose()


async def _answers(database: Database) -> None:
    try:
        async with database.reading() as uow:
            await uow.sql("select from sms_providers")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # Not the error's own words: they may hold the address with its password.
        raise CannotShow(
            f"notification's database does not answer as one of ours ({type(error).__name__})"
        ) from None


def _number(environ: Mapping[str, str], field: str) -> float:
    """A setting of notification's, or what it is unless set."""
    name = f"NOTIFICATION_{field.upper()}"
    said = environ.get(name)
    try:
        return float(said) if said else float(Settings.model_fields[field].default)
    except ValueError:
        raise ValueError(f"{name} is no number") from None

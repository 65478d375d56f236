"""Where payment's rows, its keys and what notification sent are: of a local system, or of the one the environment names."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from contracts.cycle import Cycle
from deploy.local.system import LocalSystem
from deploy.replay.standing import standing
from services.chassis.clock import Clock, RehearsalClock, SystemClock
from services.chassis.db import Database
from services.chassis.vault import Vault, VaultError
from services.payment.adapters.alipay_signatures import AlipayAccount
from services.payment.adapters.wechat_signatures import WeChatAccount


class CannotProve(Exception):
    """Why there is no evidence to write, and what to do."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What evidence is made of. `keys`: the gateways' public keys by channel and name."""

    cycle: Cycle
    payment: Database
    notification: Database
    vault: Vault
    keys: Mapping[str, Mapping[str, RSAPublicKey]]


@asynccontextmanager
async def local(
    data: Path, *, say: Callable[[str], None] = lambda _: None, stopped: bool = False
) -> AsyncIterator[Reach]:
    """Of the local system in this directory, as it runs or as it was left; `stopped`: only if nobody runs it."""
    async with standing(data, say=say, stopped=stopped) as place:
        virtual = place.state["clock"] == "virtual"
        clock: Clock = RehearsalClock(data / "clock") if virtual else SystemClock()
        accounts = (place.state.get("simulators") or {}).get("accounts", {})
        async with _databases(place.databases, clock) as (payment, notification):
            yield Reach(
                place.cycle,
                payment,
                notification,
                _vault(data / "keys" / "vault-payment.json", "local"),
                _keys({name: Path(file) for name, file in accounts.items()}),
            )


def reach_of(
    data: Path, *, use_given: bool, say: Callable[[str], None]
) -> AbstractAsyncContextManager[Reach]:
    """Of the system that a command means: the environment's, or the one in this directory."""
    return given(os.environ) if use_given else local(data, say=say)


@asynccontextmanager
async def of_system(system: LocalSystem) -> AsyncIterator[Reach]:
    """Of a local system that this process runs."""
    accounts = system.outside.accounts if system.outside else {}
    async with _databases(system.surroundings.databases, system.clock) as (payment, notification):
        yield Reach(
            system.cycle,
            payment,
            notification,
            _vault(system.keys.vault_file("payment"), "local"),
            _keys({name: Path(file) for name, file in accounts.items()}),
        )


@asynccontextmanager
async def given(environ: Mapping[str, str]) -> AsyncIterator[Reach]:
    """Of the system that the environment names, as its services are told it."""
    wanted = {
        name: environ.get(name, "")
        for name in (
            "PAYMENT_DATABASE_URL",
            "NOTIFICATION_DATABASE_URL",
            "KAOWU_CYCLE_FILE",
            "PAYMENT_VAULT_KEYS_FILE",
        )
    }
    missing = [name for name, value in wanted.items() if not value]
    if missing:
        raise CannotProve(f"set {', '.join(missing)} to say which system is meant")
    urls = {service: wanted[f"{service.upper()}_DATABASE_URL"] for service in ("payment", "notification")}
    accounts = {
        channel: Path(file)
        for channel in ("wechat", "alipay")
        if (file := environ.get(f"PAYMENT_{channel.upper()}_ACCOUNT_FILE"))
    }
    vault = _vault(Path(wanted["PAYMENT_VAULT_KEYS_FILE"]), environ.get("KAOWU_ENVIRONMENT", "production"))
    async with _databases(urls, SystemClock()) as (payment, notification):
        yield Reach(
            Cycle.read(Path(wanted["KAOWU_CYCLE_FILE"])), payment, notification, vault, _keys(accounts)
        )


@asynccontextmanager
async def _databases(urls: Mapping[str, str], clock: Clock) -> AsyncIterator[tuple[Database, Database]]:
    payment = Database(urls["payment"], clock=clock, pool_size=2, application="kaowu-evidence")
    notification = Database(urls["notification"], clock=clock, pool_size=2, application="kaowu-evidence")
    try:
        for service, database in (("payment", payment), ("notification", notification)):
            await _answers(service, database)
        yield payment, notification
    finally:
        await payment.dispose()
        await notification.dispose()


async def _answers(service: str, database: Database) -> None:
    try:
        async with database.reading() as uow:
            await uow.sql("select 1")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # Not the error's own words: they may hold the address with its password.
        raise CannotProve(f"{service}'s database does not answer ({type(error).__name__})") from None


def _vault(file: Path, environment: str) -> Vault:
    try:
        return Vault.open(file, environment)
    except VaultError as error:
        raise CannotProve(str(error)) from None


def _keys(accounts: Mapping[str, Path]) -> dict[str, Mapping[str, RSAPublicKey]]:
    found: dict[str, Mapping[str, RSAPublicKey]] = {}
    if file := accounts.get("wechat"):
        found["wechat"] = WeChatAccount.read(file).platform_keys
    if file := accounts.get("alipay"):
        found["alipay"] = AlipayAccount.read(file).gateway_keys
    return found

"""A notification database before and in a storm: people whose contacts are known, messages that wait or that a carrier has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from contracts import payment
from contracts.cycle import Cycle
from contracts.reasons import ExpiryCause
from deploy.bench import counter
from deploy.bench.stage import Stage
from deploy.local.databases import DatabaseLogin
from deploy.local.keys import LocalKeys
from services.chassis.vault import Vault
from services.notification.domain.calling import CallPatience
from services.notification.domain.occasions import Occasion
from services.notification.handlers.contacts import row_of

SERVICE: Final = "notification"
CYCLE: Final = "2024-health-leshan"
_SALT: Final = 0x0197
_PAGE: Final = 20_000
_COLUMNS: Final = (
    "registration_id", "cycle_id", "site_id", "standing", "tail", "phone", "email", "contact_wanted", "contact_known",
    "contact_try_at", "contact_at",
)  # fmt: skip
# Ids begin with a moment, as those that follow from an event's id do.
_ID: Final = "('{salt:08x}-0000-8000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
_PERSON: Final = "('00000197-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
# As the handler writes them (tests/benchmarks/test_messages.py holds the two side by side). Email waits for tomorrow:
# what is measured is SMS.
_WAITING: Final = f"""
insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts, created_at, state_at,
    not_before, due_at, template_version, correlation_id, caused_by, priority, call_at)
select {_ID.format(salt=0x0198)}, {_PERSON}, 'expired', '', 'payment-2', 'sms', 'created', $1::jsonb,
    $2::timestamptz, $2, $2, $2, 1, 'storm', {_ID.format(salt=0x0196)}, 0, $5::timestamptz
from generate_series($3::int, $4::int) n
union all
select {_ID.format(salt=0x0199)}, {_PERSON}, 'expired', '', 'payment-2', 'email', 'created', $1::jsonb, $2::timestamptz, $2,
    $2::timestamptz + interval '1 day', $2::timestamptz + interval '1 day', 1, 'storm', {_ID.format(salt=0x0196)}, 0, null
from generate_series($3::int, $4::int) n
"""
_ACCEPTED: Final = f"""
insert into messages (message_id, registration_id, occasion, variant, instance, channel, state, facts, created_at, state_at,
    not_before, template_version, correlation_id, caused_by, claims, tries, body, parts, provider_ref, priority)
select {_ID.format(salt=0x019A)}, {_PERSON}, 'due', '', 'payment-1', 'sms', 'accepted', $1::jsonb,
    $2::timestamptz, $2, $2, 1, 'earlier', {_ID.format(salt=0x0195)}, 1, 1, 'as it was sent', 1, n::text, 1
from generate_series(0, $3::int - 1) n
"""


def person(number: int) -> UUID:
    """In the order of time, as the service's own are."""
    return UUID(f"{_SALT:08x}-0000-7000-8000-{number:012x}")


def waiting_sms(number: int) -> str:
    """The reference of that person's SMS."""
    return f"{0x0198:08x}-0000-8000-8000-{number:012x}"


def accepted_sms(number: int) -> str:
    """The reference of an earlier SMS, which the carrier has."""
    return f"{0x019A:08x}-0000-8000-8000-{number:012x}"


def phone(number: int) -> str:
    return f"139{number:08d}"


def forfeited(number: int) -> payment.Expired:
    """What payment says of one of them."""
    closes = Cycle.read(counter.CYCLE_FILE).windows.payment.closes
    return payment.Expired(
        cycle_id=CYCLE, registration_id=person(number), closes_at=closes, cause=ExpiryCause.UNPAID, proof_id=UUID(int=number),
    )  # fmt: skip


def cycle_by_day(stage: Stage) -> Path:
    """The cycle of Leshan, in which it is not night now whenever this runs."""
    night = datetime.now(ZoneInfo("Asia/Shanghai")) + timedelta(hours=12)
    text = counter.CYCLE_FILE.read_text(encoding="utf-8")
    hours = f"starts = {night:%H}:00:00\nends = {night:%H}:30:00"
    path = stage.directory / "cycle-by-day.toml"
    path.write_text(text.replace("starts = 22:00:00\nends = 08:00:00", hours), encoding="utf-8")
    assert Cycle.read(path).quiet_until(datetime.now(UTC)) <= datetime.now(UTC), "it is day"
    return path


def keys(stage: Stage) -> LocalKeys:
    return LocalKeys.of(stage.directory / "keys", [SERVICE])


async def known(stage: Stage, people: int) -> DatabaseLogin:
    """A migrated database in which so many people can be told something."""
    return await stage.filled(f"{people} people", SERVICE, lambda: _filled(stage, people))


async def _filled(stage: Stage, people: int) -> DatabaseLogin:
    login = await stage.migrated(SERVICE)
    vault = Vault.open(keys(stage).vault_file(SERVICE), "local")
    at = datetime.now(UTC)
    async with stage.postgres.connection(login.database) as connection:
        for first in range(0, people, _PAGE):
            rows = list(_people(vault, at, range(first, min(first + _PAGE, people))))
            await connection.copy_records_to_table("recipients", records=rows, columns=list(_COLUMNS))
        await connection.execute("vacuum analyze")
    return login


def _people(vault: Vault, at: datetime, numbers: range) -> Iterator[tuple[Any, ...]]:
    for number in numbers:
        one = person(number)
        sealed = vault.encrypt(phone(number), row=row_of(one, "phone"))
        mailbox = vault.encrypt(f"p{number}@example.cn", row=row_of(one, "email"))
        yield one, CYCLE, "shizhong", "expired", f"{number % 10_000:04d}", sealed, mailbox, 1, 1, at, at


async def storm(connection: Any, people: int) -> None:
    """All of them wait to be told that they are forfeited, by SMS now and by email later."""
    closed = Cycle.read(counter.CYCLE_FILE).windows.payment.told_closes
    facts = f'{{"why": "unpaid", "closed_at": "{closed.astimezone(UTC).isoformat()}"}}'
    for first in range(0, people, 5 * _PAGE):
        last = min(first + 5 * _PAGE, people) - 1
        at = datetime.now(UTC)
        call_at = CallPatience().call_at(Occasion.EXPIRED, None, at)
        await connection.execute(_WAITING, facts, at, first, last, call_at)
    await connection.execute("vacuum analyze")


async def had(connection: Any, messages: int) -> None:
    """So many have an earlier SMS of which no receipt has come yet."""
    closes = Cycle.read(counter.CYCLE_FILE).windows.payment.told_closes.astimezone(UTC).isoformat()
    facts = f'{{"amount_fen": 24400, "opens_at": "{closes}", "closes_at": "{closes}"}}'
    await connection.execute(_ACCEPTED, facts, datetime.now(UTC), messages)
    await connection.execute("vacuum analyze")

"""Door 3, time: contacts that are wanted, messages that are due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from services.chassis.db import Database
from services.chassis.jobs import Job
from services.chassis.vault import Vault
from services.notification.domain.calling import CallPatience
from services.notification.domain.life import ASK_AFTER
from services.notification.handlers.bounces import Box, read_bounces
from services.notification.handlers.calls import keep_list
from services.notification.handlers.contacts import fetch_contacts
from services.notification.handlers.delivery import Delivery
from services.notification.handlers.following import follow_up
from services.notification.handlers.promising import show_promise
from services.notification.handlers.pulling import pull_receipts
from services.notification.handlers.routing import forget_what_left
from services.notification.ports import ContactBook, Sms

_SECOND: Final = timedelta(seconds=1)


def fetch_job(
    database: Database,
    book: ContactBook,
    vault: Vault,
    on_messages: Callable[[], None],
    pace: timedelta = timedelta(0),
) -> Job:
    """Asks registration for contacts as soon as one is wanted. One process at a time: two would only ask twice."""
    return Job(
        name="fetch-contacts",
        run=lambda: fetch_contacts(database, book, vault, on_messages),
        every=timedelta(seconds=10),
        pace=pace,
    )


def pull_job(database: Database, carriers: Sequence[Sms], every: timedelta) -> Job:
    """Receipts that carriers keep for us. One process at a time: each is given once, to whoever asks first."""

    async def run() -> None:
        await pull_receipts(database, carriers)

    return Job(name="pull-receipts", run=run, every=every, pace=every)


def follow_job(database: Database, by_sms: Delivery, on_questions: Callable[[], None]) -> Job:
    """Sees to messages without a receipt. Whatever was just accepted is due before long: with a clock that jumps, before
    another look by the real one."""
    job = Job(
        "follow-up", lambda: follow_up(database, on_questions), every=timedelta(seconds=10), pace=_SECOND
    )
    by_sms.on_accepted = lambda at: job.wake_for(at + ASK_AFTER[0])
    return job


def calls_job(database: Database) -> Job:
    """Keeps the desks' list of people to call."""
    return Job(
        "call-list", lambda: keep_list(database), every=timedelta(seconds=10), pace=_SECOND, looks=True
    )


def promise_job(database: Database, goal: float) -> Job:
    """Shows how the promise stands. In one process at a time: the figures are everybody's."""
    return Job(
        "promise", lambda: show_promise(database, goal), every=timedelta(minutes=1), pace=timedelta(seconds=5)
    )


def forget_job(database: Database) -> Job:
    """Drops what no limit reaches any more."""
    return Job(name="forget-sent", run=lambda: forget_what_left(database), every=timedelta(minutes=10))


def delivery_jobs(deliveries: Sequence[tuple[str, Delivery]], pace: timedelta = timedelta(0)) -> list[Job]:
    """One per channel, so that a carrier that is away delays nobody else; every process of the service shares the work."""
    jobs = []
    for channel, delivery in deliveries:
        job = Job(
            f"deliver-{channel}", delivery.deliver, every=timedelta(seconds=5), exclusive=False, pace=pace
        )
        delivery.ending = partial(getattr, job, "ending")
        jobs.append(job)
    return jobs


def bounces_job(database: Database, box: Box, every: timedelta) -> Job:
    """Reads what came back, in one process at a time."""

    async def run() -> None:
        await read_bounces(database, box, CallPatience())

    return Job("read-bounces", run, every=every, finds=box.has_new)

"""A bare loop: the same signed calls over the same kept connections, so many at a time. No database, nothing is kept.

What the carrier tells to come later and what it does not answer is given up.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path

from deploy.bench.program import Door, Task, own_cpu, run
from services.chassis.clock import SystemClock
from services.notification.adapters.aliyun import AliyunAccount, AliyunSms
from services.notification.ports import NoAnswer, Rejected

REFERENCE = "bare-"


async def work(task: Task, door: Door) -> None:
    account = AliyunAccount.read(Path(task["account"]))
    sms = AliyunSms(account, clock=SystemClock(), connections=task["in_flight"])
    numbers, came, stop = itertools.count(task["first"]), Counter[str](), asyncio.Event()

    async def send_on() -> None:
        while not stop.is_set():
            number = next(numbers)
            try:
                await sms.send(
                    f"138{number:08d}", task["template"], task["variables"], "", f"{REFERENCE}{number}"
                )
            except (Rejected, NoAnswer) as error:
                came[type(error).__name__] += 1
            else:
                came["accepted"] += 1

    await door.ready()
    began, before = time.perf_counter(), own_cpu()
    senders = [asyncio.create_task(send_on()) for _ in range(task["in_flight"])]
    while await door.told() == "count":
        door.result(came=came, seconds=time.perf_counter() - began, own=own_cpu() - before)
    stop.set()
    await asyncio.gather(*senders)
    await sms.aclose()


if __name__ == "__main__":
    run(work)

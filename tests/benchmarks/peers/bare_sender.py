"""A bare loop over asyncio and httpx2, Aliyun's own calls signed as ours are: so many at a time, no database, nothing kept.

What the carrier tells to come later and what it does not answer is given up.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from deploy.bench.program import Door, Task, own_cpu, run
from services.notification.adapters.aliyun import PATIENCE, AliyunAccount, canonical_query, signed_headers

REFERENCE = "bare-"


async def work(task: Task, door: Door) -> None:
    account = AliyunAccount.read(Path(task["account"]))
    variables = json.dumps(task["variables"], ensure_ascii=False, separators=(",", ":"))
    came: Counter[str] = Counter()
    limits = httpx2.Limits(max_connections=task["in_flight"], max_keepalive_connections=task["in_flight"])
    stop = asyncio.Event()
    async with httpx2.AsyncClient(base_url=account.endpoint, timeout=PATIENCE, limits=limits) as client:
        host = httpx2.URL(account.endpoint).netloc.decode()
        numbers = itertools.count(task["first"])

        async def send_on() -> None:
            while not stop.is_set():
                number = next(numbers)
                query = canonical_query(
                    {
                        "PhoneNumbers": f"138{number:08d}",
                        "SignName": account.sign_name,
                        "TemplateCode": task["template"],
                        "TemplateParam": variables,
                        "OutId": f"{REFERENCE}{number}",
                    }
                )
                headers = signed_headers(
                    account, host, "SendSms", query, datetime.now(UTC), secrets.token_hex(16)
                )
                try:
                    answer = await client.post(f"/?{query}", headers=headers)
                except httpx2.HTTPError as error:
                    came[type(error).__name__] += 1
                else:
                    came[json.loads(answer.content)["Code"]] += 1

        await door.ready()
        began, before = time.perf_counter(), own_cpu()
        senders = [asyncio.create_task(send_on()) for _ in range(task["in_flight"])]
        while await door.told() == "count":
            door.result(came=came, seconds=time.perf_counter() - began, own=own_cpu() - before)
        stop.set()
        await asyncio.gather(*senders)


if __name__ == "__main__":
    run(work)

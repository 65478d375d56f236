"""A carrier that pushes receipts: so many a second, some together, each push at its moment whatever comes of others."""

from __future__ import annotations

import asyncio
import json
import time

from deploy.bench.ours.caller import Connection
from deploy.bench.program import Door, Task, run
from deploy.bench.telling import accepted_sms, phone


async def work(task: Task, door: Door) -> None:
    requests = [
        _push(task["secret"], range(first, min(first + task["push"], task["first"] + task["receipts"])))
        for first in range(task["first"], task["first"] + task["receipts"], task["push"])
    ]
    free: list[Connection] = []
    took: list[float] = []
    refused = 0

    async def one(request: bytes, due: float) -> None:
        nonlocal refused
        connection = free.pop() if free else Connection(task["port"])
        try:
            refused += await connection.ask(request) != 200
        except (OSError, asyncio.IncompleteReadError):
            refused += 1
            return
        took.append(time.perf_counter() - due)
        free.append(connection)

    await door.ready()
    began = time.perf_counter()
    under_way = []
    for number, request in enumerate(requests):
        due = began + number * task["push"] / task["rate"]
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        under_way.append(asyncio.create_task(one(request, due)))
    await asyncio.gather(*under_way)
    door.result(receipts=task["receipts"], refused=refused, took=took, seconds=time.perf_counter() - began)


def _push(secret: str, numbers: range) -> bytes:
    at = time.strftime("%Y-%m-%d %H:%M:%S")
    content = [
        {
            "phone_number": phone(number),
            "send_time": at,
            "report_time": at,
            "success": True,
            "err_code": "DELIVERED",
            "err_msg": "用户接收成功",
            "sms_size": "1",
            "biz_id": f"{number}",
            "out_id": accepted_sms(number),
        }
        for number in numbers
    ]
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    head = (
        f"POST /carriers/aliyun/receipts/{secret} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    run(work)

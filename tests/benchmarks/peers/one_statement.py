"""The shortest way there is: one UPDATE ... RETURNING -> INSERT that writes what a close writes to the same tables."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final

import asyncpg

from contracts.cycle import Cycle
from deploy.bench.program import Door, Task, run
from services.chassis.db import driver_url
from services.payment.domain.proof_tree import NO_CLOCKS
from services.payment.repository import closing

_CHOSEN: Final = "o.ctid = any(array(select ctid from due)) and "
_ALL: Final = """
not exists (select from orders r where r.registration_id = o.registration_id
            and r.status in ('creating', 'open', 'unknown', 'lapsing')) and
"""


def statement() -> str:
    """What is written is the sweep's own text, so that it stays the same; who is chosen, and that it is one, is not."""
    _, found, rest = closing._sweep(1, wait=True).partition("expired as (")
    assert found, "the sweep changed its form"
    assert rest.count(_CHOSEN) == 1, "the sweep chooses in another way"
    return f"with expired as ({rest.replace(_CHOSEN, _ALL)}"


async def work(task: Task, door: Door) -> None:
    connection = await asyncpg.connect(
        driver_url(task["database"]), server_settings={"jit": "off", "timezone": "UTC"}, command_timeout=None
    )
    fingerprint = Cycle.read(task["cycle_file"]).fingerprint
    await door.ready()
    began = time.perf_counter()
    done = await connection.execute(statement(), datetime.fromisoformat(task["at"]), fingerprint, NO_CLOCKS)
    took = time.perf_counter() - began
    door.result(seconds=took, swept=int(done.rpartition(" ")[2]))
    await connection.close()


if __name__ == "__main__":
    run(work)

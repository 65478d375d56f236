"""A bare FastAPI endpoint that does one INSERT of what it was sent, in one process, behind the server that the services have."""

from __future__ import annotations

import asyncio

import asyncpg
from fastapi import FastAPI, Request, Response

from deploy.bench.program import Door, Task, run
from services.chassis.db import driver_url
from services.chassis.process import _server

PATH = "/gateway/wechat/notify"


async def work(task: Task, door: Door) -> None:
    pool = await asyncpg.create_pool(driver_url(task["database"]), min_size=1, max_size=8)
    await pool.execute(
        "create table notices (id bigint generated always as identity primary key, "
        "received_at timestamptz not null default now(), body bytea not null)"
    )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post(PATH)
    async def notify(request: Request) -> Response:
        await pool.execute("insert into notices (body) values ($1)", await request.body())
        return Response(status_code=204)

    server = _server(app, "127.0.0.1", task["port"])
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await door.ready()
    server.should_exit = True
    await serving
    door.result(rows=await pool.fetchval("select count(*) from notices"))
    await pool.close()


if __name__ == "__main__":
    run(work)

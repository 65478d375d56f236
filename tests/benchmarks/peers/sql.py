"""The step's three statements, one event at a time, in the form that psycopg takes."""

from __future__ import annotations

from typing import Final

CLAIM: Final = """
insert into bench_inbox (handler, event_id, received_at) values (%s, %s, %s) on conflict do nothing returning event_id
"""
CHANGE: Final = """
insert into bench_cases (id, version) values (%s, 1)
on conflict (id) do update set version = bench_cases.version + 1 returning version
"""
SAY: Final = """
insert into bench_outbox (event_id, topic, key, type, sequence, occurred_at, payload, correlation_id, causation_id)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

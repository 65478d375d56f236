"""Two databases of one service, row by row. A difference is named by table, key and column; a person's value never is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from deploy.replay.tables import TABLES, Row, Table

_PAGE: Final = 2_000
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what the events give. `column` empty: the whole row is on one side only."""

    service: str
    table: str
    key: str
    column: str
    live: str
    rebuilt: str

    def __str__(self) -> str:
        where = f"{self.service}.{self.table} {self.key}"
        return (
            f"{where} {self.column}: live {self.live}, rebuilt {self.rebuilt}"
            if self.column
            else f"{where}: {self.live}"
        )


@dataclass
class Compared:
    """What was looked at in one table."""

    rows: int = 0
    values: int = 0


async def compare(
    service: str, live: Any, rebuilt: Any, found: list[Difference], *, limit: int
) -> dict[str, Compared]:
    """Every table that can be rebuilt, over one connection to each side. Stops naming differences at `limit` a table."""
    counts = {}
    for name, table in TABLES[service].items():
        if isinstance(table, Table):
            counts[name] = counted = Compared()
            named = 0
            async for one in _differences(service, name, table, live, rebuilt, counted):
                named += 1
                if named <= limit:
                    found.append(one)
            if named > limit:
                found.append(Difference(service, name, "…", "", f"{named - limit} more differences", ""))
    return counts


async def _differences(
    service: str, name: str, table: Table, live: Any, rebuilt: Any, counted: Compared
) -> AsyncIterator[Difference]:
    here, there = _rows(live, name, table), _rows(rebuilt, name, table)
    mine, other = await anext(here, None), await anext(there, None)
    while mine is not None or other is not None:
        key = min(_key(row, table) for row in (mine, other) if row is not None)
        shown = " ".join(key)
        counted.rows += 1
        if other is None or _key(other, table) != key:
            if not table.some:
                yield Difference(service, name, shown, "", "is live, and no event gives it", "")
            mine = await anext(here, None)
            continue
        if mine is None or _key(mine, table) != key:
            yield Difference(service, name, shown, "", "follows from the events, and is not live", "")
            other = await anext(there, None)
            continue
        for difference in _columns(service, name, table, shown, mine, other, counted):
            yield difference
        mine, other = await anext(here, None), await anext(there, None)


def _columns(
    service: str, name: str, table: Table, key: str, live: Row, rebuilt: Row, counted: Compared
) -> Iterator[Difference]:
    silent = table.silent(live, rebuilt)
    for column in table.compared:
        if column in silent:
            continue
        counted.values += 1
        if live[column] != rebuilt[column]:
            yield Difference(service, name, key, column, _shown(live[column]), _shown(rebuilt[column]))


def _key(row: Row, table: Table) -> tuple[str, ...]:
    return tuple(row[f"key_{place}"] for place in range(len(table.key)))


async def _rows(connection: Any, name: str, table: Table) -> AsyncIterator[Row]:
    """In the order of the key's bytes, so that both sides and Python agree about it."""
    keys = [f'{column}::text collate "C"' for column in table.key]
    named = ", ".join(f"{key} as key_{place}" for place, key in enumerate(keys))
    columns = ", ".join(table.compared)
    statement = f"select {columns}, {named} from {name} order by {', '.join(keys)}"
    async for row in connection.cursor(statement, prefetch=_PAGE):
        yield {column: _value(value) for column, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _shown(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

"""What the parts of a cycle file must say of each other.

Works on the raw data, so that a bad value in one place does not hide a wrong reference in another: whoever
repairs a file wants to know everything at once.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from contracts.cycle.lines import Path


class Complaint(NamedTuple):
    path: Path
    reason: str
    remedy: str


def complaints(data: Mapping[str, Any]) -> Iterator[Complaint]:
    yield from _moments(data, ())
    yield from _time_zone(data)
    for table, key in _IDS:
        yield from _twice(data, table, key)
    for table, key, target, target_key in _REFERENCES:
        yield from _unknown(data, table, key, target, target_key)
    yield from _desks(data)
    yield from _fees(data)
    yield from _papers(data)


# What must be unique in which list.
_IDS = (
    ("sites", "id"),
    ("sites", "name"),
    ("documents", "id"),
    ("review_levels", "id"),
    ("levels", "id"),
    ("modes", "id"),
    ("subjects", "number"),
    ("specialties", "code"),
    ("employers", "name"),
    ("returning", "level"),
    ("fees", "name"),
)

# Which key speaks of a thing that another list must have.
_REFERENCES = (
    ("employers", "site", "sites", "id"),
    ("specialties", "level", "levels", "id"),
    ("specialties", "mode", "modes", "id"),
    ("fees", "levels", "levels", "id"),
    ("fees", "modes", "modes", "id"),
    ("returning", "level", "levels", "id"),
    ("papers", "mode", "modes", "id"),
    ("papers", "subject", "subjects", "number"),
)

_CALLED = {
    "sites": "desk",
    "levels": "level",
    "modes": "mode of exam",
    "subjects": "subject",
}


def _rows(data: Mapping[str, Any], table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = data.get(table)
    if isinstance(rows, list):
        yield from ((index, row) for index, row in enumerate(rows) if isinstance(row, dict))


def _moments(value: object, path: Path) -> Iterator[Complaint]:
    """Moments without a zone, days without a clock, and the last minute of a day, wherever they stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _moments(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _moments(inner, (*path, index))
    elif isinstance(value, datetime):
        if (value.hour, value.minute) == (23, 59):
            yield Complaint(path, *_LAST_MINUTE)
        if value.tzinfo is None:
            yield Complaint(path, *_NO_ZONE)
    elif isinstance(value, date):
        yield Complaint(
            path,
            "a day is not a moment",
            f"Write the moment with its clock and offset, such as {value.isoformat()}T00:00:00+08:00",
        )
    elif isinstance(value, time) and (value.hour, value.minute) == (23, 59):
        yield Complaint(path, *_LAST_MINUTE)


_LAST_MINUTE = (
    "23:59 is not the end of a day: windows are half-open, and the last minute belongs to somebody",
    "Write 00:00:00 of the next day",
)
_NO_ZONE = (
    "the time zone is missing",
    "Write the offset behind the moment, such as +08:00",
)


def _time_zone(data: Mapping[str, Any]) -> Iterator[Complaint]:
    zone = data.get("time_zone")
    if isinstance(zone, str) and zone_named(zone) is None:
        yield Complaint(("time_zone",), "no such time zone", "Write an IANA name, such as Asia/Shanghai")


def zone_named(name: object) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if isinstance(name, str) else None
    except (OSError, ValueError, LookupError):
        return None


def _twice(data: Mapping[str, Any], table: str, key: str) -> Iterator[Complaint]:
    first: dict[str | int, int] = {}
    for index, row in _rows(data, table):
        value = row.get(key)
        if not isinstance(value, str | int):
            continue
        if value in first:
            yield Complaint(
                (table, index, key),
                f"{value!r} is already the {key} of {table}[{first[value]}]",
                f"Give each of {table} its own {key}",
            )
        else:
            first[value] = index


def _unknown(
    data: Mapping[str, Any], table: str, key: str, target: str, target_key: str
) -> Iterator[Complaint]:
    known = [row.get(target_key) for _, row in _rows(data, target)]
    for index, row in _rows(data, table):
        value = row.get(key)
        path: Path = (table, index, key)
        items = value if isinstance(value, list) else [value]
        for position, item in enumerate(items):
            where = (*path, position) if items is value else path
            if isinstance(item, str | int) and item not in known:
                yield Complaint(
                    where,
                    f"unknown {_CALLED[target]} {item!r}",
                    f"Write one of {', '.join(str(each) for each in known)}, or add it to {target}",
                )


def _desks(data: Mapping[str, Any]) -> Iterator[Complaint]:
    for index, row in _rows(data, "sites"):
        path: Path = ("sites", index)
        if "window" in row and "undated_note" in row:
            yield Complaint(
                (*path, "undated_note"),
                "a desk is either dated or undated",
                "Keep the window or the undated_note, not both",
            )
        elif "window" not in row and "undated_note" not in row:
            yield Complaint(
                path,
                "this desk has no window",
                "Give it a window, or an undated_note that says who will name the days",
            )


def _fees(data: Mapping[str, Any]) -> Iterator[Complaint]:
    fees = [row for _, row in _rows(data, "fees")]
    levels = [row.get("id") for _, row in _rows(data, "levels")]
    modes = [row.get("id") for _, row in _rows(data, "modes")]
    asked: set[tuple[str, str]] = set()
    for index, row in _rows(data, "specialties"):
        level, mode = row.get("level"), row.get("mode")
        if not isinstance(level, str) or not isinstance(mode, str) or (level, mode) in asked:
            continue
        if level not in levels or mode not in modes:
            continue  # unknown, which is said elsewhere
        asked.add((level, mode))
        if not any(_applies(fee, level, mode) for fee in fees):
            yield Complaint(
                ("specialties", index),
                f"no fee applies to level {level!r} in mode {mode!r}",
                "Add an item to fees whose conditions this specialty meets",
            )


def _applies(fee: Mapping[str, Any], level: str, mode: str) -> bool:
    levels, modes = fee.get("levels"), fee.get("modes")
    return (not isinstance(levels, list) or level in levels) and (
        not isinstance(modes, list) or mode in modes
    )


def _papers(data: Mapping[str, Any]) -> Iterator[Complaint]:
    """Within a session nobody can sit two papers at once, nor end one before it starts."""
    sessions: dict[str, list[tuple[datetime, datetime, int]]] = {}
    for index, row in _rows(data, "papers"):
        starts, ends, session = row.get("starts"), row.get("ends"), row.get("session")
        if not isinstance(starts, datetime) or not isinstance(ends, datetime) or not isinstance(session, str):
            continue
        if starts.tzinfo is None or ends.tzinfo is None:
            continue
        if ends <= starts:
            yield Complaint(
                ("papers", index, "ends"),
                "the paper ends at or before it starts",
                "Write an end after the start",
            )
            continue
        for other_starts, other_ends, other in sessions.setdefault(session, []):
            if starts < other_ends and other_starts < ends:
                yield Complaint(
                    ("papers", index, "starts"),
                    f"overlaps papers[{other}] of the same session {session!r}",
                    "Move one of them, or give it another session",
                )
        sessions[session].append((starts, ends, index))

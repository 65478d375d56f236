"""From a TOML file to a cycle, or to every problem it has, each with line, key, reason and remedy."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from contracts.cycle.checks import complaints, zone_named
from contracts.cycle.lines import Path, lines_of, nearest
from contracts.cycle.problems import CycleInvalid, Problem

Model = TypeVar("Model", bound=BaseModel)

_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


def read(model: type[Model], file: File) -> Model:
    try:
        return _read(model, file)
    except CycleInvalid as invalid:
        invalid.file = file
        raise


def _read(model: type[Model], file: File) -> Model:
    text = _text(file)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CycleInvalid([_syntax(str(error), text)]) from None
    return _validate(model, data, text)


def _validate(model: type[Model], data: Mapping[str, Any], text: str) -> Model:
    problems: dict[Path, tuple[str, str]] = {}
    for path, reason, remedy in complaints(data):
        problems.setdefault(path, (reason, remedy))
    cycle: Model | None = None
    try:
        cycle = model.model_validate(dict(data), context={"zone": zone_named(data.get("time_zone"))})
    except ValidationError as error:
        details = error.errors(include_url=False)
        for detail in details:
            path = _blamed(detail)
            if detail["type"] == "too_short" and any(_inside(other, path) for other in details):
                continue  # an element that is wrong is not counted, and so "missing" as well
            # What `complaints` says of the same key is said better.
            problems.setdefault(path, _in_words(detail))
    if problems or cycle is None:
        lines = lines_of(text)  # only now: to find them takes longer than all the rest
        raise CycleInvalid(
            [
                Problem(nearest(lines, path), spelled(path), reason, remedy)
                for path, (reason, remedy) in problems.items()
            ]
        )
    return cycle


def spelled(path: Path) -> str:
    """windows.payment.intervals[0].closes"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _text(file: File) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        reason = f"the file cannot be read: {error.strerror or error}"
        raise CycleInvalid([Problem(0, "", reason, "Check the path and its permissions")]) from None
    except UnicodeDecodeError:
        remedy = "Save it as UTF-8"
        raise CycleInvalid([Problem(0, "", "the file is not UTF-8", remedy)]) from None


def _syntax(message: str, text: str) -> Problem:
    match = _LINE.search(message)
    line = int(match[1]) if match else text.count("\n") + 1
    if text.startswith("\ufeff"):
        return Problem(1, "", "the file starts with a byte order mark", "Save it as UTF-8 without one")
    reason = f"not TOML: {_LINE.sub('', message).removesuffix(' (at end of document)')}"
    return Problem(line, "", reason, "Repair the line; strings stand in quotes, moments and numbers do not")


def _blamed(detail: ErrorDetails) -> Path:
    """The key at fault; for a window that closes before it opens, its close."""
    path = tuple(detail["loc"])
    if detail["type"] == "interval_order" and isinstance(detail["input"], dict):
        key = "told_closes" if "told_closes" in detail["input"] else "closes"
        return (*path, key)
    return path


def _inside(detail: ErrorDetails, path: Path) -> bool:
    return len(detail["loc"]) > len(path) and tuple(detail["loc"])[: len(path)] == path


def _in_words(detail: ErrorDetails) -> tuple[str, str]:
    kind, context, key = (
        detail["type"],
        detail.get("ctx", {}),
        str(detail["loc"][-1]) if detail["loc"] else "",
    )
    if key.endswith("_fen"):
        if kind.startswith("int_"):
            return (
                "a fee is a whole number of fen",
                "Write 50 yuan as 5000, without quotes and without a point",
            )
        return f"a fee is a whole number of fen: {_lower(detail['msg'])}", "Write 50 yuan as 5000"
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "literal_error":
        return f"not one of {context.get('expected')}", "Write one of these"
    if kind == "string_pattern_mismatch":
        return f"not of the form {context.get('pattern')}", "See the forms in contracts/README.md"
    return _lower(detail["msg"]), "Correct the value"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


_MOMENT = (
    "not a moment",
    "Write it as TOML writes moments, without quotes, such as 2024-02-09T00:00:00+08:00",
)
_WORDS: Mapping[str, tuple[str, str]] = {
    "extra_forbidden": (
        "unknown key",
        "Correct its spelling or remove it: a key that nobody reads is a rule that nobody keeps",
    ),
    "missing": ("this key is missing", "Add it"),
    "interval_order": ("the window ends before it opens", "Write a close after the opening"),
    "intervals_overlap": (
        "the intervals of the window overlap or are not in order",
        "Sort them, and join those that overlap",
    ),
    "never_open": (
        "the daily hours leave no moment at which the window is open",
        "Correct the daily hours or the intervals",
    ),
    "timezone_naive": ("the time zone is missing", "Write the offset behind the moment, such as +08:00"),
    "datetime_type": _MOMENT,
    "datetime_from_date_parsing": _MOMENT,
    "time_type": ("not a time of day", "Write it without quotes, such as 22:00:00"),
    "int_type": ("not a whole number", "Write a whole number, without quotes and without a point"),
    "int_from_float": ("not a whole number", "Write a whole number, without quotes and without a point"),
    "bool_type": ("neither true nor false", "Write true or false, without quotes"),
    "string_type": ("not a text", "Write it in quotes"),
    "tuple_type": ("not a list", "Write it in [ ]"),
    "model_type": ("not a table", "Write it in { } or under a [header]"),
    "span": ("not a span of time", 'Write a number and d, h or m in quotes, such as "7d"'),
    "reminders_order": (
        "the reminders are not in order",
        "Write them from the longest to the shortest, each once",
    ),
    "quiet_hours": ("the quiet hours start when they end", "Write two different times"),
}

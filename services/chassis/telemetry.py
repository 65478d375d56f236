"""What a service tells its operators: one JSON line per unit of work, metrics, traces. Never who somebody is.

Values are masked by key and by pattern in every line, exceptions included, because one forgotten `extra=` is
enough to put an ID number into a log that is kept for a year.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram

_PERSONAL_KEYS: Final = frozenset(
    {"name", "id_number", "phone", "email", "employer", "employer_code", "photo", "payer", "openid", "to"}
    | {"address", "body", "text", "token", "authorization", "password", "secret"}
)
_PATTERNS: Final = (
    (re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)"), "[id-number]"),
    (re.compile(r"(?<!\d)(?:\+?86)?1[3-9]\d{9}(?!\d)"), "[phone]"),
    (re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"), "[email]"),
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"), "[token]"),
)

HANDLED = Counter("kaowu_events_handled", "Events whose effect was committed", ["type"])
DUPLICATES = Counter("kaowu_events_duplicate", "Deliveries of events taken in before", ["type"])
SKIPPED = Counter("kaowu_events_skipped", "Events of types that nobody here handles", ["type"])
PARKED = Counter("kaowu_events_parked", "Events parked", ["reason"])
RELAYED = Counter("kaowu_events_relayed", "Events published and acknowledged")
BATCH_SECONDS = Histogram("kaowu_batch_seconds", "From poll to commit of one batch", ["topic"])
JOB_SECONDS = Histogram("kaowu_job_seconds", "One run of a job", ["job"])
JOB_ELSEWHERE = Counter("kaowu_job_elsewhere", "Turns of a job left to the process that has it", ["job"])
JOB_FAILURES = Counter("kaowu_job_failures", "Runs of a job that raised", ["job"])
REQUESTS = Counter("kaowu_http_requests", "Requests by route and answer", ["route", "status"])
REFUSALS = Counter("kaowu_refusals", "What people were told no about", ["route", "code"])
UNPUBLISHED = Gauge("kaowu_outbox_unpublished", "Events not yet published")
CLOCK_DISAGREEMENT = Gauge("kaowu_clock_disagreement_seconds", "Largest distance between three clocks")


# Whatever one of the patterns takes holds one of these: one look tells that most texts hold nothing.
_PERHAPS: Final = re.compile(r"\d{11}|@|eyJ")


def mask(text: str) -> str:
    """The text without ID numbers, phone numbers, addresses and tokens."""
    if _PERHAPS.search(text):
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
    return text


def _mask_value(value: object) -> object:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {
            k: "[masked]" if str(k).lower() in _PERSONAL_KEYS else _mask_value(v) for k, v in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_mask_value(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return mask(str(value))


def masking_processor(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """structlog's last step but one: nothing personal goes past it."""
    for key, value in line.items():
        line[key] = "[masked]" if key.lower() in _PERSONAL_KEYS else _mask_value(value)
    return line


def configure_logging(service: str, log_format: str, now: Callable[[], Any]) -> None:
    """One line per event on standard output; the libraries' own loggers go the same way."""

    def stamp(_l: object, _m: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        line["at"] = now().isoformat()
        line["service"] = service
        return line

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        masking_processor,
    ]
    render: Any = (
        structlog.processors.JSONRenderer(serializer=_json)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_drop_meta, *shared, render]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for noisy in ("aiokafka.consumer.group_coordinator", "aiokafka.cluster", "aiokafka.conn", "aiokafka"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _json(line: object, **_: object) -> str:
    """What a line holds has been made plain by the masking: numbers, texts, lists. No line is lost for a number too long."""
    try:
        return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(line, ensure_ascii=False, default=str)


def _drop_meta(_l: object, _m: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = line.pop("_record", None)
    line.pop("_from_structlog", None)
    if record is not None:
        line["logger"] = record.name
    return line

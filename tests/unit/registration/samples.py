"""A candidate who does not exist, and photos of nobody: region codes 9990xx, mail at example.cn."""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from contracts.cycle import Cycle
from services.registration.domain.people import check_digit

ROOT = Path(__file__).resolve().parents[3]
MICROSECOND = timedelta(microseconds=1)
DURING = datetime(2023, 12, 5, 2, 0, tzinfo=UTC)  # pre-registration is open, no desk is yet


@cache
def cycle() -> Cycle:
    return Cycle.read(ROOT / "deploy" / "cycles" / "2024-health-leshan.toml")


def id_number(born: date = date(1990, 3, 7), order: int = 12, region: str = "999001") -> str:
    first = f"{region}{born:%Y%m%d}{order:03d}"
    return first + check_digit(first)


def people() -> Iterator[str]:
    """ID numbers of as many people as are asked for."""
    for days in itertools.count():
        for order in range(1000):
            yield id_number(date(1970, 1, 1) + timedelta(days=days), order)


def jpeg(
    size: tuple[int, int] = (413, 579),
    at_least: int = 26_000,
    at_most: int = 40_000,
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    """A picture of grain whose file has about the wanted weight."""
    chance = random.Random(f"{size}{mode}")
    bands = len(mode)
    picture = Image.frombytes(mode, size, chance.randbytes(size[0] * size[1] * bands))
    picture = Image.blend(Image.new(mode, size, (252,) * bands if bands > 1 else 252), picture, 0.1)
    for quality in range(92, 4, -2):
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality, **options)
        if at_least <= len(file.getvalue()) <= at_most:
            return file.getvalue()
    raise AssertionError("no quality gives this weight")


@cache
def photo() -> str:
    return base64.b64encode(jpeg()).decode()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def form(**changed: Any) -> dict[str, Any]:
    """A form that is right in every field, as it is sent."""
    return {
        "name": "吉克·阿呷",
        "id_type": "resident-id",
        "id_number": id_number(),
        "phone": "13912340001",
        "email": "a.jike@example.cn",
        "employer": "云溪镇中心卫生院",
        "employer_code": None,
        "site_id": "shizhong",
        "specialty_code": "203",
        "subjects": [1, 2, 3, 4],
        "returning": False,
        "photo": photo(),
    } | changed

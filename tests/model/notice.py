"""The notice of Leshan 2024, typed in once more by hand: the model must not read the cycle file that it helps to check."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

BEIJING = timezone(timedelta(hours=8))


def at(text: str) -> datetime:
    """`2023-12-08 00:00` in Beijing."""
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING)


PRE_REGISTRATION = (at("2023-12-01 00:00"), at("2023-12-15 00:00"))
CONFIRMATION = (at("2023-12-02 00:00"), at("2023-12-16 00:00"))
PAYMENT = (at("2024-01-29 00:00"), at("2024-02-09 00:00"))

DESKS = {
    "shizhong": (at("2023-12-08 00:00"), at("2023-12-14 12:00")),
    "wutongqiao": (at("2023-12-13 00:00"), at("2023-12-16 00:00")),
    "shawan": (at("2023-12-13 00:00"), at("2023-12-16 00:00")),
    "qianwei": (at("2023-12-11 00:00"), at("2023-12-15 00:00")),
    "jingyan": (at("2023-12-11 00:00"), at("2023-12-14 00:00")),
    "jiajiang": (at("2023-12-12 00:00"), at("2023-12-15 00:00")),
    "emeishan": (at("2023-12-13 00:00"), at("2023-12-16 00:00")),
    "mabian": (at("2023-12-12 00:00"), at("2023-12-15 00:00")),
    "jinkouhe": (at("2023-12-12 00:00"), at("2023-12-15 00:00")),
    "ebian": (at("2023-12-11 00:00"), at("2023-12-13 00:00")),
    "muchuan": (at("2023-12-11 00:00"), at("2023-12-14 00:00")),
    "gaoxin": (at("2023-12-11 00:00"), at("2023-12-13 00:00")),
    "municipal": None,
}
LEVELS = ("site", "district")
FEE_PER_SUBJECT_FEN = {"1": 5000, "2": 5000, "3": 7000}
NO_ORDERS_BEFORE_CLOSE = timedelta(minutes=2)
REMINDERS = (
    timedelta(days=7),
    timedelta(days=3),
    timedelta(days=1),
    timedelta(hours=6),
    timedelta(hours=2),
)
# A gateway order ends with its payment code.
ORDER_LIFE = timedelta(hours=2)
# So many codes of Alipay may be let go unopened before one more is given out.
LAPSING_AT_ONCE = 2
NIGHT_BEGINS, NIGHT_ENDS = 22, 8


def fee_fen(specialty: str, subjects: list[int]) -> int:
    return FEE_PER_SUBJECT_FEN[specialty[0]] * len(subjects)


def is_night(moment: datetime) -> bool:
    hour = moment.astimezone(BEIJING).hour
    return hour >= NIGHT_BEGINS or hour < NIGHT_ENDS


def morning_after(moment: datetime) -> datetime:
    """The next 08:00."""
    local = moment.astimezone(BEIJING)
    morning = local.replace(hour=NIGHT_ENDS, minute=0, second=0, microsecond=0)
    return morning if morning > local else morning + timedelta(days=1)


def end_of_the_third_day(moment: datetime) -> datetime:
    """Until when somebody may pay whose forfeiture two people have lifted."""
    midnight = moment.astimezone(BEIJING).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=4)

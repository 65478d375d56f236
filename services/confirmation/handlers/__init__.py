"""What this service does, one function per use case: load, decide, save, say so. Nothing here commits."""

from services.confirmation.handlers.candidates import amend_cases, open_cases, withdraw_cases
from services.confirmation.handlers.deciding import Verdict, confirm, decide_at_desk, review
from services.confirmation.handlers.facts import Answer
from services.confirmation.handlers.reading import all_cases, cases_of_desk, read_case, undecided
from services.confirmation.handlers.windows import (
    decide_desk_window,
    follow_payment_close,
    lapse_missed,
    next_lapse,
    set_desk_window,
)

__all__ = [
    "Answer",
    "Verdict",
    "all_cases",
    "amend_cases",
    "cases_of_desk",
    "confirm",
    "decide_at_desk",
    "decide_desk_window",
    "follow_payment_close",
    "lapse_missed",
    "next_lapse",
    "open_cases",
    "read_case",
    "review",
    "set_desk_window",
    "undecided",
    "withdraw_cases",
]

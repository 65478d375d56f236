"""Every query of this service."""

from services.confirmation.repository.asks import Ask, add_ask, decide_ask, find_ask, open_asks
from services.confirmation.repository.cases import (
    Decided,
    Overtaken,
    add_decisions,
    lock,
    lock_many,
    open_cases,
    save,
    save_many,
)
from services.confirmation.repository.pages import count_in, decisions_of, find, page
from services.confirmation.repository.windows import (
    count_at,
    desks,
    hold_desk_windows,
    lapse,
    next_fix_until,
    payment_closes,
    set_payment_close,
    set_window,
    share_desk_windows,
    tell_new_window,
)

__all__ = [
    "Ask",
    "Decided",
    "Overtaken",
    "add_ask",
    "add_decisions",
    "count_at",
    "count_in",
    "decide_ask",
    "decisions_of",
    "desks",
    "find",
    "find_ask",
    "hold_desk_windows",
    "lapse",
    "lock",
    "lock_many",
    "next_fix_until",
    "open_asks",
    "open_cases",
    "page",
    "payment_closes",
    "save",
    "save_many",
    "set_payment_close",
    "set_window",
    "share_desk_windows",
    "tell_new_window",
]

"""What runs must have reached: without it they prove nothing about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ENOUGH: Final = 20_000
"""So many runs reach everything."""

# By the first words of what is counted: each must have come about, the first ones even in a few hundred runs.
SOON: Final = (
    "a payment lands after the sweep", "a payment lands during the sweep, too late",
    "a payment lands before our answer", "a payment lands between query and sweep",
    "a payment lands during the sweep", "check my payment: no-order", "check my payment: paid", "check my payment: unpaid",
    "close job", "code opened", "ends cancelled", "ends expired", "ends paid", "forfeited", "gateway's answer to an order lost",
    "gateway's answer to a refund lost", "goes back: paid-late", "goes back: paid-twice",
    "goes back: rejected", "goes back: wrong-amount", "heard of at once in several ways",
    "landed: paid", "landed: reinstated", "notice: duplicate",
    "notice: foreign-money", "notice: paid", "one waited for the other's row", "order by alipay: made",
    "order by alipay: made, the second", "order by alipay: TooLateToOrder", "order by wechat: made",
    "order by wechat: made, the second", "order by wechat: TooLateToOrder", "pay by alipay: taken", "pay by wechat: taken",
    "query by alipay, open: paid", "query by alipay, open: unpaid", "query by wechat, open: paid",
    "query by wechat, open: unpaid", "refund notice after the payment's: refund-news",
    "refund notice before the payment's: refund-news", "rejected", "revive approved",
    "said due", "said expired unpaid", "said paid", "said refunded paid-twice", "said refunded rejected",
    "said refunded wrong-amount", "said reinstated paid-in-time", "said reinstated two-person-decision",
    "said window-closed", "settle job", "several at once", "sweep",
)  # fmt: skip
IN_THE_END: Final = (
    *SOON, "a code is opened between our close and our query",
    "a payment lands after the sweep, too late", "a payment lands before our answer, too late",
    "a payment lands between query and sweep, too late", "a refund will come back from a dead account",
    "alipay away", "check my payment: goes-back", "check my payment: no-answer", "check my payment: too-soon",
    "close of a desk asked for", "close of a desk asked for: TooManyWouldFall", "close of all asked for",
    "close of all asked for: TooManyWouldFall", "decision: CloseNotAhead", "decision: OwnDecision",
    "earlier close of a desk asked for", "earlier close of all asked for", "earlier extend-payment approved",
    "earlier extend-payment rejected", "extend-payment approved", "extend-payment rejected", "gateway's answer to a close lost",
    "held", "held, then forfeited", "held, then paid", "notice: refund-due", "order by alipay: AlreadyPaid",
    "order by alipay: CodesLetGo", "order by alipay: GatewayRefused", "order by alipay: GatewaySilent",
    "order by alipay: WindowClosed", "order by wechat: AlreadyPaid", "order by wechat: GatewaySilent",
    "order by wechat: WindowClosed",
    "paid at the very instant of the close", "pay by alipay: again", "pay by wechat: again", "query by alipay, lapsing: paid",
    "query by alipay, lapsing: unpaid", "refund refused", "refund under way", "revive rejected", "said refunded paid-late",
    "said reinstated window-extended", "said site-window-set", "said window-moved", "wechat away",
)  # fmt: skip
LANDINGS: Final = "a payment lands "
# Row 42 of faults.md: so many of its interleavings in a hundred thousand runs.
LANDINGS_IN_100_000: Final = 10_000


def missed(runs: int, reached: Mapping[str, int]) -> list[str]:
    """What was not reached, or not often enough for so many runs."""
    found = [what for what in (IN_THE_END if runs >= ENOUGH else SOON) if not reached.get(what)]
    landings = sum(times for what, times in reached.items() if what.startswith(LANDINGS))
    if runs >= ENOUGH and landings < LANDINGS_IN_100_000 * runs // 100_000:
        found.append(f"{LANDINGS}between our query and our `expired`: {landings} times")
    return found

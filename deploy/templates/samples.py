"""One example of every text: facts of a cycle that somebody might have, for whoever reads the texts before they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from contracts.cycle import Cycle, Site
from contracts.reasons import ReasonCode, ReinstatementCause
from services.notification.domain.occasions import Occasion
from services.notification.domain.phrases import CAUSES
from services.notification.domain.told import Fact

TAIL: Final = "4321"
_DAY: Final = timedelta(days=1)


def facts_of(occasion: Occasion, variant: str, cycle: Cycle) -> Mapping[str, Fact]:
    """Everything that any text of this occasion may say. Raises ValueError for a cycle without a desk that has days."""
    site = _site(cycle, dated=variant != "undated")
    desk, pay = cycle.windows.confirmation, cycle.windows.payment
    at_desk = occasion in {
        Occasion.PRE_REGISTERED, Occasion.AMENDED, Occasion.RETURNED, Occasion.DESK_WINDOW_MOVED,
    }  # fmt: skip
    window = (site.window or desk) if at_desk else pay
    facts: dict[str, Fact] = {
        "site_id": site.id,
        "form_version": 2,
        "opens_at": window.opens.isoformat(),
        "closes_at": window.told_closes.isoformat(),
        "closed_at": (desk if occasion is Occasion.LAPSED else pay).told_closes.isoformat(),
        "reopens_until": cycle.windows.pre_registration.told_closes.isoformat(),
        "paid_at": (pay.told_closes - _DAY - timedelta(minutes=615)).isoformat(),
        "amount_fen": 28_000,
        "offset": 86_400,
        "level": cycle.review_levels[0].id,
        "reason_codes": [str(ReasonCode.DOCUMENTS), str(ReasonCode.PHOTO)],
    }
    if causes := CAUSES.get(occasion):
        paid = occasion is Occasion.REINSTATED and variant == "paid"
        facts["why"] = str(ReinstatementCause.PAID_IN_TIME if paid else causes[-1])
    return facts


def _site(cycle: Cycle, *, dated: bool) -> Site:
    found = next((site for site in cycle.sites if (site.window is not None) is dated), None)
    if found is None and not dated:
        return cycle.sites[0]
    if found is None:
        raise ValueError("the cycle has no desk with days of its own")
    return found

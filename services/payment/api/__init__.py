"""Door 1: people and the office (`people`), gateways (`notices`), and the office's comparison with their bills (`bills`)."""

from services.payment.api.bills import bill_routes
from services.payment.api.notices import notice_routes
from services.payment.api.people import decision_routes, public_routes

__all__ = ["bill_routes", "decision_routes", "notice_routes", "public_routes"]

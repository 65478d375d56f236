"""Door 1: people and the office (`people`), desks that call (`calls`), and carriers of SMS (`carriers`)."""

from services.notification.api.calls import call_routes
from services.notification.api.carriers import carrier_routes
from services.notification.api.people import language_routes, public_routes

__all__ = ["call_routes", "carrier_routes", "language_routes", "public_routes"]

"""Door 1: people and the office (`people`), and carriers of SMS (`carriers`)."""

from services.notification.api.carriers import carrier_routes
from services.notification.api.people import language_routes, public_routes

__all__ = ["carrier_routes", "language_routes", "public_routes"]

"""Door 1: people (`people`), lists of office and desks (`office`), desks that call (`calls`), carriers of SMS (`carriers`)."""

from services.notification.api.calls import call_routes
from services.notification.api.carriers import carrier_routes
from services.notification.api.office import office_routes
from services.notification.api.people import language_routes, public_routes

__all__ = ["call_routes", "carrier_routes", "language_routes", "office_routes", "public_routes"]

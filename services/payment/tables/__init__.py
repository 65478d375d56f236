"""What this service keeps: whom owes what, and how it was paid (`owing`); what the gateways' bills say of it (`bills`)."""

from services.payment.tables import bills, owing
from services.payment.tables.owing import Base

__all__ = ["Base", "bills", "owing"]

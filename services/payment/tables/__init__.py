"""What this service keeps: whom owes what, and how it was paid (`owing`); what a close came to (`closes`); what the gateways'
bills say of it (`bills`).
"""

from services.payment.tables import bills, closes, owing
from services.payment.tables.owing import Base

__all__ = ["Base", "bills", "closes", "owing"]

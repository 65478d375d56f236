"""Where Alembic starts: payment's tables."""

from services.chassis import migrations
from services.payment.tables import Base

migrations.run(Base.metadata)

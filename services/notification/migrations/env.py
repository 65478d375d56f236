"""Where Alembic starts: notification's tables."""

from services.chassis import migrations
from services.notification.tables import Base

migrations.run(Base.metadata)

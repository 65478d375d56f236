"""Where Alembic starts: registration's tables."""

from services.chassis import migrations
from services.registration.tables import Base

migrations.run(Base.metadata)

"""Alembic's entry: the chassis does the work."""

from services.chassis import migrations
from services.confirmation.tables import Base

migrations.run(Base.metadata)

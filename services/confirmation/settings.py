"""Where this service runs."""

from __future__ import annotations

from typing import ClassVar

from services.chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Nothing beyond what every service is told."""

    service: ClassVar[str] = "confirmation"

"""Where registration runs: nothing beyond what every service is told."""

from typing import ClassVar

from services.chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from REGISTRATION_<FIELD>, else KAOWU_<FIELD>."""

    service: ClassVar[str] = "registration"

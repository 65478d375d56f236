"""Where things run. What the rules are stands in the cycle file, never here.

Each field is read from `<SERVICE>_<FIELD>`, else from `KAOWU_<FIELD>`; the broker also from the usual
`KAFKA_BOOTSTRAP_SERVERS`. Secrets are paths of files, never values in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_SHARED = "KAOWU_"
_USUAL = {"kafka_bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS"}


class SettingsInvalid(Exception):
    """What is missing or wrong in the environment, one line each."""


class ServiceSettings(BaseSettings):
    """What every service must be told. A service adds its own fields in its settings.py."""

    service: ClassVar[str]
    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    environment: Literal["local", "production"] = "production"
    database_url: str = Field(description="postgresql+asyncpg://…, this service's own database and role")
    database_pool_size: int = Field(default=8, ge=2)
    kafka_bootstrap_servers: str
    cycle_file: Path
    token_keys_file: Path = Field(description="JWKS with the public keys that bearer tokens are signed with")
    vault_keys_file: Path
    service_token_file: Path | None = None
    host: str = "127.0.0.1"
    public_port: int = Field(default=0, ge=0, le=65535)
    internal_port: int = Field(default=0, ge=0, le=65535)
    clock_file: Path | None = Field(
        default=None, description="a rehearsal's clock; the machine's clock if absent"
    )
    log_format: Literal["json", "console"] = "json"
    group_instance_id: str | None = None
    broker_has_clock: bool = Field(
        default=True,
        description="false for the local last resort only: its broker stamps no times to compare",
    )
    otlp_endpoint: str | None = None
    outbox_days: int = Field(
        default=730,
        ge=365,
        description="how long events are kept after their period and cycle; set it for all services at once",
    )
    pace_seconds: float = Field(
        default=0.0,
        ge=0,
        le=5,
        description="least real time between two turns of relay, consumers and paced jobs: fewer, larger turns",
    )
    start_patience_seconds: float = Field(
        default=30.0, gt=0, description="how long a start waits for its parts"
    )

    def external_endpoints(self) -> list[str]:
        """URLs or hosts of gateways and carriers this service would talk to; none may be real on a virtual clock."""
        return []

    @classmethod
    def of_environment(cls, environ: dict[str, str] | None = None) -> Self:
        """Read the environment. Raises SettingsInvalid that names every missing or wrong variable."""
        source = dict(os.environ if environ is None else environ)
        prefix = f"{cls.service.upper()}_"
        found = {field: value for field in cls.model_fields if (value := cls.given(field, source))}
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            lines = [
                f"{prefix}{str(e['loc'][0]).upper()}: {e['msg']}" if e["loc"] else e["msg"]
                for e in error.errors(include_input=False)
            ]
            raise SettingsInvalid("\n".join(lines)) from None

    @classmethod
    def given(cls, field: str, environ: Mapping[str, str]) -> str | None:
        """What the environment says of one field, if anything. A migration needs no more than its database."""
        names = (f"{cls.service.upper()}_{field.upper()}", _SHARED + field.upper(), _USUAL.get(field, ""))
        return next((environ[name] for name in names if environ.get(name)), None)

"""What each process of the local system is told about where things run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.keys import LocalKeys
from deploy.local.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("registration", "confirmation", "payment", "notification")
SIMULATORS = "simulators"


@dataclass(frozen=True, slots=True)
class Address:
    """The two listeners of a service on this machine."""

    public_port: int
    internal_port: int

    @classmethod
    def choose(cls, earlier: Mapping[str, int]) -> Address:
        """Those of an earlier start if they can be had, else any: a taken port is no failure."""
        return cls(free_port(earlier.get("public_port")), free_port(earlier.get("internal_port")))

    @property
    def public_url(self) -> str:
        """For people and gateways."""
        return f"http://127.0.0.1:{self.public_port}"

    @property
    def internal_url(self) -> str:
        """For operators and the other services."""
        return f"http://127.0.0.1:{self.internal_port}"


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what is ours to say: a variable left in a shell must not reach one process only."""
    ours = ("KAOWU_", "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", *(f"{name.upper()}_" for name in SERVICES))
    kept = {key: value for key, value in environ.items() if not key.startswith(ours)}
    # Two arenas are enough for a process with one busy thread, and save tens of MiB in each.
    return {**kept, "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything the services' environments are made of."""

    cycle_file: Path
    keys: LocalKeys
    clock_file: Path | None
    bootstrap: str
    databases: Mapping[str, str]
    addresses: Mapping[str, Address]
    service_tokens: Mapping[str, Path]
    accounts: Mapping[str, str]
    real_broker: bool = True
    bounces: str = ""  # where mail lies that came back
    extra: Mapping[str, str] = field(default_factory=dict)

    def of(self, service: str) -> dict[str, str]:
        """The environment of `python -m services.<service>`."""
        address = self.addresses[service]
        own = {
            "DATABASE_URL": self.databases[service],
            "VAULT_KEYS_FILE": str(self.keys.vault_file(service)),
            "SERVICE_TOKEN_FILE": str(self.service_tokens[service]),
            "PUBLIC_PORT": str(address.public_port),
            "INTERNAL_PORT": str(address.internal_port),
            **self._stage(service),
        }
        if self.real_broker:
            # A member that was killed and comes back takes its partitions at once instead of waiting out its ghost.
            own["GROUP_INSTANCE_ID"] = f"{service}-1"
        shared = {
            "KAOWU_ENVIRONMENT": "local",
            "KAOWU_CYCLE_FILE": str(self.cycle_file),
            "KAOWU_TOKEN_KEYS_FILE": str(self.keys.token_keys_file),
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            # Everything shares two cores here: fewer, larger turns leave more of them to the work itself.
            "KAOWU_PACE_SECONDS": "0.03",
        }
        if not self.real_broker:
            shared["KAOWU_BROKER_HAS_CLOCK"] = "false"
        if self.clock_file is not None:
            shared["KAOWU_CLOCK_FILE"] = str(self.clock_file)
        named = {f"{service.upper()}_{key}": value for key, value in own.items()}
        return {**inherited(os.environ), **shared, **named, **self.extra}

    def _stage(self, service: str) -> dict[str, str]:
        """What only this service is told."""
        if service == "payment":
            return {
                "WECHAT_ACCOUNT_FILE": self.accounts.get("wechat", ""),
                "ALIPAY_ACCOUNT_FILE": self.accounts.get("alipay", ""),
                "NOTIFY_BASE_URL": self.addresses["payment"].public_url,
            }
        if service == "notification":
            told = {
                "DELIVERY_PACE_SECONDS": "1.0",
                "ALIYUN_ACCOUNT_FILE": self.accounts.get("aliyun", ""),
                "SMTP_ACCOUNT_FILE": self.accounts.get("smtp", ""),
                "RECEIPTS_SECRET_FILE": str(self.keys.receipts_secret_file),
            }
            if self.bounces:
                told |= {"BOUNCES_MAILDIR": self.bounces, "BOUNCES_SECONDS": "5"}
            if tencent := self.accounts.get("tencent"):
                told["TENCENT_ACCOUNT_FILE"] = tencent
            if registration := self.addresses.get("registration"):
                told["REGISTRATION_INTERNAL_URL"] = registration.internal_url
            return told
        return {}

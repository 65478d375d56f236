"""The topics, read once from topics.toml beside this file."""

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Topic(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    owner: str
    consumers: tuple[str, ...]
    partitions: Annotated[int, Field(strict=True, ge=1, le=64)] = 4
    retention_days: Annotated[int, Field(strict=True, ge=1, le=3650)]
    timestamps: Literal["CreateTime", "LogAppendTime"] = "CreateTime"

    @property
    def retention(self) -> timedelta:
        return timedelta(days=self.retention_days)


def _read() -> Mapping[str, Topic]:
    tables = tomllib.loads((files("contracts") / "topics.toml").read_text(encoding="utf-8"))["topics"]
    return MappingProxyType({name: Topic(name=name, **table) for name, table in tables.items()})


TOPICS: Mapping[str, Topic] = _read()

"""What a simulator remembers over a restart: one JSON object a line, appended and never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, entry: dict[str, Any]) -> None:
        # Unbuffered: a killed simulator has forgotten nothing that it answered for.
        os.write(
            self._descriptor, json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        )

    def entries(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # the last line may be cut by a kill
                    yield json.loads(line)

    def close(self) -> None:
        os.close(self._descriptor)

"""Bring the databases of several services to this version, one after another in one process.

Reads one JSON object {service: url} from a file; alembic keeps its state in module globals, so never two at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from services.chassis import migrations


async def _upgrade_all(databases: dict[str, str]) -> None:
    for service, url in databases.items():
        await migrations.upgrade(url, service)


if __name__ == "__main__":
    asyncio.run(_upgrade_all(json.loads(Path(sys.argv[1]).read_text())))

"""How a rehearsal is let in."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from deploy.local.keys import LocalKeys
from deploy.rehearsal.doors import Doors
from services.chassis.tokens import TokenVerifier


def test_tokens_outlast_a_people_file_that_begins_a_year_before_the_cycle(tmp_path: Path) -> None:
    keys = LocalKeys.of(tmp_path, ["registration"])
    early = datetime.fromisoformat("2023-01-01T00:00:00+08:00")
    doors = Doors(cast("Any", None), keys.tokens, early)
    for headers in (doors.headers("office", "office"), doors.account_headers("somebody")):
        token = headers["authorization"].removeprefix("Bearer ")
        verifier = TokenVerifier.open(keys.token_keys_file)
        assert verifier.verify(token, early + timedelta(days=600)).roles

"""Other versions of the services: the one before from git, the one after as this one with a migration more."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_PARTS: Final = ("contracts", "services", "deploy")
_LOOKED_AT: Final = 300


class HistoryMissing(AssertionError):
    """The version before is not in this clone. Says what to fetch."""


def version_before(service: str) -> str:
    """The commit of version n-1: the last before the service's newest migration was added that is one revision behind and
    starts at all. Every migration makes a version."""
    chain = ROOT / "services" / service / "migrations" / "versions"
    newest = max(chain.glob("[0-9]*.py"), key=lambda path: path.name)
    added = _git(
        "log", "--follow", "--diff-filter=A", "--format=%H", "-1", "--", str(newest.relative_to(ROOT))
    )
    if not added:
        return _git("rev-parse", "HEAD")  # the newest migration is not committed yet
    try:
        before = _git("rev-list", "--first-parent", f"--max-count={_LOOKED_AT}", f"{added}^").split()
    except subprocess.CalledProcessError:
        raise HistoryMissing(
            f"the commit before {newest.name} of {service} is not in this clone: run `git fetch --unshallow`"
        ) from None
    for commit in before:
        # Migrations may be put together before they are released: what has this one's number is not the version before.
        if _head(service, commit) == int(newest.name[:4]) - 1 and _starts(service, commit):
            return commit
    raise HistoryMissing(
        f"none of the {len(before)} commits before {newest.name} of {service} is at the revision before and starts"
    )


def _head(service: str, commit: str) -> int:
    """The newest revision that there was."""
    names = _git("ls-tree", "--name-only", f"{commit}:services/{service}/migrations/versions").split()
    return max(int(name[:4]) for name in names if name[:4].isdecimal())


def _starts(service: str, commit: str) -> bool:
    """Whether all of its modules are there: half of what somebody was at is no version."""
    with tempfile.TemporaryDirectory() as directory:
        place = checkout(commit, Path(directory))
        started = subprocess.run(
            [sys.executable, "-c", f"import services.{service}.app"],
            check=False,
            cwd=place,
            capture_output=True,
        )
    return started.returncode == 0


def checkout(commit: str, directory: Path) -> Path:
    """The code of that commit, as it stood. Once for each directory."""
    place = directory / commit[:12]
    if not place.exists():
        packed = subprocess.run(
            ["git", "archive", commit, *_PARTS], cwd=ROOT, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(place, filter="data")
    return place


def version_after(service: str, directory: Path, step: str) -> tuple[Path, str]:
    """This code with one more migration of the service, which runs this statement, waiting for locks as every one does.

    Returns where it is and the new revision."""
    for part in _PARTS:
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    chain = directory / "services" / service / "migrations" / "versions"
    head = max(path.name for path in chain.glob("[0-9]*.py"))[:4]
    revision = f"{int(head) + 1:04d}"
    (chain / f"{revision}_step.py").write_text(
        f'''"""A step of the version after."""

from functools import partial

from alembic import op

from services.chassis.migrations import patiently

revision = "{revision}"
down_revision = "{head}"
branch_labels = depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        patiently(partial(op.get_bind().exec_driver_sql, {step!r}))
''',
        encoding="utf-8",
    )
    return directory, revision


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()

"""The import contracts of pyproject.toml: kept, and each seen broken once by a planted import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imports")
    for package in ("services", "contracts"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def _lint(root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_contract_is_kept(copy: Path) -> None:
    code, output = _lint(copy)
    assert code == 0, output
    assert "6 kept, 0 broken" in output


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        (
            "services/notification/domain",
            "import services.payment.domain",
            "No service imports another service",
        ),
        ("services/payment/jobs", "import services.payment.consumers", "Doors, then handlers"),
        ("services/payment/tables", "import services.payment.handlers", "Doors, then handlers"),
        ("services/chassis/jobs", "import services.payment.domain", "The chassis knows no service"),
        ("contracts/event", "import services.chassis.clock", "Contracts know nobody"),
        ("contracts/envelope", "import sqlalchemy", "Contracts know nobody"),
        ("services/payment/domain", "import sqlmodel", "The domain is plain Python"),
        ("services/registration/domain", "import services.chassis.clock", "The domain is plain Python"),
        ("services/payment/handlers", "import services.payment.adapters", "Only app.py chooses an adapter"),
    ],
)
def test_a_planted_import_breaks_its_contract(copy: Path, module: str, statement: str, contract: str) -> None:
    target = copy / module / "__init__.py" if (copy / module).is_dir() else copy / f"{module}.py"
    before = target.read_text(encoding="utf-8")
    target.write_text(f"{before}\n{statement}\n", encoding="utf-8")
    try:
        code, output = _lint(copy)
    finally:
        target.write_text(before, encoding="utf-8")
    assert code != 0
    broken = [line for line in output.splitlines() if line.rstrip().endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), output

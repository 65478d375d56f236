"""What may not stand in any file of the repository: this machine, and where packages come from."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Put together here so that this file does not report itself.
_REGISTRIES = "|".join(("py" + "pi", "python" + "hosted", r"repo1?\.mav" + "en", "registry\\.np" + "mjs"))
_FORBIDDEN = {
    "a package registry's host": re.compile(rf"https?://[^\s\"']*(?:{_REGISTRIES})", re.IGNORECASE),
    "a path of a developer's machine": re.compile(
        r"(?:^|[\s\"'=(:])/(?:ro" + r"ot|ho" + r"me/\w+|Us" + r"ers/\w+|wo" + r"rk)/"
    ),
    "a debt without a number": re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b"),
}


def _tracked() -> Iterable[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name]


def findings(paths: Iterable[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a picture, or deleted and not yet committed
        for number, line in enumerate(text.splitlines(), 1):
            found += [
                f"{path.name}:{number} {what}" for what, pattern in _FORBIDDEN.items() if pattern.search(line)
            ]
    return found


def test_no_file_names_a_registry_a_machine_or_a_debt() -> None:
    assert findings(_tracked()) == []


def test_each_of_them_is_reported_where_it_is_planted(tmp_path: Path) -> None:
    planted = tmp_path / "planted.txt"
    planted.write_text(
        "index = https://py" + "pi.example/simple\n" + 'path = "/ro' + 'ot/x"\n' + "# TO" + "DO later\n",
        encoding="utf-8",
    )
    assert len(findings([planted])) == len(_FORBIDDEN)

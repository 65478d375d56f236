"""The SMS texts an office would have the carrier approve: those of notification's templates, in the carrier's form.

The simulated carrier then refuses a code it was never shown and a text whose variables are missing, as the real one does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from deploy.local.environment import ROOT

TEMPLATES = ROOT / "services" / "notification" / "templates"
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def approved_texts(templates: Path = TEMPLATES) -> dict[str, str]:
    """Template code → text with ${variables}. Raises ValueError for a file without a code."""
    texts: dict[str, str] = {}
    for path in sorted(templates.glob("*/sms*.txt")):
        head, _, text = path.read_text(encoding="utf-8").partition("\n\n")
        entries = dict(line.split(": ", 1) for line in head.splitlines())
        if "aliyun" not in entries:
            raise ValueError(f"{path.relative_to(templates)} names no template code of the carrier")
        texts[entries["aliyun"]] = _VARIABLE.sub(r"${\1}", text.strip())
    return texts


def write_approved_texts(path: Path) -> Path:
    """As the simulators read them."""
    path.write_text(json.dumps(approved_texts(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path

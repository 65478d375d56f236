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


def approved_texts(templates: Path = TEMPLATES, carrier: str = "aliyun") -> dict[str, str]:
    """The carrier's code of a template → text with ${variables} or {1}, {2}, …

    Raises ValueError for a file without a code.
    """
    texts: dict[str, str] = {}
    for path in sorted(templates.glob("*/sms*.txt")):
        head, _, text = path.read_text(encoding="utf-8").partition("\n\n")
        entries = dict(line.split(": ", 1) for line in head.splitlines())
        if carrier not in entries:
            raise ValueError(f"{path.relative_to(templates)} names no template code of {carrier}")
        texts[entries[carrier]] = _noted(text.strip(), carrier)
    return texts


def _noted(text: str, carrier: str) -> str:
    if carrier == "aliyun":
        return _VARIABLE.sub(r"${\1}", text)
    names = list(dict.fromkeys(_VARIABLE.findall(text)))
    return _VARIABLE.sub(lambda match: f"{{{names.index(match[1]) + 1}}}", text)


def write_approved_texts(path: Path, carrier: str) -> Path:
    """As the simulators read them."""
    content = json.dumps(approved_texts(carrier=carrier), ensure_ascii=False, indent=1)
    path.write_text(content + "\n", encoding="utf-8")
    return path

"""report.html."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.rehearsal.invariants.evidence import Finding
from deploy.rehearsal.report import Run


def page(run: Run, findings: Sequence[Finding]) -> str:
    return f"<html>{len(run.outcomes)} {len(findings)}</html>"

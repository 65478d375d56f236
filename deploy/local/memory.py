"""How much memory processes really hold: shared pages are counted once over all of them (PSS)."""

from __future__ import annotations

from pathlib import Path

import psutil

_MIB = 1024


def tree_mib(pid: int) -> float:
    """PSS of a process and everything below it, in MiB."""
    try:
        root = psutil.Process(pid)
        pids = [root.pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_pss_kib(each) for each in pids) / _MIB


def own_mib(pid: int) -> float:
    """PSS of one process without what it started, in MiB."""
    return _pss_kib(pid) / _MIB


def _pss_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass  # it ended meanwhile, or this is no Linux: then the resident size stands in
    try:
        return int(psutil.Process(pid).memory_info().rss) // 1024
    except psutil.Error:
        return 0

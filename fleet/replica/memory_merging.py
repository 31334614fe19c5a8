"""Asks the kernel to keep one copy of pages that hold the same bytes in several processes (KSM).

Workers that were forked from one process have many: what they use of an app is counted in it, which makes a page their
own, and most of these counts go back to where they were, or to where they are in the others. The kernel merges for
processes that ask for it, where root has it look for such pages.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

KSM = Path("/sys/kernel/mm/ksm")
_PR_SET_MEMORY_MERGE = 67
_PR_GET_MEMORY_MERGE = 68


def ask_for_merging() -> str:
    """For this process and what it forks; from Linux 6.9 on also for what it execs. Why the kernel refuses, or ''."""
    return _call(_PR_SET_MEMORY_MERGE, 1)


def why_not_merged(folder: Path = KSM) -> str:
    """Why pages of processes that ask for it are not merged on this machine; '' where they are."""
    if why := _call(_PR_GET_MEMORY_MERGE, 0):
        return why
    try:
        runs = (folder / "run").read_text().strip()
    except OSError as error:
        return f"{folder / 'run'}: {error.strerror}"
    return "" if runs == "1" else f"the kernel does not look for equal pages: {folder / 'run'} is {runs}, not 1"


def _call(option: int, value: int) -> str:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) >= 0:
        return ""
    return f"the kernel merges no pages for a process that asks for it (Linux 6.4): {os.strerror(ctypes.get_errno())}"

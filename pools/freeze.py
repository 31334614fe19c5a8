"""What a process does before it forks, so that its children share its memory for as long as they can."""

from __future__ import annotations

import gc
import sys


def freeze_for_forks() -> None:
    """Free what nobody refers to, and take the rest out of the collector's sight, here and in every child."""
    gc.collect()
    if sys.version_info < (3, 12):
        # Each entry that a child replaces would write to the name in it, somewhere in the shared memory; from 3.12 on
        # names are not counted.
        sys._clear_type_cache()
    gc.freeze()

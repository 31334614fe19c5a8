"""One child process per slot: a crash, a leak or a limit costs one task and never the worker."""

from __future__ import annotations

from pools.prefork.pool import PreforkPool

__all__ = ["PreforkPool"]

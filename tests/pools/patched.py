"""``python -m tests.pools.patched gevent -m pytest …``: patch first, then run that module, for one green pool."""

from __future__ import annotations

import os
import sys

from pools.patching import patch

VARIABLE = "FLEET_TEST_GREEN"
"""Names the pool in its own process: ``test_contract`` then knows this one only."""


def main(arguments: list[str]) -> None:
    """Patch and become that module."""
    pool, flag, module, *rest = arguments
    assert flag == "-m"
    patch(pool)
    os.environ[VARIABLE] = pool
    import runpy

    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])

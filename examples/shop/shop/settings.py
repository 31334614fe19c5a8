"""Where the shop finds its broker, its results and its own files. Workers get all of it from their manifest."""

from __future__ import annotations

import os
from pathlib import Path

FLEET = "shop"


def state() -> Path:
    """The folder of the shop's own files: SHOP_STATE, by default ~/.local/state/shop."""
    return Path(os.environ.get("SHOP_STATE") or Path.home() / ".local" / "state" / "shop")


def broker_url() -> str:
    """FLEET_BROKER_URL, which every worker has; else the embedded broker of the fleet on this machine."""
    if url := os.environ.get("FLEET_BROKER_URL"):
        return url
    if home := os.environ.get("FLEET_HOME"):
        folder = Path(home)
    elif os.geteuid() == 0:
        folder = Path("/var/lib/fleet")
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "fleet"
    return f"redis+socket://{folder.absolute() / FLEET}/run/broker.sock?virtual_host=0"


def results_url() -> str:
    """SHOP_RESULTS_URL; else another database of the same Redis."""
    return os.environ.get("SHOP_RESULTS_URL") or broker_url().replace("virtual_host=0", "virtual_host=1")


def partner_url() -> str:
    """PARTNER_URL; else where the shop's own partner listens."""
    return os.environ.get("PARTNER_URL") or (state() / "partner.url").read_text()


def stripe_key() -> bytes:
    """The key that signs webhooks."""
    return os.environ["STRIPE_KEY"].encode()

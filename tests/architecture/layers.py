"""Who may import whom: per folder its parts in rows, and a part imports what lies in the rows below it."""

from __future__ import annotations

LAYERS: dict[str, tuple[str, ...]] = {
    "fleet": (
        "__main__",
        "cli",
        "packed_pod",
        "pod",
        "operate wait_for_jobs",
        "inputs backends worker",
        "tasks",
        "settings",
        "broker environment launch tracing",
        "authoring state",
        "replica",
        "core",
        "file_access",
        "errors forking signals _version",
    ),
    "fleet.core": (
        "simulation migration",
        "autoscale healing",
        "status",
        "planning",
        "expand",
        "manifest balance",
        "health",
        "plan canary",
        "observed",
        "desired",
        "spec",
        "decode",
        "text backoff celery_versions totals",
    ),
    "fleet.worker": (
        "image",
        "__main__ probe",
        "process",
        "control",
        "loop",
        "stack_dump",
        "tracing",
        "execution options lifecycle process_state",
        "apps celery_member",
        "task logging_setup os_signals sd_notify",
        "journal patching",
    ),
    "fleet.worker.image": (
        "__main__",
        "server",
        "forked_worker preload fork_safety",
        "unpatched",
    ),
    "fleet.operate": (
        "dashboard pod_server",
        "foreground doctor metrics scaler",
        "dashboard",
        "foreground doctor metrics migrate scaler",
        "cluster controller service sync rollout",
        "change lost_queues",
        "local_fleet",
        "apply notify http_server",
    ),
    "fleet.cli": (
        "verbs man_pages",
        "parser override_flow saved_plan merge_preview sarif cluster_logs cluster_status",
        "verb_list change_flow live_view cluster_flow top",
        "cluster_target",
        "target view plot graph sync_progress foreseen",
        "progress signals",
        "output",
    ),
}
"""Top row first. The parts of one row are unaware of each other. A folder's own ``__init__`` is its face: what may
import the folder may import it, and it may import the folder's parts."""

POOLS = {"fleet.core": ("pools.traits",), "fleet.cli": ("pools.traits",), "fleet.worker": ("pools",)}
"""What a part of fleet may take from pools: the table of what pools can do; workers, the pools themselves."""

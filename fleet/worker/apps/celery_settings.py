"""Every setting and hook of Celery's worker, and what becomes of it under fleet's: data, the table of docs/worker.md.

``python -m fleet.worker.apps.celery_settings docs/worker.md`` writes the table anew. A test compares the data with the
settings and signals of the installed Celery, so that a new one cannot be overlooked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

BEGIN = "<!-- made by fleet.worker.apps.celery_settings: begin -->"
END = "<!-- made by fleet.worker.apps.celery_settings: end -->"


class Way(StrEnum):
    """What becomes of a setting. A worker warns at its start of those of the app that are INSTEAD or NONE."""

    HONOURED = "honoured"
    CELERY = "Celery's own code does it"
    ALWAYS = "always so"
    INSTEAD = "by other means"
    NONE = "no effect"


class Row(NamedTuple):
    """Names with one fate. remark: what holds, or what does it instead."""

    way: Way
    names: tuple[str, ...]
    remark: str


def _row(way: Way, names: str, remark: str) -> Row:
    return Row(way, tuple(names.split()), remark)


SETTINGS = (
    _row(Way.HONOURED, "accept_content", "a message of another format goes to the dead letters"),
    _row(Way.HONOURED, "imports include enable_utc timezone", "as under Celery's worker"),
    _row(Way.HONOURED, "worker_pool worker_concurrency", "where the manifest's `pool` says nothing"),
    _row(
        Way.HONOURED,
        "worker_max_tasks_per_child worker_max_memory_per_child",
        "prefork, where the manifest's `pool` says nothing; memory is what the child uses now, not its peak",
    ),
    _row(
        Way.HONOURED,
        "task_acks_late task_acks_on_failure task_acks_on_timeout task_acks_on_failure_or_timeout",
        "the manifest's `task.acks` has the last word on late or early",
    ),
    _row(
        Way.HONOURED,
        "task_reject_on_worker_lost",
        "False: a task whose process died is not run again; else it is, up to `task.maxAttempts` times",
    ),
    _row(
        Way.HONOURED,
        "task_time_limit task_soft_time_limit task_default_rate_limit worker_disable_rate_limits",
        "a message's limit goes before the task's, and the task's before the manifest's",
    ),
    _row(Way.HONOURED, "task_queues", "arguments, exchanges and routing keys of the queues that the group consumes"),
    _row(Way.HONOURED, "broker_transport_options", "but those that the table of transport options names"),
    _row(
        Way.HONOURED,
        "worker_enable_remote_control worker_send_task_events control_exchange control_queue_durable "
        "control_queue_exclusive control_queue_expires control_queue_ttl event_exchange",
        "as under Celery's worker",
    ),
    _row(
        Way.CELERY,
        "task_always_eager task_annotations task_allow_error_cb_on_chord_header task_compression "
        "task_default_delivery_mode task_default_exchange task_default_exchange_type task_default_priority "
        "task_default_queue task_default_routing_key task_eager_propagates task_ignore_result "
        "task_inherit_parent_priority task_protocol task_publish_retry task_publish_retry_policy "
        "task_remote_tracebacks task_repr_maxlevels task_routes task_send_sent_event task_serializer "
        "task_store_eager_result task_store_errors_even_if_ignored task_track_started "
        "broker_pool_limit broker_pool_acquire_timeout",
        "what a task sends and stores; which queues a group consumes is in its manifest",
    ),
    _row(
        Way.CELERY, "broker_write_url", "where it is set, what tasks send goes there, and not to the manifest's broker"
    ),
    _row(
        Way.CELERY,
        "result_accept_content result_backend result_backend_always_retry result_backend_base_sleep_between_retries_ms "
        "result_backend_max_retries result_backend_max_sleep_between_retries_ms result_backend_transport_options "
        "result_cache_max result_chord_expires result_chord_join_timeout result_chord_retry_interval "
        "result_compression result_exchange result_exchange_type result_expires result_extended result_failure_expires "
        "result_persistent result_serializer",
        "results are stored by Celery's tracer and backends",
    ),
    _row(
        Way.CELERY,
        "arangodb_backend_settings azureblockblob_base_path azureblockblob_connection_timeout "
        "azureblockblob_container_name azureblockblob_read_timeout azureblockblob_retry_increment_base "
        "azureblockblob_retry_initial_backoff_sec azureblockblob_retry_max_attempts cache_backend "
        "cache_backend_options cassandra_auth_kwargs cassandra_auth_provider cassandra_bundle_path cassandra_entry_ttl "
        "cassandra_keyspace cassandra_options cassandra_port cassandra_read_consistency cassandra_servers "
        "cassandra_table cassandra_write_consistency cosmosdbsql_collection_name cosmosdbsql_consistency_level "
        "cosmosdbsql_database_name cosmosdbsql_max_retry_attempts cosmosdbsql_max_retry_wait_time "
        "couchbase_backend_settings database_create_tables_at_setup database_engine_callback database_engine_options "
        "database_short_lived_sessions database_table_names database_table_schemas database_url "
        "elasticsearch_max_retries elasticsearch_retry_on_timeout elasticsearch_save_meta_as_text "
        "elasticsearch_timeout gcs_base_path gcs_bucket gcs_project gcs_ttl mongodb_backend_settings "
        "redis_backend_use_ssl redis_db redis_host redis_max_connections redis_password redis_port "
        "redis_retry_on_timeout redis_socket_connect_timeout redis_socket_keepalive redis_socket_timeout "
        "redis_username s3_access_key_id s3_base_path s3_bucket s3_endpoint_url s3_region s3_secret_access_key",
        "of one result backend each",
    ),
    _row(
        Way.CELERY,
        "security_cert_store security_certificate security_digest security_key security_key_password",
        "read by `app.setup_security()`",
    ),
    _row(
        Way.CELERY,
        "event_queue_durable event_queue_exclusive event_queue_expires event_queue_prefix event_queue_ttl",
        "of the queues of those who listen",
    ),
    _row(
        Way.ALWAYS,
        "broker_connection_retry broker_connection_retry_on_startup broker_connection_max_retries "
        "broker_channel_error_retry",
        "a lost connection is made again with growing pauses, however long the broker is away",
    ),
    _row(
        Way.ALWAYS,
        "worker_disable_prefetch worker_enable_prefetch_count_reduction worker_detect_quorum_queues",
        "a worker holds as many messages as it has slots, on every kind of queue",
    ),
    _row(Way.ALWAYS, "worker_pool_restarts", "`celery control pool_restart` is always allowed"),
    _row(Way.ALWAYS, "worker_hijack_root_logger", "the app may set up logging with Celery's signals"),
    _row(
        Way.ALWAYS, "worker_redirect_stdouts worker_redirect_stdouts_level", "what tasks print is in the replica's log"
    ),
    _row(
        Way.ALWAYS, "worker_lost_wait worker_proc_alive_timeout", "a death is noticed at once, a slow start waited for"
    ),
    _row(
        Way.INSTEAD,
        "broker_url broker_read_url broker_host broker_port broker_user broker_password broker_vhost broker_transport",
        "the manifest's `broker`; the app's `broker_url` is set to it",
    ),
    _row(
        Way.INSTEAD,
        "broker_use_ssl broker_login_method broker_heartbeat broker_heartbeat_checkrate broker_connection_timeout "
        "broker_failover_strategy",
        "the URL of the manifest's `broker`: `rediss://`, `amqps://`, `?heartbeat=`, several URLs",
    ),
    _row(
        Way.INSTEAD,
        "task_create_missing_queues task_create_missing_queue_type task_create_missing_queue_exchange_type "
        "task_default_queue_type task_queue_max_priority",
        "of queues that tasks send to; a queue that the group consumes takes its arguments from `task_queues`",
    ),
    _row(Way.INSTEAD, "worker_prefetch_multiplier", "`task.prefetch` in the manifest"),
    _row(Way.INSTEAD, "worker_eta_task_limit", "dates are kept by the broker; at most 10 000 wait in a worker"),
    _row(Way.INSTEAD, "broker_native_delayed_delivery_queue_type", "queues named `fleet.delay.…`"),
    _row(
        Way.INSTEAD,
        "worker_soft_shutdown_timeout worker_enable_soft_shutdown_on_idle",
        "`drain.timeout` in the manifest",
    ),
    _row(Way.INSTEAD, "worker_autoscaler", "`autoscale` in the manifest, over all replicas"),
    _row(Way.INSTEAD, "worker_pool_start_method", "`pool.startMethod` in the manifest"),
    _row(Way.INSTEAD, "worker_state_db", "revoked ids are kept in a file of the replica, for three hours"),
    _row(
        Way.INSTEAD,
        "worker_log_color worker_log_datefmt worker_log_format worker_task_log_datefmt worker_task_log_format",
        "`logging.format` in the manifest; a receiver of `setup_logging` or `after_setup_logger` may do more",
    ),
    _row(
        Way.INSTEAD,
        "worker_cancel_long_running_tasks_on_connection_loss",
        "tasks go on; their ends are told when the connection is back, and this replica runs no message twice",
    ),
    _row(Way.INSTEAD, "task_retry_on_worker_lost", "`task.maxAttempts` in the manifest"),
    _row(
        Way.INSTEAD,
        "beat_cron_starting_deadline beat_enable_remote_control beat_max_loop_interval "
        "beat_remote_control_max_tick_age beat_schedule beat_schedule_filename beat_scheduler beat_sync_every",
        "`celery beat` as a group with `command`; a worker has no scheduler in it",
    ),
    _row(
        Way.NONE,
        "worker_deduplicate_successful_tasks",
        "a worker asks no backend before it runs a task; write late tasks so that running twice does no harm",
    ),
    _row(Way.NONE, "worker_direct", "a replica has no queue of its own; give it one in its group's `queues`"),
    _row(Way.NONE, "event_serializer", "events are JSON"),
    _row(
        Way.NONE,
        "worker_agent worker_consumer worker_timer worker_timer_precision worker_pool_putlocks",
        "parts of Celery's worker that fleet's does not have",
    ),
)
"""Names of Celery's settings, lower case."""

TRANSPORT_OPTIONS = (
    _row(Way.INSTEAD, "queue_order_strategy", "`priority` of the manifest's `queues`"),
    _row(Way.INSTEAD, "visibility_timeout", "on Redis a lease of 15 s, renewed as long as the replica lives"),
    _row(
        Way.NONE,
        "ack_emulation unacked_key unacked_index_key unacked_mutex_key unacked_mutex_expire unacked_restore_limit",
        "kombu's book of unacknowledged messages on Redis; fleet keeps its own",
    ),
)
"""Of ``broker_transport_options``, those that fleet's channels for Redis and RabbitMQ do not read."""

HOOKS = (
    _row(
        Way.HONOURED,
        "celeryd_init celeryd_after_setup setup_logging after_setup_logger after_setup_task_logger import_modules "
        "worker_init worker_ready worker_shutting_down worker_shutdown worker_before_create_process "
        "worker_process_shutdown heartbeat_sent eventlet_pool_started eventlet_pool_preshutdown "
        "eventlet_pool_postshutdown eventlet_pool_apply",
        "signals about the worker",
    ),
    _row(Way.HONOURED, "worker_process_init", "signal, in every pool; where a receiver raises, no task runs"),
    _row(
        Way.HONOURED,
        "task_received task_prerun task_postrun task_success task_failure task_retry task_revoked task_rejected "
        "task_unknown task_internal_error before_task_publish after_task_publish task_sent",
        "signals about tasks",
    ),
    _row(
        Way.HONOURED,
        "Task.before_start Task.on_success Task.on_failure Task.on_retry Task.after_return",
        "methods of a task, after a hard limit too",
    ),
    _row(Way.HONOURED, "@control_command @inspect_command", "see remote control"),
    _row(Way.INSTEAD, "beat_init beat_embedded_init", "signals of `celery beat`, a program of its own"),
    _row(Way.INSTEAD, "user_preload_options app.user_options", "options of Celery's command line; settings of the app"),
    _row(
        Way.NONE, "app.steps", "bootsteps are parts of Celery's worker: use the signals `worker_init`, `worker_ready`"
    ),
    _row(Way.NONE, "Task.Request Task.Strategy", "fleet makes its own requests: use `Task.on_failure` and the signals"),
)

_LISTS = (("setting", SETTINGS), ("transport option", TRANSPORT_OPTIONS), ("hook", HOOKS))
_SILENT = frozenset({"broker_url"})
"""What nearly every app sets for its producers."""
_OF_CHILDREN = ("worker_max_tasks_per_child", "worker_max_memory_per_child")
_OWN_REQUEST, _OWN_STRATEGY = "celery.worker.request:Request", "celery.worker.strategy:default"


def warnings_for(app: Any, *, transport: str, pool: str) -> Iterator[str]:
    """What this app asks for that has no effect here, one sentence each. transport: the scheme of the broker's URL."""
    changed: Mapping[str, Any] = app.conf.table(with_defaults=False, censored=False)
    for name in _OF_CHILDREN if pool != "prefork" else ():
        if changed.get(name):
            yield f"the app's setting {name} has no effect in this worker: the {pool} pool has no children"
    for row, name in _without_effect(SETTINGS):
        if name in changed and name not in _SILENT and changed[name] != _default(name):
            yield _sentence("setting", name, row)
    if transport.partition("+")[0] in ("redis", "rediss", "valkey", "valkeys", "sentinel", "amqp", "amqps", "pyamqp"):
        options = app.conf.broker_transport_options or {}
        for row, name in _without_effect(TRANSPORT_OPTIONS):
            if name in options:
                yield _sentence("broker transport option", name, row)
    rows = {name: row for row, name in _without_effect(HOOKS)}
    if any(app.steps.values()):
        yield _sentence("hook", "app.steps", rows["app.steps"])
    for name, usual in (("Request", _OWN_REQUEST), ("Strategy", _OWN_STRATEGY)):
        custom = sorted(task.name for task in app.tasks.values() if getattr(task, name, usual) != usual)
        if custom:
            yield f"{_sentence('hook', f'Task.{name}', rows[f'Task.{name}'])} ({', '.join(custom[:3])})"


def _without_effect(rows: tuple[Row, ...]) -> Iterator[tuple[Row, str]]:
    for row in rows:
        if row.way in (Way.INSTEAD, Way.NONE):
            for name in row.names:
                yield row, name


def _default(name: str) -> Any:
    from celery.app.defaults import NAMESPACES, flatten

    return next((option.default for key, option in flatten(NAMESPACES) if key == name), None)


def _sentence(kind: str, name: str, row: Row) -> str:
    return f"the app's {kind} {name} has no effect in this worker: {row.remark}"


def with_current_table(text: str) -> str:
    """The document with what stands between its marks replaced by the table of today."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{as_markdown()}\n{END}{after}"


def as_markdown() -> str:
    """All rows as one table."""
    lines = ["| | under fleet's worker | |", "|---|---|---|"]
    for kind, rows in _LISTS:
        for row in rows:
            names = ", ".join(f"`{name}`" for name in row.names)
            lines.append(f"| {kind}: {names} | {row.way.value} | {row.remark} |")
    return "\n".join(lines)


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(with_current_table(document.read_text(encoding="utf-8")), encoding="utf-8")

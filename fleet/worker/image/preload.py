"""Imports and makes what workers of a spec have only when they need it, so that they share it."""

from __future__ import annotations

import importlib
from contextlib import suppress

from fleet.broker.connection import is_rabbitmq, is_redis
from fleet.core.spec import WorkerSpec, patch_of
from fleet.worker import logging_setup
from fleet.worker.apps.base import Application
from pools import pool_class

ALWAYS = (
    "fleet.worker.__main__",
    "setproctitle",
    "encodings.idna",
    "stringprep",
    "multiprocessing.util",
    "concurrent.futures.thread",
    "kombu.connection",
    "kombu.entity",
)
OF_REDIS = ("fleet.broker.channels.redis.channel", "redis", "kombu.transport.redis")
OF_CONTROL = ("fleet.worker.control.mailbox", "kombu.matcher", "secrets")
OF_GEVENT = ("gevent.threadpool", "gevent.resolver.thread", "gevent.util", "pprint")
OF_RABBITMQ = ("fleet.broker.channels.rabbitmq.channel", "amqp", "kombu.transport.pyamqp")


def import_for(spec: WorkerSpec, application: Application) -> None:
    """Import the pool, the channel of the broker, and what a worker loads late; have its caches filled."""
    pool_class(spec.pool.class_path or spec.pool.type)
    url = spec.broker.url or application.default_broker_url()
    of_broker = OF_RABBITMQ if is_rabbitmq(url) else OF_REDIS if is_redis(url) else ()
    of_control = OF_CONTROL if application.remote() is not None else ()
    of_patch = OF_GEVENT if patch_of(spec) == "gevent" else ()
    for name in (*ALWAYS, *of_broker, *of_control, *of_patch):
        with suppress(ImportError):
            importlib.import_module(name)
    application.transport_options(None)
    application.default_queues()
    if is_redis(url):
        _fill_caches_of_redis()
    logging_setup.set_level(spec.log_level)  # to set it in a worker would write to all its loggers


def _fill_caches_of_redis() -> None:
    """The texts of the scripts, redis-py's own version, which it reads from a file for each connection, and what it
    makes when the first client and subscription are made."""
    import redis.utils

    from fleet.broker.channels.redis import scripts

    scripts.read_all()
    if look_up := getattr(redis.utils, "get_lib_version", None):
        version = look_up()
        redis.utils.get_lib_version = lambda: version
    with redis.Redis() as client:  # connects when it is first used, which it is not
        client.pubsub().close()

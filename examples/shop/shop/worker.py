"""The Celery app: `celery -A shop.worker`, or `app: shop.worker:app` in a manifest."""

from __future__ import annotations

from celery import Celery

from shop import settings

BEAT_SECONDS = 5.0

app = Celery("shop", broker=settings.broker_url(), backend=settings.results_url(), include=["shop.tasks"])
app.conf.update(
    task_default_queue="reports",
    task_routes={
        "shop.tasks.thumbnail": {"queue": "thumbs"},
        "shop.tasks.report": {"queue": "reports"},
        "shop.tasks.nightly": {"queue": "reports-nightly"},
        "shop.tasks.mail": {"queue": "mail"},
        "shop.tasks.webhook": {"queue": "webhooks"},
        "shop.tasks.stock": {"queue": "stock"},
    },
    result_expires=3600,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    # A night of this shop is five seconds long, so that a visitor sees beat at work.
    beat_schedule={"nightly": {"task": "shop.tasks.nightly", "schedule": BEAT_SECONDS}},
    beat_schedule_filename=str(settings.state() / "beat"),
)
settings.state().mkdir(mode=0o700, parents=True, exist_ok=True)

"""pretix's own expire_orders over pretix's own orders: pending, past their term, one position each.

Runs in pretix's environment, which holds nothing of ours, so it speaks to whoever measures by itself. What it would hand to
its queue (webhooks, notifications) is left undone: it is given that for nothing.
"""

# ruff: noqa: PLC0415 -- Django's models can be imported when it is configured, not before

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


def _cpu() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def _configure(task: dict[str, Any], place: Path) -> None:
    lines = [f"{key}={value}" for key, value in task["login"].items()]
    file = place / "pretix.cfg"
    file.touch(mode=0o600)
    file.write_text(
        "\n".join(
            [
                "[pretix]",
                f"datadir={place}",
                "url=http://localhost",
                "[database]",
                "backend=postgresql",
                *lines,
            ]
        )
    )
    os.environ["PRETIX_CONFIG_FILE"] = str(file)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.peers.pretix_settings"


def _orders(count: int, salt: int) -> None:
    """Orders as pretix makes them, in sets: order, position, and the transactions that its books begin with."""
    from django.utils.timezone import now
    from django_scopes import scopes_disabled
    from pretix.base.models import Event, Order, OrderPosition, Organizer
    from pretix.base.models.orders import Transaction

    with scopes_disabled():
        organizer, _ = Organizer.objects.get_or_create(name="bench", slug="bench")
        event, made = Event.objects.get_or_create(
            organizer=organizer,
            slug="bench",
            defaults={"name": "bench", "date_from": now(), "currency": "CNY", "plugins": ""},
        )
        if made:
            event.settings.payment_term_expire_automatically = True
            event.settings.timezone = "Asia/Shanghai"
        item, _ = event.items.get_or_create(name="fee", defaults={"default_price": Decimal(244)})
        channel = organizer.sales_channels.get(identifier="web")
        yesterday = now() - timedelta(days=1)
        orders = Order.objects.bulk_create(
            Order(
                event=event, organizer=organizer, code=f"{salt:02d}{number:08d}", status=Order.STATUS_PENDING,
                email=f"c{number}@example.org", locale="en", datetime=yesterday - timedelta(days=10), expires=yesterday,
                total=Decimal(244), sales_channel=channel, secret=f"{salt:02d}{number:014x}",
            )
            for number in range(count)
        )  # fmt: skip
        positions = OrderPosition.objects.bulk_create(
            OrderPosition(
                order=order, item=item, variation=None, price=Decimal(244), tax_rate=Decimal(0), tax_value=Decimal(0),
                positionid=1, organizer=organizer,
                secret=f"p{order.secret}", web_secret=order.secret, pseudonymization_id=order.code,
            )
            for order in orders
        )  # fmt: skip
        books: list[Any] = []
        for order, position in zip(orders, positions, strict=True):
            books += order.create_transactions(is_new=True, positions=[position], fees=[], save=False)
        Transaction.objects.bulk_create(books)


def main() -> None:
    task = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as place:
        _configure(task, Path(place))
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection
        from pretix.api import webhooks
        from pretix.base.services import notifications
        from pretix.base.services.orders import expire_orders

        if task["make_tables"]:
            call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)
        for queue in (webhooks.notify_webhooks, notifications.notify):
            queue.apply_async = lambda *_, **__: None
        _orders(task["orders"], task["salt"])
        with connection.cursor() as cursor:
            cursor.execute("analyze")
        _say({"ready": {}})
        sys.stdin.readline()
        before, began = _cpu(), time.perf_counter()
        expire_orders(sender=None)
        took = time.perf_counter() - began
        cpu = _cpu() - before
        with connection.cursor() as cursor:
            cursor.execute(
                "select count(*) filter (where status = 'e'), count(*) filter (where status = 'n') "
                "from pretixbase_order where code like %s",
                [f"{task['salt']:02d}%"],
            )
            expired, pending = cursor.fetchone()
            cursor.execute(
                "select count(distinct object_id) from pretixbase_logentry where action_type = 'pretix.event.order.expired'"
            )
            (logged,) = cursor.fetchone()
        _say(
            {
                "result": {
                    "seconds": took,
                    "expired": expired,
                    "pending": pending,
                    "logged": logged,
                    "cpu": cpu,
                }
            }
        )


if __name__ == "__main__":
    main()

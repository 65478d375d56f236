"""What operators see of money and the close. Labels are codes, never ids."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PAID = Counter("kaowu_payment_paid", "Obligations paid, in time and in full", ["heard_by"])
EXPIRED = Counter("kaowu_payment_expired", "Registrations forfeited")
REINSTATED = Counter(
    "kaowu_payment_reinstated", "Forfeitures taken back: the payment was in time, or two people decided so"
)
HELD = Counter("kaowu_payment_held", "Obligations held at the close because a gateway did not answer")
REMINDED = Counter("kaowu_payment_reminded", "Reminders said", ["offset_seconds"])
REFUNDS_DUE = Counter("kaowu_payment_refunds_due", "Payments that must go back", ["cause"])
REFUNDS = Counter("kaowu_payment_refunds", "Refunds by how they stood after asking", ["channel", "state"])
ORDERS = Counter("kaowu_payment_orders", "Orders by what the gateway made of them", ["channel", "outcome"])
CALLBACKS = Counter("kaowu_payment_callbacks", "Gateway notices by outcome", ["channel", "outcome"])
CLOCK_SKEW = Gauge("kaowu_payment_callback_skew_seconds", "Of the last notice refused as stale", ["channel"])
DECIDED = Counter(
    "kaowu_payment_decided", "Decisions of two people by what the second one said", ["kind", "word"]
)
RECONCILED = Counter("kaowu_payment_reconciled", "Days whose bill was compared", ["channel", "bill"])
BREAKS_FOUND = Counter("kaowu_payment_breaks_found", "Differences between bill and book", ["channel"])
CLOSE_STOPPED = Counter("kaowu_payment_close_stopped", "Closes put off because clocks disagreed")
RECOVERED = Counter(
    "kaowu_payment_recovered", "Orders found and payments booked again after a restore", ["what"]
)
CLOSE_SECONDS = Histogram(
    "kaowu_payment_close_seconds",
    "From the beginning of a close to its totals",
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)

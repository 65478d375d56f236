"""The last resort: librdkafka's in-process broker, as a process of its own.

It keeps little, takes one member per group, forgets everything when it ends, and does not stamp records with its
own time. Good for a look at the demo, never for a test of delivery.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from confluent_kafka import Producer


def main(address_file: Path) -> None:
    """Start it, write `host:port` for those who wait, and stay until SIGTERM."""
    producer = Producer({"bootstrap.servers": "unused:1", "test.mock.num.brokers": 1, "log_level": 2})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    scratch = address_file.with_suffix(".new")
    scratch.write_text(f"{broker.host}:{broker.port}")
    scratch.replace(address_file)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(Path(sys.argv[1]))

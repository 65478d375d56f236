"""A trace goes on over the outbox."""

from __future__ import annotations

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis.tracing import Tracing

FIRST = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
SECOND = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"


def test_one_parent_is_continued_and_several_are_linked() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing("payment", None, exporter)
    with tracing.span("request", [FIRST]):
        pass
    with tracing.span("batch", [FIRST, None, SECOND]):
        pass
    tracing.close()
    request, batch = exporter.get_finished_spans()
    assert request.context is not None
    assert format(request.context.trace_id, "032x") == "a" * 32
    assert [format(link.context.trace_id, "032x") for link in batch.links] == ["a" * 32, "c" * 32]


def test_without_a_collector_nothing_is_made() -> None:
    with Tracing("payment", None).span("request", ["not a traceparent"]):
        pass

"""Traces, if somebody collects them: one span per request, batch and job, continued over the outbox.

Without an endpoint the API's own no-op tracer is used and costs nothing. The events carry `traceparent` either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanKind

_MOST_LINKS = 64  # of one batch; a collector drops more anyway


def _collector(endpoint: str) -> SpanExporter:
    # Imported only when asked for: it costs every process fifteen megabytes.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")


class Tracing:
    """Makes spans, or nothing at all."""

    def __init__(self, service: str, endpoint: str | None, exporter: SpanExporter | None = None) -> None:
        self._provider: TracerProvider | None = None
        if endpoint is not None or exporter is not None:
            self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
            self._provider.add_span_processor(BatchSpanProcessor(exporter or _collector(str(endpoint))))
            self._tracer = self._provider.get_tracer("kaowu")

    @contextmanager
    def span(
        self, name: str, parents: Sequence[str | None], kind: SpanKind = SpanKind.INTERNAL
    ) -> Iterator[None]:
        """A span that goes on from one parent, or links to the several that a batch has."""
        if self._provider is None:
            yield
            return
        contexts = [propagate.extract({"traceparent": p}) for p in parents[:_MOST_LINKS] if p]
        links = (
            [Link(trace.get_current_span(c).get_span_context()) for c in contexts]
            if len(contexts) > 1
            else []
        )
        parent = contexts[0] if len(contexts) == 1 else None
        with self._tracer.start_as_current_span(name, context=parent, kind=kind, links=links):
            yield

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()

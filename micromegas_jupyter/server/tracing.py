"""Traces of the server itself, by OpenTelemetry: one span for each call, and one for each phase of a query in it.

Spans hold no SQL, no identity and no text of errors. Nothing of OpenTelemetry is loaded while traces are off. Where
spans go, how many are kept and what else the standard variables say, is the SDK's job.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final

import grpc

from micromegas_jupyter import __version__
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.server.health import FLIGHT_SERVICE

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_FLUSH_MILLISECONDS: Final = 3000
_MAX_NAME_CHARACTERS: Final = 32
#: Source: OpenTelemetry's semantic conventions for gRPC, "span status" of servers.
_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

_tracer_of_call: ContextVar[Any] = ContextVar("micromegas_tracer_of_call", default=None)


class CallSpan:
    """The span of one call, once it has begun; does nothing without one."""

    def __init__(self, start: Callable[[], Any] | None = None) -> None:
        self._start = start
        self._span: Any = None

    def begin(self) -> None:
        """Begin it, when it is known that somebody calls who may: nobody else makes spans."""
        if self._start is not None and self._span is None:
            self._span = self._start()

    def note_end(self, status: str, code: str | None = None) -> None:
        """Note the gRPC status that the call ends with, and the code of its error, if there is one."""
        if self._span is None:
            return
        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[status].value[0])
        if code is not None:
            self._span.set_attribute("error.type", code)
        if status in _SERVER_ERRORS:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR))


_NO_SPAN: Final = nullcontext(CallSpan())
_NO_PHASE: Final = nullcontext()


class Tracing:
    """Makes the spans of one server; without a provider it makes none."""

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("micromegas_jupyter.server", __version__)

    def call(self, method: str, query_id: str, metadata: Sequence[tuple[str, Any]]) -> AbstractContextManager[CallSpan]:
        """Let the body begin one call's span, which goes on with the trace that its metadata names and has its start.

        Source: W3C Trace Context, headers `traceparent` and `tracestate`.
        """
        if self._tracer is None:
            return _NO_SPAN
        return self._call(self._tracer, method, query_id, metadata)

    @contextmanager
    def _call(self, tracer: Any, method: str, query_id: str, metadata: Sequence[tuple[str, Any]]) -> Iterator[CallSpan]:
        service, _, name = method[1:].rpartition("/")
        if service != FLIGHT_SERVICE:
            yield CallSpan()
            return
        came_at = int(SYSTEM_CLOCK.now().timestamp() * 1e9)
        with ExitStack() as stack:

            def start() -> Any:
                carrier = {key: value for key, value in metadata if key in {"traceparent", "tracestate"}}
                return stack.enter_context(_span(tracer, service, name, query_id, carrier, came_at))

            yield CallSpan(start)

    def close(self) -> None:
        """Send what waits, for three seconds at most. May be called twice."""
        if self._provider is not None:
            provider, self._provider = self._provider, None
            provider.force_flush(_FLUSH_MILLISECONDS)
            provider.shutdown()


@contextmanager
def _span(  # noqa: PLR0913, PLR0917 - what a span is made of
    tracer: Any, service: str, name: str, query_id: str, carrier: Mapping[str, Any], came_at: int
) -> Iterator[Any]:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    known = name if name.isalnum() and len(name) <= _MAX_NAME_CHARACTERS else "other"
    with tracer.start_as_current_span(
        f"{service}/{known}",
        context=TraceContextTextMapPropagator().extract(carrier),
        kind=SpanKind.SERVER,
        attributes={
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": known,
            "micromegas.query_id": query_id,
        },
        start_time=came_at,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        token = _tracer_of_call.set(tracer)
        try:
            yield span
        finally:
            _tracer_of_call.reset(token)


def phase(name: str) -> AbstractContextManager[None]:
    """Have the body be a span within that of the call, where there is one."""
    tracer = _tracer_of_call.get()
    return _NO_PHASE if tracer is None else _phase(tracer, name)


@contextmanager
def _phase(tracer: Any, name: str) -> Iterator[None]:
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False):
        yield


def open_tracing(environ: Mapping[str, str]) -> Tracing:
    """Return what OpenTelemetry's standard variables ask for; nothing is traced when they name no receiver."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or not any(map(environ.get, _ENDPOINTS)):
        return Tracing()
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") not in {"", "otlp"}:
        return Tracing()
    protocol = next((found for name in _PROTOCOLS if (found := environ.get(name))), _PROTOCOL)
    if protocol != _PROTOCOL:
        _LOG.warning("Traces are off: they are sent by http/protobuf only.", extra={"protocol": protocol})
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _LOG.warning("Traces are off: OpenTelemetry is not installed; install micromegas_jupyter[otel].")
        return Tracing()
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "micromegas"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)

"""OpenTelemetry: records the spans of committed steps, and runs callbacks inside a span of theirs.

Needs `opentelemetry-api` (extra `telemetry`); what becomes of the spans is decided by the tracer provider that the
program registers. Imported only when telemetry is on.

The ids of the spans of steps follow from their places (see `core/advance/trace.py`), so the tracer for them gets its ids from
here. A tracer that does not let itself be told (one that is not the SDK's) makes up its own: the spans of a job then
share its trace, but do not know their parents in other steps.
"""

from __future__ import annotations

import copy
import logging
import time
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from hotmesh.core.state.job import StartRequest
from hotmesh.core.state.span import UNSAMPLED, Span, TraceMode, job_span_id
from hotmesh.core.state.step import Step
from hotmesh.interrupts import is_interrupt
from hotmesh.runtime.messages import AsyncCallback, Response, StreamData, answer_to
from hotmesh.version import __version__

logger = logging.getLogger("hotmesh.telemetry")

TRACER_NAME: Final = "hotmesh"


class SpanRecorder:
    """`Telemetry` by OpenTelemetry. `provider` None: the one that is registered when the first span is due."""

    def __init__(self, app_id: str, mode: TraceMode, provider: TracerProvider | None = None) -> None:
        self.mode: TraceMode = mode
        self._app_id = app_id
        self._provider = provider
        self._tracer: Tracer | None = None
        self._steps: Tracer | None = None
        self._ids = _Ids()
        self._jobs: dict[str, trace.Span] = {}
        """The first spans of jobs that are being created, by generation."""
        self._find()

    def _find(self) -> Tracer | None:
        """The tracer, as soon as there is a provider that is more than a placeholder."""
        if self._tracer is None:
            provider = self._provider or trace.get_tracer_provider()
            if isinstance(provider, trace.ProxyTracerProvider):
                return None
            self._tracer = provider.get_tracer(TRACER_NAME, __version__)
            self._steps = self._ids.given_to(self._tracer)
        return self._tracer

    # -- beginnings --------------------------------------------------------------------------------------

    def begin(self, request: StartRequest) -> StartRequest:
        """The request with its trace: that of the context it was given, of the active span, or a new one.

        The job's first span begins here. It is recorded with the step that creates the job.
        """
        if self._find() is None or self._steps is None:
            return request
        parent: contexts.Context | None = None
        if request.trace_id is not None:
            trace_id = _number(request.trace_id, 32)
            if trace_id is None:
                return request  # somebody else's ids: kept, passed on, and not ours to trace
            number = _number(request.span_id, 16)
            parent = contexts.Context()
            if number is not None:
                parent = _remote(trace_id, number)
            else:
                self._ids.trace_id = trace_id
        current = trace.get_current_span(parent).get_span_context()
        self._ids.span_id = int(job_span_id(request.generation), 16)
        try:
            span = self._steps.start_span(
                f"JOB/{self._app_id}/{request.topic}/1", context=parent, kind=SpanKind.CLIENT
            )
        finally:
            self._ids.span_id = self._ids.trace_id = None
        made = span.get_span_context()
        if not made.trace_flags.sampled:
            return replace(request, trace_id=f"{made.trace_id:032x}", span_id=UNSAMPLED)
        self._jobs[request.generation] = span
        before = f"{current.span_id:016x}" if current.is_valid else request.span_id
        return replace(request, trace_id=f"{made.trace_id:032x}", span_id=before)

    def carried(self, request: StartRequest) -> StartRequest:
        """The request of a job that starts later and elsewhere, as a part of the active span's trace."""
        if request.trace_id is not None or self._find() is None or self._steps is None:
            return request
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            return request
        span_id = f"{current.span_id:016x}" if current.trace_flags.sampled else UNSAMPLED
        return replace(request, trace_id=f"{current.trace_id:032x}", span_id=span_id)

    def forget(self, generation: str) -> None:
        """The job was not created."""
        self._jobs.pop(generation, None)

    # -- steps -------------------------------------------------------------------------------------------

    def record(self, step: Step) -> None:
        """The step has committed: record its spans. What goes wrong with that is logged, and harms nothing."""
        if not step.spans:
            return
        now = time.time_ns()
        for span in step.spans:
            try:
                if self._find() is None or self._steps is None:
                    return
                self._record(self._steps, span, now)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                # Span processors are code of users, and may raise anything.
                logger.error("span could not be recorded", extra={"span": span.name}, exc_info=error)
                return

    def _record(self, tracer: Tracer, span: Span, now: int) -> None:
        found = (
            self._jobs.pop(span.generation, None) if span.span_id == job_span_id(span.generation) else None
        )
        if found is None:
            trace_id = _number(span.trace_id, 32)
            if trace_id is None:
                return
            number = _number(span.parent_id, 16)
            if number is None:
                self._ids.trace_id = trace_id
            self._ids.span_id = int(span.span_id, 16)
            try:
                found = tracer.start_span(
                    span.name,
                    context=contexts.Context() if number is None else _remote(trace_id, number),
                    kind=SpanKind.CLIENT,
                    attributes=span.attributes,
                    start_time=min(_nanoseconds(span.started_at), now),
                )
            finally:
                self._ids.span_id = self._ids.trace_id = None
        else:
            found.set_attributes(span.attributes)
        if span.error is not None:
            found.set_status(StatusCode.ERROR, span.error)
        found.end(now)

    # -- callbacks ---------------------------------------------------------------------------------------

    def traced(self, callback: AsyncCallback) -> AsyncCallback:
        """The callback inside a span of its own, which is the current one while it runs."""

        async def call(message: StreamData) -> Response:
            metadata = message["metadata"]
            trace_id, parent = _number(metadata.get("trc"), 32), _number(metadata.get("spn"), 16)
            tracer = self._find()
            if tracer is None:
                return answer_to(message, await callback(message))
            if trace_id is None:
                return await _within(callback, message, trace.INVALID_SPAN)
            if metadata.get("spn") == UNSAMPLED:
                # What the callback begins is not sampled, either.
                unsampled = SpanContext(
                    trace_id, 1, is_remote=True, trace_flags=TraceFlags(TraceFlags.DEFAULT)
                )
                return await _within(callback, message, NonRecordingSpan(unsampled))
            span = tracer.start_span(
                f"EXECUTE/{self._app_id}/{metadata['aid']}/{metadata['topic']}",
                context=contexts.Context() if parent is None else _remote(trace_id, parent),
                kind=SpanKind.CLIENT,
                attributes={
                    f"app.stream.{name}": value
                    for name, value in metadata.items()
                    if name not in ("trc", "spn") and isinstance(value, str | bool | int | float)
                },
            )
            token = contexts.attach(trace.set_span_in_context(span))
            try:
                response = answer_to(message, await callback(message))
            except BaseException as error:
                span.record_exception(error)
                span.set_status(StatusCode.ERROR, str(error) or type(error).__name__)
                raise
            else:
                span.set_attribute("app.worker.mid", metadata["guid"])
                span.set_attribute("app.worker.code", response.code)
                if response.status == "error":
                    span.set_status(StatusCode.ERROR, f"Function Status Code {response.code}")
                return response
            finally:
                contexts.detach(token)
                span.end()

        return call


async def _within(callback: AsyncCallback, message: StreamData, span: trace.Span) -> Response:
    """Run a callback that has no span of its own, and not in the one that was current when the instance began."""
    token = contexts.attach(trace.set_span_in_context(span))
    try:
        return answer_to(message, await callback(message))
    finally:
        contexts.detach(token)


class _Ids:
    """A tracer's generator of ids, which says what it is told to."""

    def __init__(self) -> None:
        self.trace_id: int | None = None
        self.span_id: int | None = None
        self._random: Any = None

    def given_to(self, tracer: Tracer) -> Tracer:
        """A copy of the tracer that asks here; the tracer itself, if it cannot be told where to ask."""
        generator = getattr(tracer, "id_generator", None)
        if generator is None:
            return tracer
        self._random = generator
        found: Any = copy.copy(tracer)
        found.id_generator = self
        return found  # type: ignore[no-any-return]

    def generate_span_id(self) -> int:
        return self.span_id if self.span_id is not None else int(self._random.generate_span_id())

    def generate_trace_id(self) -> int:
        return self.trace_id if self.trace_id is not None else int(self._random.generate_trace_id())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._random, name)


def _remote(trace_id: int, span_id: int) -> contexts.Context:
    """A context whose current span is one of another step, sampled."""
    parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(parent), contexts.Context())


def _number(text: Any, digits: int) -> int | None:
    """An id as a number; None if it is none, or all zeros."""
    if not isinstance(text, str) or len(text) != digits:
        return None
    try:
        return int(text, 16) or None
    except ValueError:
        return None


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000

"""Whether an instance records spans: decided once, without importing OpenTelemetry where nobody uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, cast

from hotmesh.core.state.job import StartRequest
from hotmesh.core.state.span import TraceMode
from hotmesh.core.state.step import Step
from hotmesh.errors import ConfigError
from hotmesh.runtime.messages import AsyncCallback

TelemetryOption = Literal["info", "debug"] | bool | None
"""What spans to record: `info` (also True), `debug`, False; None: `HMSH_TELEMETRY`, else `info` if the program has
registered a tracer provider by the time of `init`."""

TELEMETRY_VARIABLE: Final = "HMSH_TELEMETRY"


class Telemetry(Protocol):
    """What records the spans of one instance; `spans` has it for OpenTelemetry, which need not be installed."""

    mode: TraceMode

    def begin(self, request: StartRequest) -> StartRequest:
        """The request of a job that is about to be created, with its trace."""
        ...

    def carried(self, request: StartRequest) -> StartRequest:
        """The request of a job that starts later and elsewhere, with the trace of whoever asks for it."""
        ...

    def forget(self, generation: str) -> None:
        """The job was not created."""
        ...

    def record(self, step: Step) -> None:
        """The step has committed: record its spans. Raises nothing."""
        ...

    def traced(self, callback: AsyncCallback) -> AsyncCallback:
        """The callback inside a span of its own."""
        ...


def find_telemetry(
    app_id: str, wanted: TelemetryOption, provider: Any = None, environ: Mapping[str, str] = os.environ
) -> Telemetry | None:
    """What records the spans of an instance, or None. Raises ConfigError if it is asked for but not installed."""
    if provider is not None and not callable(getattr(provider, "get_tracer", None)):
        raise ConfigError(f"tracer_provider= takes a tracer provider of OpenTelemetry, not {provider!r}")
    mode = _mode(wanted, provider, environ)
    if mode is None:
        return None
    try:
        from hotmesh.runtime.telemetry.spans import SpanRecorder
    except ModuleNotFoundError as error:
        raise ConfigError(
            "telemetry needs the OpenTelemetry API: pip install 'hotmesh[telemetry]', or set telemetry=False"
        ) from error
    return SpanRecorder(app_id, mode, provider)


def _mode(wanted: TelemetryOption, provider: Any, environ: Mapping[str, str]) -> TraceMode | None:
    if wanted is False:
        return None
    if wanted is True:
        return "info"
    if wanted is not None:
        if wanted not in ("info", "debug"):
            raise ConfigError(f"telemetry= must be 'info', 'debug', True or False, not {wanted!r}")
        return wanted
    text = environ.get(TELEMETRY_VARIABLE)
    if text:
        if text not in ("info", "debug", "off"):
            raise ConfigError(
                f"environment variable {TELEMETRY_VARIABLE} must be info, debug or off, not {text!r}"
            )
        return None if text == "off" else cast("TraceMode", text)
    return "info" if provider is not None or _registered() else None


def _registered() -> bool:
    """Whether the program has registered a tracer provider; one that did has imported the API."""
    api = sys.modules.get("opentelemetry.trace")
    return api is not None and not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)

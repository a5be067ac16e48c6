"""What workflow code waits with: sleep, signals, conditions; users know these functions as `workflow.sleep` and so on.

A signal is sent to an id, and whoever waits for that has it (`condition`, `wait_signal`); or to a workflow, by a name: its
handler has it (`@workflow.signal`), else who waits for that name in it (`recv`, and the two above), else it is kept as long as
the workflow lives. Signals of one name keep their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar, overload

import msgspec

from hotmesh.core.column import column_text
from hotmesh.core.durable.commands import Completion, Signal, Sleep, Wait
from hotmesh.core.durable.failure import exception_of
from hotmesh.core.duration import LONGEST_TIME, Duration, seconds_with_unit
from hotmesh.core.lengths import LONGEST_ID
from hotmesh.durable.decorators import workflow_signal
from hotmesh.durable.escalations import Escalation
from hotmesh.durable.strands import WorkflowStrand, current
from hotmesh.durable_errors import SignalIdInUseError
from hotmesh.errors import ConfigError, MappingError
from hotmesh.replay import Operation

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LONGEST_SIGNAL: Final = 1_024
"""Characters of the id or name of a signal; it is part of an index."""


@dataclass(frozen=True, slots=True)
class SignalResult(Generic[T]):
    """What `wait_signal` comes to. `payload` is None unless the status is `received`."""

    status: Literal["received", "timed_out", "cancelled"]
    payload: T | None = None


async def sleep(duration: Duration) -> float:
    """Wait for so long, whatever happens to processes meanwhile; returns the seconds. 0 and less: at once.

    await workflow.sleep("3 days")
    """
    strand = current("sleep")
    seconds = _seconds(duration, "the duration of workflow.sleep", least=None)
    position = strand.reserve()
    if seconds > 0:
        await strand.ask(Sleep(position, round(seconds, 6)), _nothing)
    return int(seconds) if seconds == int(seconds) else seconds


async def sleep_until(moment: datetime) -> None:
    """Wait until then; `moment` has a time zone. Raises ConfigError for one that has none."""
    if moment.tzinfo is None:
        raise ConfigError(
            "workflow.sleep_until needs a moment with a time zone, such as datetime(…, tzinfo=UTC)"
        )
    await sleep((moment.astimezone(UTC) - current("sleep_until").now()).total_seconds())


@overload
def condition(
    signal_id: str,
    timeout: Duration | None = None,
    *,
    escalation: Escalation | Mapping[str, Any] | None = None,
    shared: bool = False,
    raise_on_timeout: bool = False,
    result_type: type[T],
) -> Operation[T | Literal[False] | None]: ...
@overload
def condition(
    signal_id: str,
    timeout: Duration | Escalation | Mapping[str, Any] | None = None,
    *,
    escalation: Escalation | Mapping[str, Any] | None = None,
    shared: bool = False,
    raise_on_timeout: bool = False,
    result_type: Any = Any,
) -> Operation[Any]: ...
def condition(
    signal_id: str,
    timeout: Any = None,
    *,
    escalation: Escalation | Mapping[str, Any] | None = None,
    shared: bool = False,
    raise_on_timeout: bool = False,
    result_type: Any = Any,
) -> Operation[Any]:
    """Wait for the signal of this id: its payload; False if `timeout` is over before; None if its work item was cancelled.

        if await workflow.condition(f"approve {order}", "3 days", escalation={"role": "boss", "priority": 2}):

    A signal that came before counts. `escalation` puts a work item for a person into the queue, in the same commit: whoever
    resolves it sends the signal. `shared`: others may wait for the same id, and each gets one of its signals.
    Raises SignalIdInUseError where another one waits for it; TimeoutError instead of False with `raise_on_timeout`.
    """
    if isinstance(timeout, Escalation | Mapping):
        if escalation is not None:
            raise ConfigError("workflow.condition has got two escalations; give one, by name")
        timeout, escalation = None, timeout

    def decode(result: SignalResult[Any]) -> Any:
        if result.status == "timed_out":
            if raise_on_timeout:
                raise TimeoutError(f"no signal {signal_id} came in time")
            return False
        return result.payload

    return _wait("condition", signal_id, timeout, escalation, result_type, decode, shared=shared)


wait_for_signal = condition


@overload
def wait_signal(
    signal_id: str,
    timeout: Duration | None = None,
    *,
    escalation: Escalation | Mapping[str, Any] | None = None,
    shared: bool = False,
    result_type: type[T],
) -> Operation[SignalResult[T]]: ...
@overload
def wait_signal(
    signal_id: str,
    timeout: Duration | None = None,
    *,
    escalation: Escalation | Mapping[str, Any] | None = None,
    shared: bool = False,
    result_type: Any = Any,
) -> Operation[SignalResult[Any]]: ...
def wait_signal(
    signal_id: str,
    timeout: Duration | None = None,
    *,
    escalation: Escalation | Mapping[str, Any] | None = None,
    shared: bool = False,
    result_type: Any = Any,
) -> Operation[Any]:
    """As `condition`, for payloads that may be false or null themselves: a `SignalResult`."""
    return _wait("wait_signal", signal_id, timeout, escalation, result_type, _itself, shared=shared)


@overload
def recv(name: str, timeout: Duration | None = None, *, result_type: type[T]) -> Operation[T]: ...
@overload
def recv(name: str, timeout: Duration | None = None, *, result_type: Any = Any) -> Operation[Any]: ...
def recv(name: str, timeout: Duration | None = None, *, result_type: Any = Any) -> Operation[Any]:
    """Wait for the next signal of that name which is sent to this very workflow (`handle.signal`); its payload.

    Any number of workflows may wait for the same name: each gets its own. Raises TimeoutError if `timeout` is over before.
    """

    def decode(result: SignalResult[Any]) -> Any:
        if result.status == "timed_out":
            raise TimeoutError(f"no signal {name} came in time")
        return result.payload

    return _wait("recv", name, timeout, None, result_type, decode, correlated=False)


def _wait(
    call: str,
    name: str,
    timeout: Any,
    escalation: Escalation | Mapping[str, Any] | None,
    result_type: Any,
    decode: Callable[[SignalResult[Any]], Any],
    *,
    shared: bool = False,
    correlated: bool = True,
) -> Operation[Any]:
    strand = current(call)
    name = checked_signal(name, f"the signal of workflow.{call}")
    item = None if escalation is None else Escalation.read(escalation, f"the escalation of workflow.{call}")
    if item is not None and item.timeout is not None:
        if timeout is not None:
            raise ConfigError(f"workflow.{call} has got two timeouts; give one")
        timeout = item.timeout
    seconds = None if timeout is None else _seconds(timeout, f"the timeout of workflow.{call}", least=0)
    shape = strand.hosted.converter.shape(result_type, f"signal {name}")
    fields = None if item is None else item.fields(strand.hosted.converter)
    command = Wait(strand.reserve(), name, correlated, shared, seconds, fields)

    def completed(completion: Completion) -> Any:
        match completion.status:
            case "done":
                value = completion.value
                payload = shape.decode("null" if value is None else value)
                return decode(SignalResult("received", payload))
            case "cancelled":
                return decode(SignalResult("cancelled"))
            case _:
                error = completion.error or {}
                if error.get("type") == "TimeoutError":
                    return decode(SignalResult("timed_out"))
                if error.get("type") == "SignalIdInUseError":
                    raise SignalIdInUseError(name)
                raise exception_of(error)

    return strand.ask(command, completed)


def send(signal_id: str, data: Any = None, *, expire: Duration | None = None) -> None:
    """Send a signal to an id, exactly once, with what the workflow asks for now: `workflow.signal("id", data)`.

    Nobody waits for it: it is kept for `expire` (10 minutes).
    """
    strand = current("signal")
    name = checked_signal(signal_id, "the id of workflow.signal")
    seconds = None if expire is None else _seconds(expire, "expire of workflow.signal", least=0)
    payload = payload_of(strand, data, f"data for signal {name}")
    strand.perform(Signal(strand.reserve(), name, payload, None, seconds))


def signal_workflow(workflow_id: str, name: str, data: Any = None) -> None:
    """Send a signal to a workflow, exactly once, with what this one asks for now. It has no effect if that has ended."""
    strand = current("signal_workflow")
    name = checked_signal(name, "the signal of workflow.signal_workflow")
    if not isinstance(workflow_id, str) or not workflow_id:
        raise ConfigError(f"workflow.signal_workflow needs the id of a workflow, not {workflow_id!r}")
    payload = payload_of(strand, data, f"data for signal {name}")
    strand.perform(Signal(strand.reserve(), name, payload, workflow_id))


@overload
def signal(signal_id: str, data: Any = None, /, *, expire: Duration | None = None) -> None: ...
@overload
def signal(given: F, /) -> F: ...
@overload
def signal(*, name: str | None = None) -> Callable[[F], F]: ...
def signal(given: Any = None, /, *args: Any, **options: Any) -> Any:
    """Two things by one name. `@workflow.signal` marks the method of a workflow class that takes the signals of its name.
    `workflow.signal("id", data)` sends one: see `send`.
    """
    if isinstance(given, str):
        return send(given, *args, **options)
    return workflow_signal(given, *args, **options)


def set_signal_handler(name: str, handler: Callable[[Any], Any] | None) -> None:
    """Have a function called with the payload of each signal of that name to this workflow, also of those that came before.

    It may be async or not. None: signals are kept again, for who waits for them.
    """
    strand = current("set_signal_handler")
    name = checked_signal(name, "the name of workflow.set_signal_handler")
    if handler is None:
        strand.unhandle("signal", name)
        return
    call = handler

    def handle(completion: Completion) -> Any:
        return call(None if completion.value is None else msgspec.json.decode(completion.value))

    strand.handle("signal", name, handle)


async def wait_condition(predicate: Callable[[], Any], timeout: Duration | None = None) -> None:
    """Wait until `predicate()` is true: it is asked after everything that happens to the workflow.

    Raises TimeoutError after `timeout`.
    """
    future = current("wait_condition").condition(predicate)
    if timeout is None:
        await future
        return
    async with asyncio.timeout(_seconds(timeout, "the timeout of workflow.wait_condition", least=0)):
        await future


def checked_signal(value: Any, what: str) -> str:
    """The id or name of a signal. Raises ConfigError."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{what} must be a text, not {value!r}")
    try:
        return column_text(value, what, LONGEST_SIGNAL, most=LONGEST_ID)
    except MappingError as error:
        raise ConfigError(str(error)) from error


def payload_of(strand: WorkflowStrand, data: Any, what: str) -> Any:
    """A value as the JSON that is stored. Raises PayloadError."""
    return strand.hosted.converter.shape(Any, what).to_json(data)


def _seconds(value: Any, name: str, *, least: float | None) -> float:
    found = seconds_with_unit(value, name=name) if not _is_negative(value) else float(value)
    if least is not None and found < least:
        raise ConfigError(f"{name} must not be negative")
    return min(found, LONGEST_TIME)


def _is_negative(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value < 0


def _nothing(_: Completion) -> None:
    """It is over."""


def _itself(result: SignalResult[Any]) -> SignalResult[Any]:
    return result

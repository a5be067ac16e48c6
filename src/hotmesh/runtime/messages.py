"""What a worker callback receives and returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from hotmesh.core.column import LEAST_CODE, MOST_CODE
from hotmesh.core.definition.grammar import STATUSES
from hotmesh.enums import STATUS_CODES
from hotmesh.errors import ConfigError, PayloadError


class Attributes(dict[str, Any]):
    """A dict whose keys can be read as attributes, too: `metadata.jid` is `metadata["jid"]`."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class StreamMetadata(Attributes):
    """Where a message comes from, see `StreamData`; `trc` and `spn` only if the job has a trace, `try` only after failures."""

    __slots__ = ()

    guid: str
    jid: str
    gid: str
    dad: str
    aid: str
    topic: str
    wfn: str
    app: str
    trc: str
    spn: str


class StreamData(Attributes):
    """The message a worker callback receives.

    `message.data` is the mapped input. `message.metadata` says where it comes from: `guid` (the same at every
    delivery: use it to make side effects idempotent), `jid` (job), `gid` (its generation), `aid` (activity), `dad`
    (its address), `topic`, `wfn` (workflow name), `trc`, `spn` (trace), `try` (retries so far, absent at first).
    Both can also be read as `message["data"]` and `message["metadata"]`.
    """

    __slots__ = ()

    metadata: StreamMetadata
    data: Any

    def __init__(self, metadata: Mapping[str, Any], data: Any) -> None:
        super().__init__(metadata=StreamMetadata(metadata), data=data)


AsyncCallback = Callable[[StreamData], Awaitable[Any]]
"""A callback as it is run: one that blocks has been put into a thread."""


def checked_code(code: Any) -> int:
    """A code from outside: an integer of 32 bits, also as text. Raises ConfigError."""
    number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) < 11 else code
    if isinstance(number, bool) or not isinstance(number, int) or not LEAST_CODE <= number <= MOST_CODE:
        raise ConfigError(f"code must be an integer from {LEAST_CODE} to {MOST_CODE}, not {code!r}")
    return number


def checked_status(status: Any) -> str:
    """The status of an answer or a signal, from outside. Raises ConfigError."""
    if status not in STATUSES:
        raise ConfigError(f"status must be success, pending or error, not {status!r}")
    found: str = status
    return found


class Response:
    """An answer that says more than its data.

    `status` is `success`, `pending` (more answers will come, see `HotMesh.add`) or `error`; `code` selects the
    transitions that follow. `stack` goes with errors.

        return Response({"reason": "card declined"}, code=402)
    """

    __slots__ = ("code", "data", "stack", "status")

    def __init__(
        self, data: Any = None, *, status: str = "success", code: int | None = None, stack: str | None = None
    ) -> None:
        if status not in STATUSES:
            raise ValueError(f"status must be success, pending or error, not {status!r}")
        if code is not None and (isinstance(code, bool) or not isinstance(code, int)):
            raise ValueError(f"code must be an integer, not {code!r}")
        if code is not None and not LEAST_CODE <= code <= MOST_CODE:
            raise ValueError(f"code must be an integer of 32 bits, not {code}")
        self.data = {} if data is None else data
        self.status = status
        self.code = STATUS_CODES[status] if code is None else code
        self.stack = stack


def read_response(result: Any) -> Response:
    """What a callback returned, as a Response. Raises PayloadError for what is none.

    Nothing is `{}`; a dict, dataclass or model is the data; a dict that carries `metadata` with a `guid` (or a job
    id: `jid`) is taken as a full answer with `data`, `status` and `code`.
    """
    if result is None:
        return Response()
    if isinstance(result, Response):
        return result
    if isinstance(result, dict):
        return _from_dict(result)
    if is_dataclass(result) and not isinstance(result, type):
        return Response(asdict(result))
    dump = getattr(result, "model_dump", None)
    if dump is not None and not isinstance(result, type):
        return Response(dump(mode="json"))
    if hasattr(result, "__struct_fields__"):
        return Response(result)
    raise PayloadError(
        f"the callback returned {type(result).__name__}; it must return a dict, a Response or nothing"
    )


def _from_dict(result: dict[str, Any]) -> Response:
    metadata = result.get("metadata")
    full = isinstance(metadata, Mapping) and ("guid" in metadata or "jid" in metadata)
    if not full:
        return Response(result)
    status = result.get("status", "success")
    code = result.get("code")
    data = result.get("data")
    if status not in STATUSES:
        raise PayloadError(f"the callback returned status {status!r}; it must be success, pending or error")
    if isinstance(code, str) and code.isdecimal() and len(code) < 11:
        code = int(code)
    if code is not None and (isinstance(code, bool) or not isinstance(code, int)):
        raise PayloadError(f"the callback returned code {code!r}; it must be an integer")
    if code is None and status == "error" and isinstance(data, Mapping):
        code = data.get("code")
    if isinstance(code, bool) or not isinstance(code, int | None):
        code = None
    return Response(data, status=status, code=code, stack=result.get("stack"))

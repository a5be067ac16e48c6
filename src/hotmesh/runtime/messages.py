"""What a worker callback receives and returns."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, Final

from hotmesh.core.column import LEAST_CODE, MOST_CODE
from hotmesh.core.definition.grammar import STATUSES
from hotmesh.enums import STATUS_CODES
from hotmesh.errors import ConfigError, PayloadError
from hotmesh.runtime.tracebacks import in_short

logger = logging.getLogger("hotmesh.worker")


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

    `message.data` is the mapped input, and the callback's own: what it changes there changes nothing else.
    `message.metadata` says where it comes from: `guid`, `jid` (job), `gid` (its generation), `aid` (activity), `dad`
    (its address), `topic`, `wfn` (workflow name), `trc`, `spn` (trace), `try` (retries so far, absent at first).
    Both can also be read as `message["data"]` and `message["metadata"]`.

        async def charge(message: StreamData) -> dict:
            return await payments.charge(message.data["amount"], idempotency_key=message.idempotency_key)
    """

    __slots__ = ()

    metadata: StreamMetadata
    data: Any

    def __init__(self, metadata: Mapping[str, Any], data: Any) -> None:
        super().__init__(metadata=StreamMetadata(metadata), data=data)

    @property
    def job_id(self) -> str:
        return str(self["metadata"]["jid"])

    @property
    def activity_id(self) -> str:
        return str(self["metadata"]["aid"])

    @property
    def attempt(self) -> int:
        """1, and one more for each attempt that has failed."""
        return int(self["metadata"].get("try", 0)) + 1

    @property
    def idempotency_key(self) -> str:
        """The same at every delivery and attempt, and no other's: by it, whoever is asked twice does it once."""
        return str(self["metadata"]["guid"])


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


class Decided:
    """An answer that is as it will be stored, whatever it is; or an error after which the work is tried again in `retry_after` seconds."""

    __slots__ = ("code", "data", "retry_after", "status")

    def __init__(
        self, data: Any, status: str = "success", code: int = 200, retry_after: float | None = None
    ) -> None:
        self.data = data
        self.status = status
        self.code = code
        self.retry_after = retry_after


def answer_to(message: StreamData, result: Any) -> Response:
    """What a callback returned for a message, as a Response that is nobody else's. Raises PayloadError for what is none.

    Nothing is `{}`; a dict, dataclass or model is the data, whatever is in it. The one exception is a full answer as engines of
    other languages have it: `metadata` of this very message beside `data`, `status`, `code`, `stack`, and nothing else.
    """
    if result is None:
        return Response()
    if isinstance(result, dict):
        metadata = result.get("metadata")
        if isinstance(metadata, Mapping) and ("guid" in metadata or "jid" in metadata):
            return _like_an_answer(message, result, metadata)
        return Response(result)
    if isinstance(result, Response):
        stack = None if result.stack is None else str(result.stack)
        return Response(result.data, status=result.status, code=result.code, stack=stack)
    dump = getattr(result, "model_dump", None)
    if isinstance(result, type):
        raise _no_answer(result)
    if hasattr(result, "__struct_fields__") or is_dataclass(result) or dump is not None:
        return Response(_plain(result))
    raise _no_answer(result)


def _no_answer(result: Any) -> PayloadError:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()  # nobody will ever await it
        return PayloadError(
            f"the callback returned a {type(result).__name__} that was not awaited: await it, in an `async def`"
        )
    return PayloadError(
        f"the callback returned {type(result).__name__}; it must return a dict, a Response or nothing"
    )


def _plain(result: Any) -> Any:
    """A dataclass or model as JSON data, or the same if that is known when it is stored. Raises PayloadError."""
    dump = getattr(result, "model_dump", None)
    try:
        if is_dataclass(result):
            return asdict(result)  # type: ignore[arg-type]  # no class is asked
        return result if dump is None else dump(mode="json")
    except Exception as error:
        raise PayloadError(
            f"the callback returned {type(result).__name__}, which cannot be converted at $: "
            f"{in_short(error)}"
        ) from error


def _like_an_answer(message: StreamData, result: dict[str, Any], metadata: Mapping[str, Any]) -> Response:
    """A result with metadata: the full answer to this message if it is exactly that, else data, of which a warning tells."""
    own = message["metadata"]
    if (
        result.keys() <= _ANSWER
        and result.keys() & _SAYS
        and all(name in metadata and metadata[name] == own[name] for name in ("jid", "gid", "aid", "dad"))
    ):
        return _full_answer(result)
    logger.warning(
        "the result of worker %s (job %s) has metadata and is stored as data, whole; return hotmesh.Response for a status or code",
        own["topic"],
        own["jid"],
        extra={"job_id": own["jid"], "activity_id": own["aid"], "topic": own["topic"]},
    )
    return Response(result)


_ANSWER: Final = frozenset({"type", "metadata", "data", "status", "code", "stack"})
"""What a full answer may have."""

_SAYS: Final = frozenset({"data", "status", "code"})
"""Of which it has something."""


def _full_answer(result: dict[str, Any]) -> Response:
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
    stack = result.get("stack")
    return Response(data, status=status, code=code, stack=None if stack is None else str(stack))

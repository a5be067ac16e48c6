"""What a callback is given, and what becomes of what it returns or raises."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

from msgspec import to_builtins

from hotmesh.core.column import LEAST_CODE, MOST_CODE
from hotmesh.core.state.job import dimension_text
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.enums import Code
from hotmesh.foreign_errors import kind_of, storable, words_of
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.messages import Response, StreamData
from hotmesh.runtime.tracebacks import stack_of, traceback_of, users_only
from hotmesh.runtime.work.worker import Worker, most_attempts

TIMEOUT: Final = Code.TIMEOUT.value

LONGEST_MESSAGE: Final = 20_000
"""Characters of what an error says that are kept."""

LONGEST_STACK: Final = 20_000
"""Characters of a stack trace that are kept, the last ones."""

LONGEST_TYPE: Final = 200
"""Characters of the name of an exception's type that are kept."""


def message_from(work: HeldWork, app_id: str, *, bare: bool = False) -> StreamData:
    """What a callback receives. The guid is that of the request: the same at every delivery. `bare`: without the data."""
    metadata: dict[str, Any] = {
        "guid": f"{work.generation}:{work.activity_id}:{'.'.join(map(str, work.dimension))}",
        "jid": work.job_id,
        "gid": work.generation,
        "dad": dimension_text(work.dimension),
        "aid": work.activity_id,
        "topic": work.topic,
        "wfn": work.workflow_name,
        "app": app_id,
    }
    if work.trace_id is not None:
        metadata["trc"] = work.trace_id
        metadata["spn"] = work.span_id
    if work.attempt:
        metadata["try"] = work.attempt
    # A copy, of all containers in it: what came with a step of this process is also the job's own.
    return StreamData(metadata, None if bare else to_builtins(work.data))


def error_object(response: Response, data: Any, work: HeldWork, policy: RetryPolicy | None) -> dict[str, Any]:
    """The error as the engine keeps it: message, code, stack, error; other fields of the data are dropped.

    What was raised also says its type, and where and at which attempt it was; what was returned without a message, where it was.
    `policy`: that of the worker.
    """
    given = data if isinstance(data, dict) else {}
    code = response.code if response.code != 200 else given.get("code", 500)
    if isinstance(code, str) and re.fullmatch("[0-9]{1,9}", code):
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int):
        code = 500
    if not LEAST_CODE <= code <= MOST_CODE:
        code = 500
    message = str(given.get("message") or "unknown")[:LONGEST_MESSAGE]
    found: dict[str, Any] = {"message": message, "code": code}
    stack = response.stack if response.stack is not None else given.get("stack")
    if stack is not None:
        found["stack"] = storable(str(stack))[-LONGEST_STACK:]
    if isinstance(response, Failure):
        found |= {
            "type": response.type,
            "activity": work.activity_id,
            "topic": work.topic,
            "job_id": work.job_id,
            "attempt": work.attempt + 1,
            "attempts": max(work.attempt + 1, most_attempts(policy, work, code)),
        }
    elif not given.get("message"):
        found |= {"activity": work.activity_id, "topic": work.topic}
    if isinstance(given.get("error"), dict):
        found["error"] = given["error"]
    return found


class Failure(Response):
    """The answer of a callback that raised. `type` is the name of the exception's class."""

    __slots__ = ("type",)

    def __init__(self, message: str, code: int, kind: str, stack: str | None = None) -> None:
        super().__init__({"message": message, "code": code}, status="error", code=code, stack=stack)
        self.type = kind


def raised(error: BaseException) -> Response:
    """The answer of a callback that has raised this; its traceback has the frames of users from now on, and no others."""
    kind = kind_of(error)[:LONGEST_TYPE]
    words = words_of(error, LONGEST_MESSAGE)
    message = f"the callback raised SystemExit({words})" if type(error) is SystemExit else words or kind
    stack = storable(stack_of(users_only(error)))[-LONGEST_STACK:]
    return Failure(message, _code_of(error), kind, stack)


def _code_of(error: BaseException) -> int:
    """That of the exception, if it has one that is a code."""
    if type(error) is SystemExit:
        return 500
    with suppress(BaseException):  # even that is the users' code
        code = getattr(error, "code", None)
        if type(code) is int and LEAST_CODE <= code <= MOST_CODE:
            return code
    return 500


def timed_out(worker: Worker, limit: float, error: BaseException | None) -> tuple[Response, TimeoutError]:
    """The outcome of a callback that was cut off, and the error to log, with the place where it was (`error`)."""
    message = f"the callback of worker {worker.topic} did not return within {limit:g} s"
    response = Failure(message, TIMEOUT, "TimeoutError")
    return response, TimeoutError(message).with_traceback(None if error is None else traceback_of(error))

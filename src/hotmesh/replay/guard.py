"""Clock, random numbers, files, sockets and threads, refused while code of a workflow runs in this thread.

Two nets: functions of the standard library whose result no replay would see again are replaced by ones that ask who calls
them; and an audit hook sees what reaches the operating system, through whatever library. What the standard library does
itself (a log's time, an import, the source lines of a traceback) is none of the workflow's affair. `datetime.now()` cannot
be replaced, as it is a method of a C type: `hotmesh.durable.clocks` finds it in the code of workflow functions.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from hotmesh.durable_errors import NotAllowedInWorkflowError
from hotmesh.replay.refusals import STEP
from hotmesh.replay.tasks import running_strand

_CLOCK: Final = "Use `workflow.now()`."
_RANDOM: Final = "Use `workflow.random()`."
_UUID: Final = "Use `workflow.uuid4()`."
_SLEEP: Final = "Use `await asyncio.sleep(…)`: in a workflow that is a durable timer."
_SLEEPS: Final = "it holds up everything else in the process"

REPLACED: Final = {
    "time": {"time": _CLOCK, "time_ns": _CLOCK, "localtime": _CLOCK, "gmtime": _CLOCK, "sleep": _SLEEP},
    "random": dict.fromkeys(
        ("random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform", "getrandbits", "gauss", "randbytes"),
        _RANDOM,
    ),
    "secrets": dict.fromkeys(("token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice"), _RANDOM),
    "uuid": {"uuid1": _UUID, "uuid4": _UUID},
    "os": {"urandom": _RANDOM},
}  # fmt: skip
"""Module → function → what to use instead."""

WATCHED: Final = frozenset(
    {
        "open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.system", "os.exec", "os.fork",
        "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto",
        "socket.gethostbyname", "sqlite3.connect", "_thread.start_new_thread", "_thread.start_joinable_thread", "os.putenv",
        "time.sleep",
    }
)  # fmt: skip
"""Audit events that are refused."""

_ITS_OWN: Final = frozenset({"importlib", "linecache", "tokenize", "logging", "traceback", "warnings", "zipimport", "_frozen_importlib", "_frozen_importlib_external", "encodings", "zoneinfo"})  # fmt: skip
"""Modules of the standard library that read files, or start threads, for the code and not at its wish."""

_installed: list[bool] = []


def guard() -> None:
    """Put the guard up, once for the process: an audit hook cannot be taken away. Outside of workflows nothing changes."""
    if _installed:
        return
    _installed.append(True)
    for name, functions in REPLACED.items():
        module = importlib.import_module(name)
        for function, use in functions.items():
            setattr(module, function, _guarded(getattr(module, function), f"{name}.{function}()", use))
    sys.addaudithook(_audit)


def _guarded(function: Callable[..., Any], what: str, use: str) -> Callable[..., Any]:
    own = sys.stdlib_module_names

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if running_strand() is not None and (
            str(sys._getframe(1).f_globals.get("__name__")).partition(".")[0] not in own
        ):
            raise NotAllowedInWorkflowError(what, use, *([_SLEEPS] if use is _SLEEP else []))
        return function(*args, **kwargs)

    return guarded


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in WATCHED and running_strand() is not None:
        frame: Any = sys._getframe(1)
        while frame:
            if str(frame.f_globals.get("__name__")).partition(".")[0] in _ITS_OWN:
                return
            frame = frame.f_back
        if event == "time.sleep":
            raise NotAllowedInWorkflowError("time.sleep()", _SLEEP, _SLEEPS)
        told = f"({args[0][:80]!r})" if args and isinstance(args[0], str) else ""
        raise NotAllowedInWorkflowError(f"{event}{told}", STEP)

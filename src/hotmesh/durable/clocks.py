"""Clocks, sleeps and random numbers that a workflow function calls by name: found in its code, when it is decorated.

What `hotmesh.replay.guard` cannot refuse while a workflow runs: methods of C types (`datetime.now`), functions that every
loop needs (`time.monotonic`), and those that were imported by name before the guard was put up (`from random import randint`).
Only the function itself is looked at, not what it calls.
"""

from __future__ import annotations

import dis
import random
import time
import types
import uuid
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Final

from hotmesh.errors import ConfigError

_NOW: Final = "workflow.now()"
_RANDOM: Final = "workflow.random(), or workflow.random_generator() for other kinds"
_UUID: Final = "workflow.uuid4()"

_METHODS: Final = {
    (datetime, "now"): _NOW,
    (datetime, "utcnow"): _NOW,
    (datetime, "today"): _NOW,
    (date, "today"): f"{_NOW}.date()",
}
_FUNCTIONS: Final[dict[Any, str]] = {
    time.time: _NOW,
    time.time_ns: _NOW,
    time.monotonic: _NOW,
    time.monotonic_ns: _NOW,
    time.perf_counter: _NOW,
    time.perf_counter_ns: _NOW,
    time.sleep: "`await asyncio.sleep(…)`, in a workflow a durable timer",
    random.random: _RANDOM,
    random.randint: _RANDOM,
    random.randrange: _RANDOM,
    random.choice: _RANDOM,
    random.choices: _RANDOM,
    random.sample: _RANDOM,
    random.shuffle: _RANDOM,
    random.uniform: _RANDOM,
    uuid.uuid1: _UUID,
    uuid.uuid4: _UUID,
}
_KINDS: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_ATTRIBUTE: Final = ("LOAD_ATTR", "LOAD_METHOD")


def check_clocks(function: Any, name: str) -> None:
    """Raises ConfigError that names the line, and what to use instead."""
    if not isinstance(function, types.FunctionType):
        return
    for called, use, line in _calls(function):
        raise ConfigError(
            f"workflow {name} calls {called}() ({function.__code__.co_filename}:{line}), which a workflow must not, as it is "
            f"replayed from what is recorded: use {use}"
        )


def _calls(function: types.FunctionType) -> Iterator[tuple[str, str, int]]:
    """What is called of them: its name as written, what to use instead, the line."""
    code = list(dis.get_instructions(function))
    line = function.__code__.co_firstlineno
    for place, instruction in enumerate(code):
        line = (instruction.positions and instruction.positions.lineno) or line
        if instruction.opname != "LOAD_GLOBAL":
            continue
        owner: Any = None
        value: Any = function.__globals__.get(instruction.argval)
        words, attribute = instruction.argval, ""
        is_call = "NULL" in instruction.argrepr
        after = place + 1
        while code[after].opname in _ATTRIBUTE and isinstance(value, types.ModuleType | type):
            attribute = code[after].argval
            owner, value = value, getattr(value, attribute, None)
            words = f"{words}.{attribute}"
            is_call = is_call or "NULL" in code[after].argrepr or code[after].opname == "LOAD_METHOD"
            after += 1
        if is_call or code[after].opname == "PUSH_NULL":
            use = _use(owner, attribute, value)
            if use is not None:
                yield words, use, line


def _use(owner: Any, attribute: str, value: Any) -> str | None:
    if isinstance(owner, type):
        return next(
            (use for (kind, name), use in _METHODS.items() if name == attribute and issubclass(owner, kind)),
            None,
        )
    value = getattr(value, "__wrapped__", value)
    return _FUNCTIONS.get(value) if isinstance(value, _KINDS) else None

"""Lets a thread of ours pass as one of anyio's, so that `anyio.from_thread` works in plain functions of users.

anyio knows its own threads, which are no daemons: one that never returns would keep the process alive. For others it has no public
way but a token that the user would have to bring along. So this module, and no other, uses names of anyio that are not public. Where
a release has them no more, plain functions run as before; only `anyio.from_thread` says inside of them that it needs a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import Any

import anyio

backend: Any = None
core: Any = None
with suppress(ImportError):
    backend = import_module("anyio._backends._asyncio")
    core = import_module("anyio._core._eventloop")


@contextmanager
def belonging_to(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """In here, in this thread, `anyio.from_thread.run` and `run_sync` go to this event loop."""
    with ExitStack() as stack:
        with suppress(Exception):
            stack.enter_context(core.claim_worker_thread(backend.AsyncIOBackend, loop))
        yield


@contextmanager
def cut_off_with(scope: anyio.CancelScope) -> Iterator[None]:
    """In here, in this thread, `anyio.from_thread.check_cancelled` raises once the scope is cancelled."""
    threadlocals: Any = getattr(core, "threadlocals", None)
    if threadlocals is None:
        yield
        return
    threadlocals.current_cancel_scope = scope
    try:
        yield
    finally:
        del threadlocals.current_cancel_scope

"""What an event loop can do, and a strand must not: each says what to use instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NoReturn

from hotmesh.durable_errors import NotAllowedInWorkflowError

STEP: Final = "Do it in a step: `await workflow.step(function, …)`, or an activity."
_LOOP: Final = "A workflow is run by its worker; await what it should wait for."

REFUSED: Final = {
    "run_in_executor": "Threads know no order. " + STEP,
    "set_default_executor": "Threads know no order. " + STEP,
    "call_soon_threadsafe": "Nothing outside may call into a workflow: send it a signal (`handle.signal`).",
    **dict.fromkeys(("run_forever", "run_until_complete", "stop", "close"), _LOOP),
    **dict.fromkeys(("shutdown_default_executor", "set_task_factory", "add_signal_handler", "remove_signal_handler"), _LOOP),
    **dict.fromkeys(
        (
            "getaddrinfo", "getnameinfo", "create_connection", "create_server", "sendfile", "start_tls",
            "create_unix_connection", "create_unix_server", "connect_accepted_socket", "create_datagram_endpoint",
            "connect_read_pipe", "connect_write_pipe", "subprocess_shell", "subprocess_exec", "add_reader",
            "remove_reader", "add_writer", "remove_writer", "sock_recv", "sock_recv_into", "sock_recvfrom",
            "sock_recvfrom_into", "sock_sendall", "sock_sendto", "sock_connect", "sock_accept", "sock_sendfile",
        ),
        STEP,
    ),
}  # fmt: skip
"""Method of the loop → what to do instead."""


def explained(error: BaseException) -> BaseException:
    """The error that a workflow ended with; what asyncio says of futures of another loop, in words that help."""
    if type(error) is not RuntimeError or not any(words in str(error) for words in _FOREIGN):
        return error
    found = NotAllowedInWorkflowError(
        "to wait for something of another event loop (a connection, a client, a future of the process)",
        STEP,
        "a workflow has a loop of its own, that only knows what is recorded",
    )
    found.__cause__ = error
    return found


_FOREIGN: Final = ("attached to a different loop", "is bound to a different event loop")


def _refusing(name: str, use: str) -> Callable[..., NoReturn]:
    what = f"asyncio's loop.{name}()"
    if name == "run_in_executor":
        what = "asyncio.to_thread() or loop.run_in_executor()"

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotAllowedInWorkflowError(what, use)

    refuse.__name__ = name
    return refuse


Refusing: Any = type(
    "Refusing", (asyncio.AbstractEventLoop,), {name: _refusing(name, use) for name, use in REFUSED.items()}
)
"""An event loop that refuses everything a workflow must not do."""

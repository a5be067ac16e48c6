"""The bus: how a member sends messages to the others, and hears theirs.

Members talk by NOTIFY: on the channel of the app, which all hear, or on that of one member. On the wire a message is
`{"q": message, "to": target}`; one that is too large for a notification is a row of `quorum_message` for a minute, sent as
its number, `{"qr": number}`, and read by each who hears that.

Nothing here is needed for correctness. What has to be kept is a row of its own, and committed together with the message about
it (`mesh.set_throttle`, `mesh.activate_version`), so that whoever misses the message finds the row: at the start, after each
reconnect, or with the next commit. A message that is lost is made up for by whoever waits for it: who asks, asks again or goes
on without the answer. A crash leaves nothing but rows of `quorum_message` whose minute passes, and the session that ends.

Whoever may send to the database's channels may send anything; so a message that cannot be read or handled is logged, and ends
nothing but itself. Types and fields that are not known are those of another release.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from anyio.abc import TaskGroup
from msgspec import to_builtins

from hotmesh.core.wire import dumps_text, loads, normalise
from hotmesh.errors import ConfigError, DatabaseError
from hotmesh.postgres.database import Database
from hotmesh.postgres.members import publish, stored_message
from hotmesh.runtime.apart import call_apart
from hotmesh.runtime.members.listener import Listener, member_channel
from hotmesh.runtime.members.messages import Heard, QuorumMessage, checked_message, read_message
from hotmesh.runtime.service import Flag
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.tracebacks import loggable

logger = logging.getLogger("hotmesh.quorum")

QuorumSubscriber = Callable[[str, dict[str, Any]], Awaitable[None] | None]
"""Called with the channel, as it is told to users, and the message."""


class Bus:
    """What one member says and hears. `run` starts its loop; `handle` gets the messages that say something to a member."""

    def __init__(
        self,
        database: Database,
        guid: str,
        settings: Settings,
        listener: Listener,
        handle: Callable[[Heard], None],
    ) -> None:
        self._database = database
        self._guid = guid
        self._settings = settings
        self._listener = listener
        self._handle = handle
        self._subscribers: list[QuorumSubscriber] = []
        self._calls: list[tuple[QuorumSubscriber, str, dict[str, Any]]] = []
        self._called = Flag()
        self._tasks: TaskGroup | None = None

    async def run(self, tasks: TaskGroup) -> None:
        """Start what calls the subscribers; from now on, messages are answered."""
        self._tasks = tasks
        tasks.start_soon(self._call_loop, name="call quorum subscribers")

    # -- sending -----------------------------------------------------------------------------------------

    async def publish(self, message: Mapping[str, Any]) -> None:
        """Send a user's message to the member of its `guid`, else to everybody. Raises ConfigError, PayloadError."""
        given = checked_message(message)
        kind = given["type"]
        if kind in ("ping", "duress"):
            given = {"originator": self._guid, **given}
        plain = normalise(given, limit=self._settings.max_payload, what=f"a quorum message of type {kind}")
        try:
            read_message(plain)
        except ValueError as error:
            raise ConfigError(f"no member could use this message of type {kind}: {error}") from None
        await self._send([(_target(plain), plain)], self._settings.notify_limit)

    async def send(self, target: str, messages: Sequence[QuorumMessage], *, stored: bool = False) -> None:
        """Send messages of this member's own to a topic, a member, or everybody (empty); `stored`: all of them as rows."""
        limit = 0 if stored else self._settings.notify_limit
        await self._send([(target, to_builtins(message)) for message in messages], limit)

    async def _send(self, messages: Sequence[tuple[str, dict[str, Any]]], limit: int) -> None:
        channel = self._listener.channel
        await publish(
            self._database,
            [
                (
                    # A message to a topic goes to all; who has no worker on it only shows it to subscribers.
                    member_channel(channel, target) if _is_for_one(message) else channel,
                    dumps_text(envelope(target, message)),
                )
                for target, message in messages
            ],
            limit,
        )

    # -- hearing -----------------------------------------------------------------------------------------

    def on_message(self, notice: dict[str, Any]) -> None:
        """A message has come, or the number of one that was too large to be sent."""
        if "qr" in notice:
            self.start(self._fetch, notice["qr"])
            return
        message = notice["q"]
        if not isinstance(message, dict):
            return
        if self._subscribers:
            self._show(str(notice.get("to", "")), message)
        try:
            heard = read_message(message)
            if heard is not None:
                self._handle(heard)
        except Exception as error:
            # It came from outside, and may be anything.
            logger.warning(
                "quorum message cannot be used", extra={"type": message.get("type")}, exc_info=error
            )

    async def _fetch(self, number: int) -> None:
        text = await stored_message(self._database, number)
        if text is None:
            logger.warning("quorum message is gone", extra={"number": number})
        else:
            self.on_message(loads(text))

    def start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Do something about a message, in a task of its own."""
        if self._tasks is not None:
            self._tasks.start_soon(self._guarded, function, *arguments)

    async def _guarded(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Messages are hints: one that cannot be handled ends nothing but itself."""
        try:
            await function(*arguments)
        except DatabaseError as error:
            logger.warning("quorum message could not be handled", extra={"error": str(error)})
        except Exception as error:
            logger.error("quorum message could not be handled", exc_info=error)

    # -- subscribers -------------------------------------------------------------------------------------

    def subscribe(self, callback: QuorumSubscriber) -> None:
        """Call the callback for every message that reaches this member."""
        self._subscribers.append(callback)

    def unsubscribe(self, callback: QuorumSubscriber) -> None:
        """Call it no more; it may be called for what has come before."""
        # Not by identity: each look at a method makes another object of it.
        self._subscribers = [known for known in self._subscribers if known != callback]

    def _show(self, target: str, message: dict[str, Any]) -> None:
        channel = f"{self._database.schema}:{self._database.app_id}:q:{target}"
        self._calls += [(callback, channel, message) for callback in self._subscribers]
        self._called.set()

    async def _call_loop(self) -> None:
        while True:
            await self._called.take()
            calls, self._calls = self._calls, []
            for callback, channel, message in calls:
                # Each gets a message of its own, in a task and a context of its own.
                error = await call_apart(
                    callback,
                    channel,
                    to_builtins(message),
                    what="a quorum subscriber",
                    cleaning_up=self._settings.cleaning_up,
                )
                if error is not None:
                    logger.error(
                        "quorum subscriber raised",
                        extra={"type": message.get("type")},
                        exc_info=loggable(error),
                    )


def envelope(target: str, message: Mapping[str, Any] | QuorumMessage) -> dict[str, Any]:
    """A message as it travels, to whom it is for: a topic, a member, or everybody (empty)."""
    return {"q": message, "to": target}


def _target(message: Mapping[str, Any]) -> str:
    """Whom a user's message is for."""
    if message.get("type") == "user":
        return ""
    return str(message.get("topic") or message.get("guid") or "")


def _is_for_one(message: Mapping[str, Any]) -> bool:
    """Whether only one member has to hear it."""
    if message.get("type") == "pong":
        return message.get("originator") is not None
    return message.get("guid") is not None and message.get("type") != "user" and not message.get("topic")

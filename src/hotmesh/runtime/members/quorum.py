"""The members of a mesh among each other: roll calls, rates, duress, activations, and messages of users.

Members talk by NOTIFY: on the channel of the app, which all hear, or on that of one member. A message is an object with a
`type`:

    ping       who is there? `originator` says whom to answer; with `details.activate`, who can run that version? With
               `details.stored`, the answer is to be a row, because who asks hears nothing
    pong       an answer to a ping, with a `profile`; or, without an originator, part of a roll call that repeats
    throttle   a rate, see `throttle`
    rollcall   tell your profile to everybody, again and again
    activate   a version has become the active one
    duress     an engine does badly, see `duress`
    user       anything, for the callbacks of `sub_quorum`

Nothing here is needed for correctness: what has to be kept is a row, and a message that is lost is made up for. Who is
there at a moment is known without messages: each listening connection holds an advisory lock as long as it lives.
"""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.arguments import checked_mapping
from hotmesh.core.duration import seconds
from hotmesh.core.wire import dumps_text, loads, normalise
from hotmesh.errors import ConfigError, DatabaseError
from hotmesh.postgres.members import (
    live_members,
    publish,
    read_rates,
    store_rate,
    stored_answers,
    stored_message,
    stream_depths,
)
from hotmesh.runtime import ids
from hotmesh.runtime.members.listener import Listener, member_channel
from hotmesh.runtime.members.profile import Profiles, QuorumProfile
from hotmesh.runtime.members.rates import SCOPES, Throttles, checked_rate, message_for

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store
    from hotmesh.runtime.definitions.plans import Plans
    from hotmesh.runtime.engine.engine import Engine
    from hotmesh.runtime.settings import Settings
    from hotmesh.runtime.work.workers import Workers

logger = logging.getLogger("hotmesh.quorum")

Message = dict[str, Any]

QuorumSubscriber = Callable[[str, Message], Awaitable[None] | None]

TYPES: Final = frozenset(
    {"ping", "pong", "activate", "throttle", "rollcall", "work", "cron", "job", "duress", "user"}
)

ROLL_CALL_CYCLES: Final = 12
"""How often a member repeats its profile for a roll call that does not say."""

RECOUNT: Final = 0.25
"""Seconds after which who waits for answers looks again who is there."""


class Ballot:
    """The answers to one question. `changed` is set whenever there is a new one."""

    def __init__(self) -> None:
        self.profiles: list[QuorumProfile] = []
        self.answers: dict[int, Message] = {}
        """By session, of the members that have answered in full."""
        self.changed = anyio.Event()
        self._parts: dict[int, int] = {}

    def count(self, message: Message) -> None:
        session = message["session"]
        if message.get("profile") is not None:
            self.profiles.append(QuorumProfile(message["profile"]))
        self._parts[session] = self._parts.get(session, 0) + 1
        if self._parts[session] >= message.get("parts", 1):
            self.answers[session] = message
        self.changed.set()

    async def wait(self, sessions: Collection[int], limit: float) -> None:
        """Wait until all of these have answered, at most `limit` seconds."""
        with anyio.move_on_after(limit):
            while not self.answers.keys() >= set(sessions):
                self.changed = anyio.Event()
                await self.changed.wait()


class Quorum:
    """One member of the mesh. `run` starts its loops in the instance's task group."""

    def __init__(
        self,
        store: Store,
        guid: str,
        settings: Settings,
        plans: Plans,
        listener: Listener,
        engine: Engine | None,
        workers: Workers,
    ) -> None:
        self._store = store
        self._guid = guid
        self._settings = settings
        self._plans = plans
        self._listener = listener
        self._engine = engine
        self._workers = workers
        self._profiles = Profiles(store.schema, store.app_id, guid, settings, engine, workers)
        self._throttles = Throttles(store, guid, self._rates_changed)
        self._rates_to_read = anyio.Event()
        self._subscribers: list[QuorumSubscriber] = []
        self._calls: list[tuple[QuorumSubscriber, str, Message]] = []
        self._called = anyio.Event()
        self._ballots: dict[str, Ballot] = {}
        self._repeating: dict[str | None, anyio.CancelScope] = {}
        self._tasks: TaskGroup | None = None
        self._followers: list[Quorum] = []
        if engine is not None:
            engine.duress.notify = self._tell_duress

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Read the rates, so that nothing is consumed before, and start the loops."""
        self._tasks = tasks
        self._rates_to_read = anyio.Event()
        await self._throttles.read()
        tasks.start_soon(self._follow_rates, name="follow rates")
        tasks.start_soon(self._call_loop, name="call quorum subscribers")

    def followed_by(self, follower: Quorum) -> None:
        """Whatever slows this member slows that one, too."""
        self._followers.append(follower)

    def connected(self) -> None:
        """Listening (again): rates may have changed meanwhile."""
        self._rates_to_read.set()

    # -- roll call ---------------------------------------------------------------------------------------

    async def roll_call(self, delay: float) -> list[QuorumProfile]:
        """The profiles of all members that answer within `delay` seconds; sooner if all who are there have."""
        own = await self._profiles.all()
        ballot, question = self._ask()
        try:
            live = await live_members(self._store)
            await self.publish({"type": "ping", "originator": self._guid, "details": {"ballot": question}})
            await ballot.wait(live.all - {self._listener.session}, delay)
        finally:
            del self._ballots[question]
        found = own + [profile for profile in ballot.profiles if profile["engine_id"] != self._guid]
        await self._add_depths(found)
        return found

    async def _add_depths(self, profiles: list[QuorumProfile]) -> None:
        topics = {profile["worker_topic"] for profile in profiles if "worker_topic" in profile}
        events, work = await stream_depths(self._store, topics)
        for profile in profiles:
            topic = profile.get("worker_topic")
            profile["stream_depth"] = events if topic is None else work.get(topic, 0)

    def _ask(self) -> tuple[Ballot, str]:
        question = ids.guid()
        ballot = self._ballots[question] = Ballot()
        return ballot, question

    async def _answer(self, ping: Message) -> None:
        details = ping.get("details") or {}
        version = details.get("activate")
        if version is None:
            answers: list[Message] = [{"profile": profile} for profile in await self._profiles.all()]
        elif self._engine is None:
            return
        else:
            answers = [{"details": await self._prepare(str(version))}]
        session = self._listener.session
        if session is None:
            return  # not a member at this moment; whoever asks knows that
        originator = str(ping["originator"])
        answers = answers or [{}]
        for answer in answers:
            answer |= {
                "type": "pong",
                "guid": self._guid,
                "originator": originator,
                "session": session,
                "parts": len(answers),
                "ballot": details.get("ballot"),
            }
        # Who asks for that hears nothing.
        limit = 0 if details.get("stored") else self._settings.notify_limit
        await self._send([(originator, answer) for answer in answers], limit)

    async def _prepare(self, version: str) -> Message:
        """Load and compile a version that is to be activated; an answer that says how that went."""
        try:
            return {"version": version, "checksum": await self._plans.prepare(version)}
        except DatabaseError:
            raise
        except Exception as error:
            logger.error("version cannot be loaded", extra={"version": version}, exc_info=error)
            return {"version": version, "error": f"{type(error).__name__}: {error}"[:2_000]}

    # -- activation --------------------------------------------------------------------------------------

    @property
    def guid(self) -> str:
        return self._guid

    async def other_engines(self) -> frozenset[int]:
        """The sessions of the other engines that listen now."""
        return (await live_members(self._store)).engines - {self._listener.session or 0}

    async def poll_engines(self, version: str, delays: Collection[float]) -> list[Message]:
        """Ask every other engine to load a version; the answers of those that gave one.

        Asks again after each delay, also those that have come meanwhile, until all who are there have answered. Who is
        there but does not answer in all that time is away, and sees the epoch when it comes back. A member that hears
        nothing asks for answers that are stored, and looks for them.
        """
        ballot, question = self._ask()
        missing: frozenset[int] = frozenset()
        try:
            for delay in delays:
                stored = self._listener.session is None
                details = {"ballot": question, "activate": version, "stored": stored}
                await self.publish({"type": "ping", "originator": self._guid, "details": details})
                until = anyio.current_time() + delay
                while True:
                    if stored:
                        for answer in await stored_answers(self._store, question):
                            ballot.count(loads(answer)["q"])
                    missing = await self.other_engines() - ballot.answers.keys()
                    if not missing:
                        return list(ballot.answers.values())
                    left = until - anyio.current_time()
                    if left <= 0:
                        break
                    # Not all of the time at once: one of them may be gone by now.
                    await ballot.wait(missing, min(left, RECOUNT))
        finally:
            del self._ballots[question]
        logger.warning(
            "members did not answer before an activation",
            extra={"app_id": self._store.app_id, "version": version, "sessions": sorted(missing)},
        )
        return list(ballot.answers.values())

    # -- rates -------------------------------------------------------------------------------------------

    async def throttle(self, rate: int, guid: str | None, topic: str | None, scope: str) -> bool:
        """Set a rate; of one member as long as it lives, of all durably. Raises ConfigError."""
        message = message_for(rate, guid, topic, scope)
        if guid is not None:
            await self.publish(message)
            return True
        scopes = SCOPES["workers" if topic is not None else scope]
        text = self._wire("" if topic is None else topic, message | {"stored": True})
        await store_rate(self._store, scopes, topic, rate, text)
        # This process need not wait for its own message.
        self._throttles.on_message(message | {"stored": True})
        await self._throttles.read()
        logger.info("rate stored", extra={"rate": rate, "topic": topic, "scope": scope})
        return True

    async def stored_rate(self, topic: str | None, scope: str) -> int:
        """The stored rate of workers of a topic, of all workers, or of engines."""
        if scope not in ("engines", "workers"):
            raise ConfigError(f"scope must be engines or workers, not {scope!r}")
        rates = await read_rates(self._store)
        if scope == "engines":
            return rates.engines
        return rates.workers if topic is None else rates.topics.get(topic, rates.workers)

    def _rates_changed(self) -> None:
        if self._engine is not None:
            self._engine.set_rate(self._throttles.engine)
        self._workers.apply_rates(self._throttles.worker)

    async def _follow_rates(self) -> None:
        delay = 0.1
        while True:
            # Who hears nothing has to look.
            with anyio.move_on_after(math.inf if self._listener.hears else self._settings.poll):
                await self._rates_to_read.wait()
            self._rates_to_read = anyio.Event()
            try:
                await self._throttles.read()
                delay = 0.1
            except DatabaseError as error:
                logger.warning("rates could not be read", extra={"error": str(error)})
                self._rates_to_read.set()
                await anyio.sleep(delay)
                delay = min(delay * 2, self._settings.reconnect_max)

    # -- duress ------------------------------------------------------------------------------------------

    def _tell_duress(self, message: Message) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._guarded, self.publish, message)

    # -- messages ----------------------------------------------------------------------------------------

    def subscribe(self, callback: QuorumSubscriber) -> None:
        self._subscribers.append(callback)

    def unsubscribe(self, callback: QuorumSubscriber) -> None:
        # Not by identity: each look at a method makes another object of it.
        self._subscribers = [known for known in self._subscribers if known != callback]

    async def publish(self, message: Mapping[str, Any]) -> None:
        """Send a message to the member of its `guid`, else to everybody. Raises ConfigError, PayloadError."""
        message = checked_mapping(message, "message")
        kind = message.get("type")
        if not isinstance(kind, str) or kind not in TYPES:
            raise ConfigError(
                f"a quorum message needs a type, one of {', '.join(sorted(TYPES))}; it was {kind!r}"
            )
        if kind == "throttle":
            checked_rate(message.get("throttle"))
            if str(message.get("scope", "all")) not in SCOPES:
                raise ConfigError(f"scope must be one of {', '.join(SCOPES)}, not {message['scope']!r}")
        if kind == "rollcall":
            interval = seconds(message.get("interval") or 0, name="interval of a roll call")
            message = {**message, "interval": interval}
            most = message.get("max")
            if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
                raise ConfigError(f"max of a roll call must be an integer of at least 1, not {most!r}")
        given = {"originator": self._guid, **message} if kind in ("ping", "duress") else dict(message)
        plain = normalise(given, limit=self._settings.max_payload, what=f"a quorum message of type {kind}")
        await self._send([(_target(plain), plain)], self._settings.notify_limit)

    async def _send(self, messages: list[tuple[str, Message]], limit: int) -> None:
        channel = self._listener.channel
        await publish(
            self._store,
            [
                (
                    # A message to a topic goes to all; who has no worker on it only shows it to subscribers.
                    member_channel(channel, target) if _is_for_one(message) else channel,
                    self._wire(target, message),
                )
                for target, message in messages
            ],
            limit,
        )

    def _wire(self, target: str, message: Message) -> str:
        return dumps_text({"q": message, "to": target})

    def on_message(self, notice: dict[str, Any]) -> None:
        """A message has come, or the number of one that was too large to be sent."""
        if "qr" in notice:
            self._start(self._fetch, notice["qr"])
            return
        message = notice["q"]
        if not isinstance(message, dict):
            return
        target = str(notice.get("to", ""))
        if self._subscribers:
            channel = f"{self._store.schema}:{self._store.app_id}:q:{target}"
            self._calls += [(callback, channel, dict(message)) for callback in self._subscribers]
            self._called.set()
        try:
            self._take(message)
        except Exception as error:
            # It came from outside, and may be anything.
            logger.warning(
                "quorum message cannot be used", extra={"type": message.get("type")}, exc_info=error
            )

    def _take(self, message: Message) -> None:
        match message.get("type"):
            case "ping":
                # Its own questions a member answers itself.
                if (message.get("details") or {}).get("ballot") not in self._ballots:
                    self._start(self._answer, message)
            case "pong":
                ballot = self._ballots.get(message.get("ballot") or "")
                if ballot is not None:
                    ballot.count(message)
            case "throttle":
                if message.get("guid") == self._guid:
                    for follower in self._followers:
                        follower._take(message | {"guid": follower.guid})
                if self._throttles.on_message(message):
                    self._rates_to_read.set()
            case "rollcall":
                self._start_roll_call(message)
            case "duress":
                if message.get("originator") != self._guid and self._engine is not None:
                    self._engine.on_duress(message)
            case _:
                """Of no interest to a member itself."""

    async def _fetch(self, number: int) -> None:
        text = await stored_message(self._store, number)
        if text is None:
            logger.warning("quorum message is gone", extra={"number": number})
        else:
            self.on_message(loads(text))

    async def _call_loop(self) -> None:
        while True:
            if not self._calls:
                self._called = anyio.Event()
                await self._called.wait()
            calls, self._calls = self._calls, []
            for callback, channel, message in calls:
                try:
                    result = callback(channel, message)
                    if inspect.isawaitable(result):
                        await result
                except Exception as error:
                    logger.error(
                        "quorum subscriber raised", extra={"type": message.get("type")}, exc_info=error
                    )

    # -- repeated roll calls -----------------------------------------------------------------------------

    def _start_roll_call(self, message: Message) -> None:
        guid, topic = message.get("guid"), message.get("topic")
        if guid is not None and guid != self._guid:
            return
        interval, most = float(message.get("interval") or 0), int(message.get("max") or ROLL_CALL_CYCLES)
        if not interval > 0:
            most = 1
        if topic is None and self._engine is not None:
            self._start(self._repeat, None, self._profiles.of_engine, interval, most)
        if topic is not None or "topic" not in message:
            signature = bool(message.get("signature"))

            async def workers() -> list[QuorumProfile]:
                return await self._profiles.of_workers(topic, signature=signature)

            self._start(self._repeat, topic or "", workers, interval, most)

    async def _repeat(
        self,
        who: str | None,
        profiles: Callable[[], Awaitable[list[QuorumProfile]]],
        interval: float,
        most: int,
    ) -> None:
        """Tell profiles to everybody, at random moments, so that not all members speak at once."""
        earlier = self._repeating.pop(who, None)
        if earlier is not None:
            earlier.cancel()
        with anyio.CancelScope() as scope:
            self._repeating[who] = scope
            try:
                await anyio.sleep(random.random())  # noqa: S311 - no secret
                for cycle in range(most):
                    if cycle:
                        await anyio.sleep(random.uniform(interval / 2, interval))  # noqa: S311 - no secret
                    found = await profiles()
                    await self._add_depths(found)
                    for profile in found:
                        pong = {
                            "type": "pong",
                            "guid": self._guid,
                            "originator": None,
                            "profile": profile,
                        }
                        await self._send([("", pong)], self._settings.notify_limit)
            finally:
                if self._repeating.get(who) is scope:
                    del self._repeating[who]

    # -- tasks -------------------------------------------------------------------------------------------

    def _start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
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


def _target(message: Mapping[str, Any]) -> str:
    """Whom a message is for: a topic, a member, or everybody (empty)."""
    if message.get("type") == "user":
        return ""
    return str(message.get("topic") or message.get("guid") or "")


def _is_for_one(message: Mapping[str, Any]) -> bool:
    """Whether only one member has to hear it."""
    if message.get("type") == "pong":
        return message.get("originator") is not None
    return message.get("guid") is not None and message.get("type") != "user" and not message.get("topic")

"""`Virtual`: the static methods. They share instances of `HotMesh`, which `shutdown` stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from hotmesh.core.arguments import checked_mapping, checked_text, is_storable
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.lengths import LONGEST_TOPIC
from hotmesh.core.schedule import read_rhythm
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.errors import ConfigError
from hotmesh.mesh import HotMesh
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.virtual.calls import KEPT, Calls
from hotmesh.virtual.context import VirtualContext, current
from hotmesh.virtual.members import ENDLESS, Target, members, worker_for

OnError = Literal["stop", "continue"]

APP_ID: Final = "hmsh"
"""The app of calls and schedules that name none."""

NAMESPACE: Final = "hotmesh"

MAX_CYCLES: Final = ENDLESS
"""Runs of a schedule that does not say how many: it goes on until it is interrupted."""

TIMEOUT: Final = 30.0
"""Seconds that `exec` waits if the call does not say."""


class Virtual:
    """Functions that other processes call, and schedules. All methods are static.

    await Virtual.connect("greet", greet)
    greeting = await Virtual.exec("greet", ["World"], id="world", ttl="1 hour")
    await Virtual.cron("clean", callback=clean, id="nightly", interval="0 3 * * *")

    Every method takes `connection` (as `HotMesh.init` does), `namespace` (the Postgres schema) and `app_id` (the app
    that calls and schedules are jobs of); ids and topics belong to these three.
    """

    @staticmethod
    async def connect(
        topic: str,
        callback: Callable[..., Any],
        *,
        connection: ConnectionLike = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        max_concurrency: int | None = None,
        guid: str | None = None,
        log_level: str | int | None = None,
        namespace: str = NAMESPACE,
        app_id: str = APP_ID,
    ) -> HotMesh:
        """Let `callback(*args)` answer the calls of a topic, beside others that do; returns the instance it runs in.

        Plain functions run in threads. What it returns must be JSON, or a dataclass or model. If it raises, it is tried
        again: 3 times in all, with growing pauses of at most 30 seconds, unless `retry` says otherwise. `timeout`: after
        it a callback is cut off. `guid`: that of the instance, which then is one of its own. `log_level`: the least
        that its instance logs, which it shares with others of this level.
        """
        worker = worker_for(_topic(topic), callback, retry, timeout, max_concurrency)
        return await members().serve(Target(connection, namespace, app_id, log_level), worker, callback, guid)

    @staticmethod
    async def exec(
        topic: str,
        args: Sequence[Any] = (),
        *,
        connection: ConnectionLike = None,
        id: str | None = None,
        ttl: Duration | None = None,
        flush: bool = False,
        timeout: Duration | None = None,
        options: Mapping[str, Any] | None = None,
        namespace: str = NAMESPACE,
        app_id: str = APP_ID,
    ) -> Any:
        """Call the function of a topic, wherever it is, and return what it returns.

        With an `id`, the call is made once: while it runs, and for `ttl` after it (1 second unless given), others with
        this id get the same result, whatever their arguments. `flush` forgets the result first. A call that failed is
        made again by the next one. `options` may hold `id`, `ttl`, `flush` and `timeout` as well.

        Raises JobError with what the callback raised at last, JobTimeoutError after `timeout` (30 seconds unless given;
        the call itself waits for a worker and goes on), DuplicateJobError if the id belongs to another topic.
        """
        given = _options(options, id=id, ttl=ttl, flush=flush or None, timeout=timeout)
        kept = KEPT if given["ttl"] is None else seconds(given["ttl"], name="ttl")
        if kept <= 0:
            raise ConfigError(f"ttl must be longer than 0, not {given['ttl']!r}")
        limit = TIMEOUT if given["timeout"] is None else seconds(given["timeout"], name="timeout")
        call_id = None if given["id"] is None else _id(given["id"])
        topic, arguments = _topic(topic), _args(args)
        calls = await _calls(connection, namespace, app_id)
        if call_id is None:
            return await calls.call(topic, arguments, kept=kept, timeout=limit)
        if given["flush"]:
            await calls.flush(call_id, topic)
        return await calls.call_once(call_id, topic, arguments, kept=kept, timeout=limit)

    @staticmethod
    async def flush(
        topic: str,
        *,
        connection: ConnectionLike = None,
        id: str | None = None,
        options: Mapping[str, Any] | None = None,
        namespace: str = NAMESPACE,
        app_id: str = APP_ID,
    ) -> None:
        """Forget what the call of this `id` returned, so that the next one is made. No effect if there is none."""
        call_id, topic = _id(_options(options, id=id)["id"]), _topic(topic)
        await (await _calls(connection, namespace, app_id)).flush(call_id, topic)

    @staticmethod
    async def cron(
        topic: str,
        args: Sequence[Any] = (),
        *,
        callback: Callable[..., Any] | None = None,
        connection: ConnectionLike = None,
        id: str | None = None,
        interval: Duration | None = None,
        max_cycles: int | None = None,
        delay: Duration | None = None,
        on_error: OnError | None = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        options: Mapping[str, Any] | None = None,
        guid: str | None = None,
        log_level: str | int | None = None,
        namespace: str = NAMESPACE,
        app_id: str = APP_ID,
    ) -> bool:
        """Call the function of a topic again and again; True if the schedule was started, False if it was running so.

        `interval`: a cron expression of five fields, in UTC, or the time between the end of a run and the next one, at
        least a second. `delay`: time before the first run; without it, an interval runs at once and a cron
        expression at its first tick. A tick that passes while a run is on is left out. The schedule goes on until
        `interrupt`, after `max_cycles` runs if they are given, and with `on_error="stop"` until a run has failed at its last
        attempt. It can then be started again. Called for one that is running, with another `interval`, `max_cycles`
        or `on_error`, it starts that one anew: the next run comes an interval from now, or at the next tick.

        With a `callback`, this process also serves the topic, as by `connect`; any number of processes may do so, and one
        of them starts the schedule. `options` may hold `id`, `interval`, `max_cycles`, `delay` and `on_error` as well.
        Raises ConfigError, DuplicateJobError if the id belongs to another topic or a call.
        """
        given = _options(
            options, id=id, interval=interval, max_cycles=max_cycles, delay=delay, on_error=on_error
        )
        schedule_id, topic, arguments = _id(given["id"]), _topic(topic), _args(args)
        if given["interval"] is None:
            raise ConfigError("interval is missing: a cron expression, or a duration such as '5 minutes'")
        rhythm = read_rhythm(given["interval"], given["delay"])
        cycles = MAX_CYCLES if given["max_cycles"] is None else given["max_cycles"]
        if isinstance(cycles, bool) or not isinstance(cycles, int) or cycles < 1:
            raise ConfigError(f"max_cycles must be an integer of at least 1, not {cycles!r}")
        reaction = given["on_error"] or "continue"
        if reaction not in ("stop", "continue"):
            raise ConfigError(f"on_error must be 'stop' or 'continue', not {reaction!r}")
        target = Target(connection, namespace, app_id)
        if callback is not None:
            serving = Target(connection, namespace, app_id, log_level)
            await members().serve(serving, worker_for(topic, callback, retry, timeout, None), callback, guid)
        calls = Calls(await members().starter(target))
        return await calls.start(schedule_id, topic, arguments, rhythm, max_cycles=cycles, on_error=reaction)

    @staticmethod
    async def interrupt(
        topic: str,
        *,
        connection: ConnectionLike = None,
        id: str | None = None,
        options: Mapping[str, Any] | None = None,
        namespace: str = NAMESPACE,
        app_id: str = APP_ID,
    ) -> bool:
        """End the schedule of this `id`; True if it was running. The answer of a run that is on does not count."""
        schedule_id, topic = _id(_options(options, id=id)["id"]), _topic(topic)
        return await (await _calls(connection, namespace, app_id)).interrupt(schedule_id, topic)

    @staticmethod
    def get_context() -> VirtualContext:
        """The call or run that the callback which asks is serving. Raises HotMeshError outside of one."""
        return current()

    @staticmethod
    async def shutdown() -> None:
        """Stop every instance that these methods have made, and only those. What comes after begins afresh."""
        await members().stop()


async def _calls(connection: ConnectionLike, namespace: str, app_id: str) -> Calls:
    return Calls(await members().shared(Target(connection, namespace, app_id)))


def _options(options: Mapping[str, Any] | None, **given: Any) -> dict[str, Any]:
    """The arguments, and beside them what `options` holds."""
    more = checked_mapping(options, "options")
    unknown = more.keys() - given.keys()
    if unknown:
        raise ConfigError(f"options has no key {min(unknown)!r}; known are {', '.join(given)}")
    twice = [name for name, value in more.items() if value is not None and given[name] is not None]
    if twice:
        raise ConfigError(f"{twice[0]} is given twice: as an argument and in options")
    return {**given, **{name: value for name, value in more.items() if value is not None}}


def _topic(topic: str) -> str:
    if not isinstance(topic, str) or not topic:
        raise ConfigError(f"a topic must be a non-empty text, not {topic!r}")
    return checked_text(topic, "topic", LONGEST_TOPIC)


def _id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not is_storable(value):
        raise ConfigError(f"id must be a text of 1 to 512 characters, not {value!r}")
    return value


def _args(args: Any) -> Sequence[Any]:
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Sequence):
        raise ConfigError(f"args is the list of the callback's arguments, not {args!r}")
    return args

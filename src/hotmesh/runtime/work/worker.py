"""A worker: a callback bound to a topic, and how its failures are tried again."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial, wraps
from typing import Any

from hotmesh.core.arguments import checked_flag, checked_text
from hotmesh.core.duration import Duration, seconds
from hotmesh.core.lengths import LONGEST_NAME, LONGEST_TOPIC
from hotmesh.core.state.retry import RETRY_POLICY_KEYS, RetryPolicy
from hotmesh.core.wire import normalise
from hotmesh.errors import ConfigError
from hotmesh.postgres.connect.options import ConnectionLike, is_readonly
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.logins.credentials import Credentials, login_of
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.apart import called
from hotmesh.runtime.messages import AsyncCallback, Decided, Response, StreamData, answer_to
from hotmesh.runtime.threads import Threads

Callback = Callable[[StreamData], Any]


@dataclass(frozen=True, slots=True)
class Worker:
    """A callback bound to a worker topic, to be passed to `HotMesh.init(workers=[…])`.

    `workflow_name`: take only work of this name; several workers of one topic may have one each, and one without
    takes the rest. `readonly`: take nothing at all. `connection`: one of its own, in any form of that of
    `HotMesh.init`; `worker_credentials`: another login (`user` and `password`, or what `provision_worker_role`
    returned). `task_queue`: that of such a connection, see `docs/connections.md`. Workers with either are served by an *outpost* of the instance, see `docs/instances.md`.
    `max_concurrency`: how many callbacks of it may run at once (default: the instance's, 100; of a plain
    function 10). `retry`: a
    `RetryPolicy`, or a dict with `maximum_attempts`, `backoff_coefficient`, `maximum_interval`,
    `initial_interval`. `timeout`: after it a callback is cut off and fails with code 504. Plain functions run in
    threads.

        async def charge(message: StreamData) -> dict:
            return {"receipt": await payments.charge(message.data["amount"])}

        Worker("payments.charge", charge, max_concurrency=20)
    """

    topic: str
    callback: Callback
    max_concurrency: int | None = None
    retry: RetryPolicy | Mapping[str, Any] | None = None
    timeout: Duration | None = None
    workflow_name: str | None = None
    readonly: bool = False
    connection: ConnectionLike = field(default=None, repr=False)
    worker_credentials: Credentials | None = field(default=None, repr=False)
    task_queue: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.topic, str) or not self.topic:
            raise ConfigError(f"a worker's topic must be a non-empty text, not {self.topic!r}")
        checked_text(self.topic, "a worker's topic", LONGEST_TOPIC)
        check_task_queue(self.task_queue)
        checked_flag(self.readonly, f"readonly of worker {self.topic}")
        name = self.workflow_name
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigError(f"workflow_name of worker {self.topic} must be a non-empty text, not {name!r}")
        if name is not None:
            checked_text(name, f"workflow_name of worker {self.topic}", LONGEST_NAME)
        if not callable(self.callback):
            raise ConfigError(f"the callback of worker {self.topic} is not callable: {self.callback!r}")
        most = self.max_concurrency
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigError(
                f"max_concurrency of worker {self.topic} must be an integer of at least 1, not {most!r}"
            )
        try:
            if self.timeout is not None:
                seconds(self.timeout, name="timeout")
            retry_policy(self.retry)
            if self.connection is not None:
                ConnectionSource(self.connection)
            if self.worker_credentials is not None:
                login_of(self.worker_credentials)
        except ConfigError as error:
            raise ConfigError(f"worker {self.topic}: {error}") from None
        if is_readonly(self.connection):
            object.__setattr__(self, "readonly", True)

    @property
    def is_apart(self) -> bool:
        """Whether it has a connection or a login of its own."""
        return self.connection is not None or self.worker_credentials is not None


def check_task_queue(task_queue: object) -> None:
    """Raise ConfigError for what is no task queue."""
    if task_queue is not None and (not isinstance(task_queue, str) or not task_queue):
        raise ConfigError(f"task_queue must be a non-empty text, not {task_queue!r}")


def retry_policy(given: RetryPolicy | Mapping[str, Any] | None) -> RetryPolicy | None:
    """A policy from what users write; intervals may be durations in text. Raises ConfigError."""
    if given is None:
        return None
    if isinstance(given, RetryPolicy):
        given = asdict(given)
    if not isinstance(given, Mapping):
        raise ConfigError(f"retry is a RetryPolicy or a dict, not {given!r}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in RETRY_POLICY_KEYS:
            raise ConfigError(
                f"retry has no key {name!r}; known are {', '.join(sorted(set(RETRY_POLICY_KEYS.values())))}"
            )
        known = RETRY_POLICY_KEYS[name]
        values[known] = seconds(value, name=known) if known.endswith("interval") else value
    policy = RetryPolicy(**values)
    attempts, coefficient = policy.maximum_attempts, policy.backoff_coefficient
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ConfigError(f"maximum_attempts must be an integer of at least 1, not {attempts!r}")
    if isinstance(coefficient, bool) or not isinstance(coefficient, int | float) or not coefficient >= 1:
        raise ConfigError(f"backoff_coefficient must be a number of at least 1, not {coefficient!r}")
    return policy


def retry_delay(worker: RetryPolicy | None, work: HeldWork, code: int) -> float | None:
    """Seconds before the next try, or None if the error is final.

    The message's own policy comes first, then the worker's, then the `retry` map of the YAML: code → retries, with
    10, 100, 1,000 and then always 10,000 milliseconds between.
    """
    policy = work.retry_policy or worker
    done = work.attempt + 1
    if done >= most_attempts(worker, work, code):
        return None
    if policy is not None:
        try:
            delay = policy.initial_interval * policy.backoff_coefficient**done
        except OverflowError:
            delay = policy.maximum_interval
        return float(min(delay, policy.maximum_interval))
    return float(10 ** min(done, 4)) / 1_000


def most_attempts(worker: RetryPolicy | None, work: HeldWork, code: int) -> int:
    """How often the work is tried at most, the first time included, as long as it fails with this code."""
    policy = work.retry_policy or worker
    if policy is not None:
        return policy.maximum_attempts
    rule = (work.retry or {}).get(str(code))
    return 1 if rule is None else int(rule[0]) + 1


def is_asynchronous(callback: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await; anything else runs in a thread."""
    target = callback if inspect.isroutine(callback) or isinstance(callback, partial) else callback.__call__  # type: ignore[operator]
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "func", None))


def as_coroutine(worker: Worker, threads: Threads | None, max_payload: int) -> AsyncCallback:
    """Its callback as a coroutine function; a plain function runs in one of the threads, where its result is `converted`, too."""
    if threads is None:
        return worker.callback
    callback, topic = worker.callback, worker.topic

    async def converted_later(message: StreamData, result: Awaitable[Any]) -> Response | Decided:
        return converted(topic, message, await result, max_payload)

    @wraps(callback, updated=())
    def convert(message: StreamData) -> Any:
        result = callback(message)
        if inspect.isawaitable(result):
            return converted_later(message, result)
        return converted(topic, message, result, max_payload)

    return partial(called, convert, threads=threads)


def converted(topic: str, message: StreamData, result: Any, max_payload: int) -> Response | Decided:
    """What a callback has returned, as it will be stored. Raises PayloadError."""
    if type(result) is Decided:
        return result
    response = answer_to(message, result)
    response.data = normalise(response.data, limit=max_payload, what=f"the result of worker {topic}")
    return response

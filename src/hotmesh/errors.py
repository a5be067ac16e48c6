"""Every exception that hotmesh raises, as one tree.

HotMeshError
├── ConfigError                 an argument, option or environment variable is wrong
├── CompileError                .problems: everything that is wrong with a graph, at once
├── MappingError                an expression could not be evaluated: which, where, why
├── InstanceFailedError         an instance has ended by a fault, and not by stop
├── EngineRequiredError         this instance was started with engine=False
├── AppNotFoundError            nothing has been deployed and activated under this app id
├── VersionNotFoundError        this version was never deployed
├── ActivationError             the mesh did not agree on the new version
├── TopicNotFoundError          no graph of the active version subscribes to the topic
├── SignalNotFoundError         no hook rule of the active version listens on the topic
├── SignalNotDeliveredError     a signal was required, and no job waits for it
├── DeadLetterNotFoundError     no dead letter has this id (any more)
├── WorkerRoleNotFoundError     no worker login of this name is recorded
├── JobError                    .job_id, .code, .type, .activity, .attempt: a job ended with an error
│   ├── JobTimeoutError         no answer in time, the job goes on; a TimeoutError, too
│   ├── DuplicateJobError       a live job has this id
│   ├── JobCompletedError       the job has already ended
│   ├── InactiveJobError        the job accepts no more steps
│   └── JobNotFoundError        there is no such job (also known as GetStateError)
├── CallbackError               what a callback raised, as it was told: the cause of a JobError
├── PayloadError                a value cannot be stored: what, and where in it
│   └── MessageTooLargeError    it is JSON, but over the limit
├── CodecError                  a stored value cannot be decoded: its codec or key is missing here
├── LeaseExpiredError           a callback outlived its lease; its answer does not count
└── DatabaseError               the database cannot be used as it is
    ├── NoConnectionError       there is no connection, for now
    │   ├── ConnectionFailedError   a first one could not be made
    │   └── ConnectionLostError     an established one broke; retryable
    ├── SchemaError             missing, modified, older or newer than this release
    ├── NotAuthorizedError      the role lacks a right (SQLSTATE 42501)
    └── LocalServerError        the embedded Postgres cannot be started
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hotmesh.enums import Code
from hotmesh.nearest import nearest


class HotMeshError(Exception):
    """Base of all. `code` is the outcome code where the error has one, `job_id` the job it is about."""

    code: int | None = None
    job_id: str | None = None


class ConfigError(HotMeshError, ValueError):
    """An argument, option or environment variable cannot be used; the message names it and what is allowed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a graph.

    `path` is the place in the document as a JSON pointer (`/app/graphs/0/activities/w1/topic`); `line` and
    `column` count from 1 and are None where the source has none (a dict). A `warning` does not stop a deploy.
    """

    rule: str
    message: str
    path: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None
    severity: str = "error"

    def __str__(self) -> str:
        if self.line is not None:
            place = f"{self.file or '<text>'}:{self.line}:{self.column}"
        elif self.file is not None and self.file not in self.message:
            place = self.file
        else:
            place = self.path
        hint = f" ({self.suggestion})" if self.suggestion else ""
        return f"{place}{place and ': '}{self.rule}: {self.message}{hint}"


class CompileError(HotMeshError):
    """A graph cannot be deployed. `problems` lists everything found, errors first; nothing was stored."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.severity != "error"))
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @property
    def errors(self) -> list[dict[str, str]]:
        """The problems as plain `{path, rule, message}` dicts."""
        return [
            {"path": problem.path, "rule": problem.rule, "message": problem.message}
            for problem in self.problems
        ]


class MappingError(HotMeshError):
    """An expression could not be evaluated.

    `expression` is what was evaluated, `argument` the number of the offending argument from 1, if it is one.
    """

    code = Code.UNKNOWN.value

    def __init__(self, message: str, *, expression: Any = None, argument: int | None = None) -> None:
        super().__init__(message)
        self.expression = expression
        self.argument = argument


class InstanceFailedError(HotMeshError):
    """An instance has ended, and nobody has stopped it. `__cause__` is what has ended it; work goes on elsewhere."""

    def __init__(self, app_id: str, guid: str, failure: BaseException) -> None:
        what = str(failure) or "it was cancelled, as all tasks are at the end of asyncio.run"
        super().__init__(f"instance {guid} of app {app_id} has ended by {type(failure).__name__}: {what}")
        self.app_id = app_id
        self.guid = guid


class EngineRequiredError(HotMeshError):
    """The method needs an engine, and this instance was started with engine=False."""


class AppNotFoundError(HotMeshError):
    """Nothing is active under this app id: deploy and activate a graph first. `apps` are the others that there are."""

    def __init__(self, app_id: str, apps: Sequence[str] = (), *, deployed: bool = True) -> None:
        others = [app for app in apps if app != app_id]
        here = f"apps here: {', '.join(others)}" if others else "there is no other app here"
        if deployed:
            text = (
                f"no app found for id {app_id}: nothing is active under app {app_id}, deploy and activate a version "
                f"first ({here})"
            )
        else:
            near = nearest(app_id, others)
            if near:
                rest = ", ".join(app for app in others if app != near)
                here = f"did you mean {near}?" + (f" (other apps here: {rest})" if rest else "")
            elif not others:
                here = "there is none here"
            text = f"there is no app {app_id}; {here}"
        super().__init__(text)
        self.app_id = app_id
        self.apps = tuple(others)


class VersionNotFoundError(HotMeshError):
    """The version was never deployed. `versions` are those that were."""

    def __init__(self, app_id: str, version: str, versions: Collection[str] = ()) -> None:
        there = ", ".join(sorted(versions, key=_by_number)[-MOST_NAMES:])
        what = f"there are: {there}" if there else "none was deployed"
        super().__init__(f"Version {version} does not exist for app {app_id}; {what}")
        self.app_id = app_id
        self.version = version
        self.versions = tuple(versions)


def _by_number(version: str) -> tuple[int, int, str]:
    return (0, int(version), "") if version.isdecimal() else (1, 0, version)


class ActivationError(HotMeshError):
    """The mesh did not agree on the new version; the old one is still active."""


class TopicNotFoundError(HotMeshError):
    """No graph of the version subscribes to the topic; or it begins with a dot, and no await activity asks for it."""

    code = Code.UNKNOWN.value

    def __init__(
        self, topic: str, app_id: str, version: str, topics: Collection[str] = (), *, hint: str = ""
    ) -> None:
        public = sorted(name for name in topics if not name.startswith("."))
        self.message = (
            f"no subscription found for topic {topic} in app {app_id} for app version {version}{hint}"
        )
        self.topic = topic
        text = self.message
        if public and not hint:
            text += f"; no graph is started by it, there are: {', '.join(public[:MOST_NAMES])}"
            near = nearest(topic, public)
            text += f" (did you mean {near}?)" if near else ""
        super().__init__(text)


MOST_NAMES: Final = 20
"""Names that a message lists at most."""


class SignalNotFoundError(HotMeshError):
    """No hook rule of the active version listens on the topic."""

    code = Code.NOT_FOUND.value

    def __init__(self, topic: str, app_id: str | None = None, topics: Collection[str] = ()) -> None:
        self.message = f"signal-not-found: unable to find hook rule for topic {topic}"
        self.topic = topic
        of = "" if app_id is None else f" of app {app_id}"
        there = ", ".join(sorted(topics)[:MOST_NAMES]) or "none"
        super().__init__(f"{self.message}: no hook rule{of} listens on it; there are: {there}")


class SignalNotDeliveredError(HotMeshError):
    """A signal was `required`, and no job waits for it under any of its `keys`. It was not kept."""

    code = Code.NOT_FOUND.value

    def __init__(self, topic: str, keys: Sequence[str]) -> None:
        super().__init__(
            f"no job waits for a signal on topic {topic} with key {' or '.join(keys)}; it was dropped"
        )
        self.topic = topic
        self.keys = tuple(keys)


class DeadLetterNotFoundError(HotMeshError):
    """There is no dead letter of this id in the app: it never existed, or was requeued or discarded before."""

    code = Code.NOT_FOUND.value

    def __init__(self, dead_letter_id: int) -> None:
        super().__init__(f"there is no dead letter {dead_letter_id}; it may have been requeued or discarded")
        self.dead_letter_id = dead_letter_id


class WorkerRoleNotFoundError(HotMeshError):
    """No worker login of this name is recorded in the namespace. `sqlstate` is what Postgres says of unknown roles."""

    code = Code.NOT_FOUND.value
    sqlstate = "42704"

    def __init__(self, role_name: str, namespace: str) -> None:
        super().__init__(f'role "{role_name}" is no worker login of namespace {namespace}')
        self.role_name = role_name


class CallbackError(HotMeshError):
    """What a callback raised, as it was told: it may have run in another process. The cause of a JobError.

    `type` is the name of the exception's class, `message` its text, `stack` its traceback as text.
    """

    def __init__(self, kind: str, message: str, stack: str | None = None) -> None:
        self.type = kind
        self.message = message
        self.stack = stack
        super().__init__(f"\n{stack.rstrip()}" if stack else f"{kind}: {message}")


class JobError(HotMeshError):
    """A job ended with an error. `error` is the whole error object: message, code, stack and more.

    If a callback raised it, `type` is the name of what it raised, `activity`, `topic`, `attempt` and `attempts` say
    where and at which attempt of how many, and the cause (`__cause__`) is a CallbackError with the traceback. All of these
    are None for an error that was returned.
    """

    def __init__(
        self, error: Mapping[str, Any], job_id: str | None = None, *, words: str | None = None
    ) -> None:
        self.error = dict(error)
        self.message = str(error.get("message", "unknown"))
        code = error.get("code")
        self.code = code if isinstance(code, int) else Code.UNKNOWN.value
        self.job_id = job_id
        self.type: str | None = error.get("type")
        self.activity: str | None = error.get("activity")
        self.topic: str | None = error.get("topic")
        self.attempt: int | None = error.get("attempt")
        self.attempts: int | None = error.get("attempts")
        super().__init__(in_full(error, job_id) if words is None else words)
        if self.type is not None:
            self.__cause__ = CallbackError(self.type, self.message, error.get("stack"))


def in_short(error: Mapping[str, Any]) -> str:
    """What an error object is and says, as one line: `KeyError: 'sku'`; the type alone if it says nothing else."""
    kind, message = error.get("type"), str(error.get("message") or "unknown")
    if kind is not None:
        return str(kind) if message in ("unknown", kind) else f"{kind}: {message}"
    return (
        f"an error without a message, code {error.get('code', Code.UNKNOWN.value)}"
        if message == "unknown"
        else message
    )


def in_full(error: Mapping[str, Any], job_id: str | None = None) -> str:
    """An error object in a sentence: `KeyError: 'sku' in worker charge (job H…, attempt 1 of 1)`.

    `job_id`: whose error it is. It may have arisen in another job that this one awaits.
    """
    where = place(error)
    origin = error.get("job_id") or job_id
    facts = [] if origin is None else [f"job {origin}"]
    if job_id is not None and origin != job_id:
        facts.append(f"on which job {job_id} depends")
    if error.get("attempt") is not None:
        facts.append(f"attempt {error['attempt']} of {error.get('attempts', error['attempt'])}")
    return in_short(error) + (f" in {where}" if where else "") + (f" ({', '.join(facts)})" if facts else "")


def place(error: Mapping[str, Any]) -> str:
    """Where an error arose: `worker charge`, or `worker charge of activity a1` if their names differ; or nothing."""
    activity, topic = error.get("activity"), error.get("topic")
    if not topic:
        return f"activity {activity}" if activity else ""
    return f"worker {topic}" if activity in (None, topic) else f"worker {topic} of activity {activity}"


class JobTimeoutError(JobError, TimeoutError):
    """No answer came in time. The job goes on; read it later with `get_state`. `message` is `timeout`.

    `seconds` is how long was waited, `topic` that of the job.
    """

    def __init__(self, job_id: str | None, *, topic: str | None = None, seconds: float | None = None) -> None:
        name = "the job" if job_id is None else f"job {job_id}"
        of = "" if topic is None else f" of {topic}"
        limit = "in time" if seconds is None else f"within {seconds:g} s (timeout={seconds:g})"
        words = f"{name}{of} has not ended {limit}; it goes on, and get_state({topic!r}, {job_id!r}) has its result later"
        super().__init__({"message": "timeout", "code": Code.TIMEOUT.value}, job_id, words=words)
        self.topic = topic
        self.seconds = seconds


class DuplicateJobError(JobError):
    """A live job has this id: choose another id, or read that job."""

    def __init__(self, job_id: str) -> None:
        message = f"Duplicate job: {job_id}"
        words = f"{message}: a live job has this id; choose another, or read that job"
        super().__init__({"message": message, "code": Code.DUPLICATE.value}, job_id, words=words)


class JobCompletedError(JobError):
    """The job, or the activity of it that is meant, has already ended."""

    def __init__(self, job_id: str, message: str | None = None, *, fate: str = "") -> None:
        message = message or f"Job {job_id} already completed"
        words = f"{message}: {fate}" if fate else message
        super().__init__({"message": message, "code": Code.INTERRUPTED.value}, job_id, words=words)


class InactiveJobError(JobError):
    """The job accepts no more steps."""

    def __init__(self, job_id: str, activity_id: str | None = None, status: int | None = None) -> None:
        message = f"Inactive job: {job_id}"
        of = "" if activity_id is None else f" (at activity {activity_id})"
        words = f"{message}: it has ended or is about to, and takes no more steps{of}"
        super().__init__({"message": message, "code": Code.INTERRUPTED.value}, job_id, words=words)
        self.activity_id = activity_id
        self.status = status


class JobNotFoundError(JobError):
    """There is no live job of this id: it never existed, has expired, or was scrubbed.

    `where` says where it was looked for, `fate` what is known of it; `ended_at` is when it ended, if it has expired and its row is still there.
    """

    def __init__(
        self,
        job_id: str,
        message: str | None = None,
        *,
        where: str = "",
        fate: str = "",
        ended_at: datetime | None = None,
    ) -> None:
        message = message or f"Job {job_id} not found"
        words = message + (f" in {where}" if where else "") + (f": {fate}" if fate else "")
        super().__init__({"message": message, "code": Code.NOT_FOUND.value}, job_id, words=words)
        self.ended_at = ended_at


GetStateError = JobNotFoundError
"""The same, by the name under which `get_state` has always raised it."""


class PayloadError(HotMeshError):
    """A value cannot be stored as JSON. The message says what it is and where in the payload it stands."""

    code = Code.UNKNOWN.value


class MessageTooLargeError(PayloadError):
    """A payload is over the limit (`max_payload` of `HotMesh.init`, in bytes)."""


class CodecError(HotMeshError):
    """A value cannot be encoded or decoded: no codec is registered, it lacks the key, or it failed (`__cause__`).

    Nothing is lost by it: a process that has the right codec reads the same value.
    """

    code = Code.UNKNOWN.value


class LeaseExpiredError(HotMeshError):
    """A callback outlived its lease; the message belongs to somebody else and this answer does not count."""

    code = Code.LOST.value


class DatabaseError(HotMeshError):
    """The database cannot be used as it is; `__cause__` is the driver's error."""


class NoConnectionError(DatabaseError):
    """There is no connection to the database, for now."""


class ConnectionFailedError(NoConnectionError):
    """A first connection could not be made: wrong address, credentials, or no server."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"postgres-provider-connection-failed: {reason}")
        self.reason = reason


class ConnectionLostError(NoConnectionError):
    """An established connection broke and was not restored in time. Retryable."""


class SchemaError(DatabaseError):
    """The tables are missing, were modified, or belong to another release."""


class NotAuthorizedError(DatabaseError):
    """The role lacks a right."""


class LocalServerError(DatabaseError):
    """The embedded Postgres cannot be installed, started or stopped."""

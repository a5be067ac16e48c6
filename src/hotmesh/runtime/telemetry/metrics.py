"""What one instance counts. The hot path adds integers; names, labels and sums are made when somebody looks.

They are our own because they are on the path of every job, several of them a flow: to count one outcome with its duration takes
0.5 µs here, and with prometheus-client's counter and histogram, which lock, 3 to 4 µs, or 10 to 12 µs where the labels are looked
up (CPython 3.11). That package formats what is shown (`prometheus`), and need not be installed where nobody asks for it.

Read from other threads while the event loop counts: every table is copied in one go before it is looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from hotmesh.core.durable.failure import CANCELLED
from hotmesh.core.state.job import Job
from hotmesh.core.state.step import Step
from hotmesh.enums import Code
from hotmesh.observe.queues import QueueDepth

DURATION_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0,
)  # fmt: skip
INTERRUPTED_CODE: Final = Code.INTERRUPTED
NAMED: Final = ("step", "activity")
CANCELS: Final = (CANCELLED, "CancelledError")
STEP_COUNT_BOUNDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)

Label = tuple[str, ...]


class Histogram:
    """How often values fell between bounds; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def plus(self, other: Histogram) -> Histogram:
        """The sum of two histograms of the same bounds."""
        found = Histogram(self.bounds)
        found.counts = [one + more for one, more in zip(list(self.counts), list(other.counts), strict=True)]
        found.total = self.total + other.total
        return found

    @property
    def cumulative(self) -> list[tuple[str, int]]:
        """Upper bound, as text, and how many values are not above it."""
        found, count = [], 0
        for bound, more in zip([*map(_bound, self.bounds), "+Inf"], list(self.counts), strict=True):
            count += more
            found.append((bound, count))
        return found

    def as_dict(self) -> dict[str, Any]:
        buckets = self.cumulative
        return {"count": buckets[-1][1], "sum": self.total, "buckets": dict(buckets)}


Value = int | float | Histogram


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its values by label values."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    values: Mapping[Label, Value]

    def plus(self, other: Family) -> Family:
        """The same metric of two instances together."""
        values = dict(self.values)
        for label, value in other.values.items():
            values[label] = _sum(values[label], value) if label in values else value
        return Family(self.name, self.kind, self.help, self.labels, values)


class Tally:
    """How often something ended in which way, and how long it took. One call and no look-up but that of the outcome."""

    __slots__ = ("outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.seconds = Histogram(DURATION_BOUNDS)

    def add(self, outcome: str, seconds: float) -> None:
        outcomes, histogram = self.outcomes, self.seconds
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        histogram.counts[bisect_left(DURATION_BOUNDS, seconds)] += 1
        histogram.total += seconds


class Tallies(dict[str, Tally]):
    """Tallies by name, each made when it is first asked for."""

    __slots__ = ()

    def __missing__(self, name: str) -> Tally:
        found = self[name] = Tally()
        return found

    @property
    def outcomes(self) -> dict[Label, int]:
        return {
            (name, outcome): count
            for name, tally in dict(self).items()
            for outcome, count in dict(tally.outcomes).items()
        }

    @property
    def seconds(self) -> dict[str, Histogram]:
        return {name: tally.seconds for name, tally in dict(self).items()}


class Metrics:
    """The counters of one instance, since it began."""

    __slots__ = (
        "activities", "callbacks", "commit_seconds", "commit_steps", "dead_letters", "events", "flows", "flows_started",
        "lost_leases", "operations", "parked", "refused", "retries", "turns",
    )  # fmt: skip

    def __init__(self) -> None:
        self.flows_started: dict[str, int] = {}
        self.flows = Tallies()
        self.activities = Tallies()
        self.callbacks = Tallies()
        self.commit_seconds = Histogram(DURATION_BOUNDS)
        self.commit_steps = Histogram(STEP_COUNT_BOUNDS)
        self.refused: dict[str, int] = {}
        self.events = 0
        self.retries: dict[str, int] = {}
        self.lost_leases: dict[str, int] = {}
        self.dead_letters: dict[str, int] = {}
        self.turns: dict[str, int] = {}
        self.parked: dict[str, int] = {}
        self.operations: dict[Label, int] = {}

    # -- what happened -----------------------------------------------------------------------------------

    def applied(self, step: Step) -> None:
        """A step has committed."""
        for change in step.jobs:
            if change.created or change.started:
                topic = change.job.topic
                self.flows_started[topic] = self.flows_started.get(topic, 0) + 1
            if change.ended:
                job = change.job
                outcome = "completed" if job.error is None else "failed"
                if job.status and not _has_failed(job):
                    outcome = "interrupted"
                self.flows[job.topic].add(outcome, (job.updated_at - job.created_at).total_seconds())
        for item in step.records:
            record = item.record
            if record.ended_at is not None and record.started_at is not None and record.state == "closed":
                seconds = (record.ended_at - record.started_at).total_seconds()
                self.activities[record.type].add("done" if record.error is None else "failed", seconds)
        self.events += len(step.consumed)
        if step.operations:
            operations = self.operations
            for one in step.operations:
                # What waits has the names that users' data give it.
                label = (one.kind, one.name if one.kind in NAMED else "", one.status)
                operations[label] = operations.get(label, 0) + 1
        if step.jobs and (job := step.jobs[0].job).queue is not None:
            add(self.turns, job.topic)
            if job.open is not None and "parked" in job.open:
                add(self.parked, job.topic)

    def committed(self, steps: int, seconds: float, refused: Iterable[tuple[str, str]]) -> None:
        """A batch has been answered; `refused`: the reasons of those of its steps that were not written."""
        self.commit_steps.observe(steps)
        self.commit_seconds.observe(seconds)
        for reason, _ in refused:
            add(self.refused, reason)

    # -- what somebody sees ------------------------------------------------------------------------------

    def families(self) -> list[Family]:
        """Every counter and histogram, with copies of its values."""
        return [
            _counter("flows_started", "Jobs created, by topic.", ("topic",), self.flows_started),
            _counter(
                "flows_ended", "Jobs ended, by topic and outcome.", ("topic", "outcome"), self.flows.outcomes
            ),
            _histogram("flow_seconds", "From creation to end of jobs.", ("topic",), self.flows.seconds),
            _counter(
                "activities_ended",
                "Activities ended, by type and outcome.",
                ("type", "outcome"),
                self.activities.outcomes,
            ),
            _histogram(
                "activity_seconds", "From entry to end of activities.", ("type",), self.activities.seconds
            ),
            _counter(
                "callbacks_ended",
                "Callbacks, by topic and outcome.",
                ("topic", "outcome"),
                self.callbacks.outcomes,
            ),
            _histogram("callback_seconds", "How long callbacks ran.", ("topic",), self.callbacks.seconds),
            _counter("callback_retries", "Failed attempts that are made again.", ("topic",), self.retries),
            _counter(
                "leases_lost", "Answers that came when others had the work.", ("topic",), self.lost_leases
            ),
            _counter("dead_letters", "Messages given up, by stream.", ("stream",), self.dead_letters),
            _counter(
                "events_handled", "Answers, signals, timers and results applied.", (), {(): self.events}
            ),
            _counter("workflow_turns", "Steps of durable functions, by name.", ("workflow",), self.turns),
            _counter(
                "workflows_parked",
                "Turns after which a durable function is parked, by name.",
                ("workflow",),
                self.parked,
            ),
            _operations(self.operations),
            _histogram("commit_seconds", "How long commits took.", (), {(): self.commit_seconds}),
            _histogram("commit_steps", "Steps in one commit.", (), {(): self.commit_steps}),
            _counter("steps_refused", "Steps computed again, by reason.", ("reason",), self.refused),
        ]


def _has_failed(job: Job) -> bool:
    """Whether a job that has no status 0 is a durable function that failed; one that was ended or cancelled did not."""
    error = job.error
    return (
        job.queue is not None
        and isinstance(error, dict)
        and error.get("code") != INTERRUPTED_CODE
        and error.get("type") not in CANCELS
    )


def _operations(counts: dict[Label, int]) -> Family:
    text = "What durable functions asked for, or was sent to them, by kind and outcome; steps and activities by name."
    return Family("operations_ended", "counter", text, ("kind", "name", "outcome"), dict(counts))


def as_dict(families: Iterable[Family]) -> dict[str, Any]:
    """Metric → value, or a dict by the values of its labels, one level for each label."""
    found: dict[str, Any] = {}
    for family in families:
        if not family.labels:
            found[family.name] = _plain(family.values.get((), 0))
            continue
        values = found.setdefault(family.name, {})
        for label, value in sorted(family.values.items()):
            inner = values
            for name in label[:-1]:
                inner = inner.setdefault(name, {})
            inner[label[-1]] = _plain(value)
    return found


def gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Label, Value]) -> Family:
    return Family(name, "gauge", text, labels, values)


def queue_families(queues: Iterable[QueueDepth]) -> list[Family]:
    """What waits in the queues of an app, as gauges."""
    messages: dict[Label, Value] = {}
    oldest: dict[Label, Value] = {}
    dead: dict[Label, Value] = {}
    for one in queues:
        if one.stream == "dead":
            dead[(one.topic,)] = one.ready
            continue
        for state, number in (("ready", one.ready), ("held", one.held), ("delayed", one.delayed)):
            messages[one.stream, one.topic, state] = number
        oldest[one.stream, one.topic] = one.oldest
    return [
        gauge(
            "queue_messages",
            "Rows that wait, of workers, engines and timers; counted up to 100,000.",
            ("stream", "topic", "state"),
            messages,
        ),
        gauge(
            "queue_oldest_seconds",
            "For how long the oldest row that is ready has been so.",
            ("stream", "topic"),
            oldest,
        ),
        gauge("dead_letters_kept", "Dead letters that nobody has decided on.", ("stream",), dead),
    ]


def add(counts: dict[Any, int], key: Any, more: int = 1) -> None:
    counts[key] = counts.get(key, 0) + more


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> Family:
    return Family(name, "counter", text, labels, _labelled(values))


def _histogram(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, Histogram]) -> Family:
    # A sum with nothing is a copy.
    copied = {label: value.plus(Histogram(value.bounds)) for label, value in dict(values).items()}
    return Family(name, "histogram", text, labels, _labelled(copied))


def _labelled(values: Mapping[Any, Any]) -> dict[Label, Value]:
    return {key if isinstance(key, tuple) else (key,): value for key, value in dict(values).items()}


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, Histogram):
        return one.plus(other) if isinstance(other, Histogram) else one
    return one if isinstance(other, Histogram) else one + other


def _plain(value: Value) -> Any:
    return value.as_dict() if isinstance(value, Histogram) else value


def _bound(value: float) -> str:
    return repr(float(value))

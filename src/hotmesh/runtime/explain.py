"""Says why a job does not move: what each of its open branches waits for, since when, and what would unblock it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from hotmesh.core.advance.advance import LOST
from hotmesh.core.state.job import INTERRUPTED, PENDING_STATUS, Dimension

if TYPE_CHECKING:
    from hotmesh.core.plan.compile import ActivityPlan, GraphPlan, Plan
    from hotmesh.core.values import Json
    from hotmesh.postgres.reading import (
        LiveChild,
        OpenRecord,
        QueuedMessage,
        QueuedWork,
        Situation,
        StoredRate,
    )

State = Literal["running", "pending", "complete", "failed", "interrupted"]

ReasonKind = Literal[
    "work", "held", "retry", "message", "timer", "signal", "child", "join", "answers", "pending", "lost"
]
"""What a branch may wait for: a worker to take its work, the worker that holds it, its next try, an engine, a moment, a
signal, a job, other branches, further answers after a pending one, `resume`; `lost`: nothing will come by itself."""

Serves = Callable[[str, str], bool]
"""Whether this process has a worker that takes work of a topic and workflow name."""

RECORD_STALE = timedelta(seconds=5)
"""Engines take a message within this time, if there are any."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that a branch waits for. Fields that a kind has no use for are empty.

    `text` says it in words, `unblock` what would end it. `until`: when something happens by itself. `topic`: of the
    work or the signal, `key` of the signal. `attempt` counts failures. `child`: the awaited job. `arrived` and
    `missing`: the branches of a join.
    """

    kind: ReasonKind
    text: str
    unblock: str
    since: datetime | None = None
    until: datetime | None = None
    topic: str | None = None
    key: str | None = None
    attempt: int = 0
    held_by: str | None = None
    child: Explanation | None = None
    arrived: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """An activity that is open at an address, and everything that could move it on."""

    activity_id: str
    type: str
    dimension: Dimension
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter of the job; `requeue` or `discard` it by its id."""

    id: int
    topic: str
    activity_id: str
    dimension: Dimension
    reason: str
    dead_at: datetime


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job does not move, at one moment (`now`, by the database's clock). `str()` tells it to people.

    `status` counts the open obligations. `branches` are what is open, `notes` what else keeps or ended the job.
    `unaccounted` obligations have left no trace: nothing will come for them. `omitted`: rows beyond those looked at.
    """

    app_id: str
    job_id: str
    topic: str
    version: str
    state: State
    status: int
    error: Json
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    now: datetime
    branches: tuple[Branch, ...]
    dead_letters: tuple[Buried, ...]
    notes: tuple[str, ...]
    unaccounted: int = 0
    omitted: int = 0

    @property
    def unblock(self) -> tuple[str, ...]:
        """What would move the job on, each thing once."""
        found = [reason.unblock for branch in self.branches for reason in branch.reasons]
        found += [f"requeue dead letter {letter.id}" for letter in self.dead_letters]
        return tuple(dict.fromkeys(found))

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON: moments as ISO text, addresses as `0/0`."""
        found: dict[str, Any] = _plain(self)
        found["unblock"] = list(self.unblock)
        return found

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def explanation(
    app_id: str,
    situation: Situation,
    plan: Plan | None,
    serves: Serves,
    children: Mapping[str, Explanation],
) -> Explanation:
    """What a situation means. `children`: what is known of awaited jobs."""
    branches = _Branches(situation, plan, serves, children)
    state = _state(situation)
    if state == "running":
        branches.find()
    elif state == "pending":
        branches.pending()
    return Explanation(
        app_id=app_id,
        job_id=situation.job_id,
        topic=situation.topic,
        version=situation.version,
        state=state,
        status=situation.status,
        error=situation.error,
        created_at=situation.created_at,
        updated_at=situation.updated_at,
        ended_at=situation.ended_at,
        now=situation.now,
        branches=branches.all(),
        dead_letters=tuple(
            Buried(one.id, one.topic, one.activity_id, one.dimension, one.reason, one.dead_at)
            for one in situation.dead_letters
        ),
        notes=tuple(_notes(situation, plan, state)),
        unaccounted=branches.unaccounted() if state == "running" else 0,
        omitted=branches.omitted() if state == "running" else 0,
    )


def _state(situation: Situation) -> State:
    if situation.status > 0:
        return "running"
    if situation.status == PENDING_STATUS:
        return "pending"
    if situation.status < 0:
        return "interrupted"
    return "complete" if situation.error is None else "failed"


def _notes(situation: Situation, plan: Plan | None, state: State) -> Iterator[str]:
    message = situation.error.get("message") if isinstance(situation.error, dict) else None
    code = situation.error.get("code") if isinstance(situation.error, dict) else None
    if plan is None:
        yield f"version {situation.version} is not deployed here: no engine can go on with it; deploy it"
    if state == "running" and situation.error is not None:
        yield f"a branch has failed, and whoever waits was told: {message} (code {code})"
    if situation.cancelled:
        yield "it is marked as cancelled"
    if state == "running":
        for one in filter(_counts(situation), situation.rates):
            who = f"workers of topic {one.topic}" if one.topic else f"all {one.scope}"
            yield (
                f"{who} are paused: resume them"
                if one.rate < 0
                else f"{who} are throttled: one message per {one.rate} ms"
            )
    match state:
        case "complete":
            yield "it is complete: nothing is open"
        case "failed":
            yield f"it has ended with an error: {message} (code {code})"
        case "interrupted" if (
            situation.error is not None and code == LOST and situation.status < INTERRUPTED // 10
        ):
            yield f"it was given up: {message} (code {code})"
        case "interrupted":
            yield "it was interrupted" + ("" if message is None else f": {message} (code {code})")
        case _:
            pass


def _counts(situation: Situation) -> Callable[[StoredRate], bool]:
    """Whether a rate slows the job: that of all workers does not where each topic has a rate of its own."""
    own = {one.topic for one in situation.rates if one.topic}
    covered = bool(situation.work) and all(work.topic in own for work in situation.work)
    return lambda one: one.rate != 0 and not (one.scope == "workers" and not one.topic and covered)


class _Branches:
    """Collects reasons by activity and address, and counts the obligations they stand for."""

    def __init__(
        self,
        situation: Situation,
        plan: Plan | None,
        serves: Serves,
        children: Mapping[str, Explanation],
    ) -> None:
        self._situation = situation
        self._graph: GraphPlan | None = None if plan is None else plan.graphs.get(situation.topic)
        self._serves = serves
        self._children = children
        self._found: dict[tuple[str, Dimension], list[Reason]] = {}
        self._types: dict[str, str] = {}
        self._entering = 0
        self._gathered = 0
        self._now = situation.now

    def all(self) -> tuple[Branch, ...]:
        return tuple(
            Branch(activity_id, self._type(activity_id), dimension, tuple(reasons))
            for (activity_id, dimension), reasons in self._found.items()
        )

    def find(self) -> None:
        """Everything that a running job waits for."""
        for work in self._situation.work:
            self._add(work.activity_id, work.dimension, self._work(work))
        for message in self._situation.messages:
            if message.kind == "start":
                trigger = "" if self._graph is None else self._graph.trigger.id
                self._add(trigger or "start", (0,), self._message(message))
                continue
            if message.kind in ("interrupt", "resume"):
                self._add("", (), self._message(message))
                continue
            self._entering += message.kind == "enter"
            self._add(message.activity_id, message.dimension, self._message(message))
        for timer in self._situation.timers:
            late = timer.due_at <= self._now
            due = (
                f"it was due {_ago(self._now - timer.due_at)}"
                if late
                else f"due in {_span(timer.due_at - self._now)}"
            )
            failed = f"; handling it has failed {_times(timer.attempt)}" if timer.attempt else ""
            self._add(
                timer.activity_id,
                timer.dimension,
                Reason(
                    "timer",
                    f"its timer, set {_ago(self._now - timer.set_at)}, {due}{failed}",
                    self._engine(timer.due_at) if late else due,
                    timer.set_at,
                    timer.due_at,
                    attempt=timer.attempt,
                ),
            )
        for wait in self._situation.waits:
            self._add(
                wait.activity_id,
                wait.dimension,
                Reason(
                    "signal",
                    f"a signal on topic {wait.topic} with key {wait.key}, for {_span(self._now - wait.created_at)}",
                    f"signal topic {wait.topic} with key {wait.key}",
                    wait.created_at,
                    topic=wait.topic,
                    key=wait.key,
                ),
            )
        for child in self._situation.children:
            self._add(child.activity_id, child.dimension, self._child(child))
        for record in self._situation.records:
            self._types[record.activity_id] = record.type
            reason = self._record(record)
            if reason is not None:
                self._add(record.activity_id, record.dimension, reason)
        self._joins()

    def pending(self) -> None:
        """The one thing that a job in pending mode waits for."""
        situation = self._situation
        until = situation.expires_at
        gone = "" if until is None else f"; it is gone in {_span(until - self._now)}"
        trigger = "" if self._graph is None else self._graph.trigger.id
        self._add(
            trigger,
            (0,),
            Reason(
                "pending",
                f"it was created in pending mode{gone}",
                "resume the job",
                situation.created_at,
                until,
            ),
        )

    def unaccounted(self) -> int:
        """Open obligations that nothing stands for; 0 where not everything was looked at."""
        if self.omitted():
            return 0
        places = {
            place
            for place, reasons in self._found.items()
            if place[0] and any(not _counted_apart(reason) for reason in reasons)
        }
        return max(self._situation.status - len(places) - self._entering - self._gathered, 0)

    def omitted(self) -> int:
        """Rows that were not looked at, because the job has too many."""
        found = self._situation
        return found.number - len(found.work) - len(found.messages) - len(found.children)

    # -- the kinds ---------------------------------------------------------------------------------------

    def _work(self, work: QueuedWork) -> Reason:
        queued = f"queued {_ago(self._now - work.created_at)}"
        failures = f", {_times(work.attempt)} failed" if work.attempt else ""
        known: dict[str, Any] = {
            "since": work.created_at, "topic": work.topic, "attempt": work.attempt,
        }  # fmt: skip
        ahead = work.visible_at > self._now
        due = _span(work.visible_at - self._now)
        if ahead and work.reserved_by is not None:
            text = f"a worker on topic {work.topic}: {queued}{failures}, held by {work.reserved_by}"
            return Reason(
                "held",
                f"{text}, whose lease ends in {due} unless it is renewed",
                f"the answer of {work.reserved_by}; without a sign of life another worker takes it in {due}",
                until=work.visible_at,
                held_by=work.reserved_by,
                **known,
            )
        if ahead:
            text = f"its next try by a worker on topic {work.topic} in {due}: {queued}{failures}"
            return Reason("retry", text, f"due in {due}", until=work.visible_at, **known)
        lost = (
            f", handed out {_times(work.delivery)} and never answered"
            if work.delivery
            else ", taken by nobody"
        )
        text = f"a worker on topic {work.topic}: {queued}{failures}{lost}"
        for one in self._situation.topics:
            if (one.topic, one.workflow_name) == (work.topic, work.workflow_name):
                break
        else:
            one = None
        if self._paused("workers", work.topic):
            unblock = f"resume the workers of topic {work.topic}"
        elif one is not None and one.holders:
            names = ", ".join(one.holders)
            unblock = (
                f"the workers of topic {work.topic} ({names}) are busy with other jobs; start more of them"
            )
        elif self._serves(work.topic, work.workflow_name):
            unblock = f"this process has a worker on topic {work.topic} and takes it in a moment"
        elif one is not None and one.others:
            names = ", ".join(one.others)
            unblock = (
                f"start a worker on topic {work.topic} that takes workflow name {work.workflow_name}, or any; "
                f"those that hold other work of the topic ({names}) may be for other names, or busy"
            )
        else:
            unblock = f"start a worker on topic {work.topic}"
        return Reason("work", text, unblock, until=None, **known)

    def _message(self, message: QueuedMessage) -> Reason:
        what = _MESSAGES.get(message.kind, message.kind)
        ahead = message.visible_at > self._now
        failed = f"; handling it has failed {_times(message.attempt)}" if message.attempt else ""
        text = f"an engine to handle {what}, queued {_ago(self._now - message.created_at)}{failed}"
        ahead_for = _span(message.visible_at - self._now)
        unblock = f"due in {ahead_for}" if ahead else self._engine(message.visible_at)
        until = message.visible_at if ahead else None
        return Reason(
            "message", text, unblock, message.created_at, until, attempt=message.attempt, topic=message.kind
        )

    def _engine(self, since: datetime) -> str:
        """What would make an engine handle what has been due since then."""
        if self._paused("engines"):
            return "resume the engines"
        return "start an engine" if self._now - since > RECORD_STALE else "an engine takes it in a moment"

    def _paused(self, scope: str, topic: str = "") -> bool:
        """Whether consumers take nothing: the rate of a topic's workers, if it has one, counts alone."""
        rates = {(one.scope, one.topic): one.rate for one in self._situation.rates}
        return rates.get((scope, topic), rates.get((scope, ""), 0)) < 0

    def _child(self, child: LiveChild) -> Reason:
        explained = self._children.get(child.job_id)
        unblock = f"the end of job {child.job_id}"
        text = f"job {child.job_id}, for {_span(self._now - child.created_at)} (status {child.status})"
        return Reason("child", text, unblock, child.created_at, child=explained)

    def _record(self, record: OpenRecord) -> Reason | None:
        """What an open record waits for that no row stands for."""
        activity_id, since = record.activity_id, record.started_at
        if (activity_id, record.dimension) in self._found:
            return None
        if record.state == "pending" and record.type == "worker":
            text = "further answers: the first one was pending"
            return Reason("answers", text, f"add an answer to {activity_id}", since)
        if self.omitted():
            return None
        text = "nothing any more: no work, timer, signal or job stands for it"
        return Reason("lost", text, f"add an answer to {activity_id}, or interrupt the job", since)

    def _joins(self) -> None:
        """Branches that have arrived at a join and wait there for others; each group is one obligation."""
        waiting = (self._situation.open or {}).get("waiting", {})
        for join_id, passes in waiting.items():
            for groups in passes.values():
                for group in groups:
                    self._gathered += 1
                    address = max(map(tuple, group.values()))
                    self._add(join_id, address, self._join(join_id, group))

    def _join(self, join_id: str, group: Mapping[str, Any]) -> Reason:
        activity = self._activity(join_id)
        plan = None if activity is None else activity.join
        branches = () if plan is None else sorted(plan.branches - group.keys())
        arrived, missing = _sources(group), _sources(branches)
        counted = self._situation.open or {}
        ahead = {name for part in ("at", "to") for name in counted.get(part, {})}
        before = [] if plan is None else sorted(ahead & (plan.feeders | {join_id}))
        text = f"its other branches: {_list(arrived)} arrived, {_list(missing)} did not yet"
        unblock = f"progress of {_list(before)}" if before else f"the arrival of {_list(missing)}"
        return Reason("join", text, unblock, arrived=arrived, missing=missing)

    # -- parts -------------------------------------------------------------------------------------------

    def _add(self, activity_id: str, dimension: Dimension, reason: Reason) -> None:
        self._found.setdefault((activity_id, dimension), []).append(reason)

    def _activity(self, activity_id: str) -> ActivityPlan | None:
        return None if self._graph is None else self._graph.activities.get(activity_id)

    def _type(self, activity_id: str) -> str:
        activity = self._activity(activity_id)
        return self._types.get(activity_id, "") if activity is None else activity.type


_NUMBER = re.compile(r" [0-9]+\Z")

_MESSAGES = {
    "answer": "its answer",
    "added": "an added answer",
    "result": "the result of a job",
    "signal": "its signal",
    "enter": "its beginning",
    "interrupt": "an interrupt",
    "resume": "the call to resume",
    "start": "its start",
}


def _counted_apart(reason: Reason) -> bool:
    """Whether the address is not that of the activity: it is still to be entered, or gathers its branches."""
    return reason.kind == "join" or (reason.kind == "message" and reason.topic == "enter")


def _sources(branches: Iterable[str]) -> tuple[str, ...]:
    """The activities that branches come from: `charge 1` is the second transition of `charge`."""
    return tuple(dict.fromkeys(_NUMBER.sub("", branch) for branch in branches))


# -- words ---------------------------------------------------------------------------------------------------


def _lines(told: Explanation) -> Iterator[str]:
    age = _span(told.now - told.created_at)
    yield f"job {told.job_id} on topic {told.topic}, version {told.version} of app {told.app_id}"
    opened = (
        f", {told.status} open obligation{'' if told.status == 1 else 's'}" if told.state == "running" else ""
    )
    yield f"  {told.state}{opened}; created {age} ago, last step {_ago(told.now - told.updated_at)}"
    for note in told.notes:
        yield f"  {note}"
    for branch in told.branches:
        yield ""
        yield f"  {_title(branch)} waits for"
        for reason in branch.reasons:
            yield f"    {reason.text}"
            yield f"      → {reason.unblock}"
            if reason.child is not None:
                yield from (f"      {line}" if line else "" for line in _lines(reason.child))
    if told.omitted:
        yield ""
        yield f"  … and for {told.omitted:,} more of the same"
    if told.unaccounted:
        yield ""
        yield f"  {told.unaccounted} open obligation{'' if told.unaccounted == 1 else 's'} left no trace (a job that it"
        yield "  awaited was scrubbed, perhaps): nothing will come for them"
        yield "      → interrupt the job"
    for letter in told.dead_letters:
        yield ""
        where = f"{letter.activity_id} at {_address(letter.dimension)}: " if letter.activity_id else ""
        yield f"  dead letter {letter.id}, {_ago(told.now - letter.dead_at)}: {where}{letter.reason}"
        yield f"      → requeue dead letter {letter.id}, or discard it"


def _title(branch: Branch) -> str:
    if not branch.activity_id:
        return "the job itself"
    kind = f"{branch.type} " if branch.type else ""
    return f"{kind}{branch.activity_id} at {_address(branch.dimension)}"


def _address(dimension: Dimension) -> str:
    return "/".join(map(str, dimension))


def _ago(span: timedelta) -> str:
    return f"{_span(span)} ago"


def _span(span: timedelta) -> str:
    """`250 ms`, `12 s`, `3 min`, `2.5 h`, `4 days`."""
    seconds = max(span.total_seconds(), 0.0)
    for limit, size, unit in ((1, 0.001, "ms"), (120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _list(names: Collection[str]) -> str:
    return ", ".join(names) if names else "none"


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, moments as ISO text, addresses as `0/0`."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Explanation | Branch | Reason | Buried):
        found = {}
        for name in value.__dataclass_fields__:
            item = getattr(value, name)
            found[name] = _address(item) if name == "dimension" else _plain(item)
        return found
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value

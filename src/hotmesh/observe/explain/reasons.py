"""What one obligation means: what is waited for, in words, and what would end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from hotmesh.core.durable.state import BY_ID, EXECUTION, OF_WORKFLOW, RUN, TURN
from hotmesh.observe.explain.model import Explanation, Reason
from hotmesh.observe.explain.situation import ServedTopic, Situation
from hotmesh.observe.explain.text import ago, length, times
from hotmesh.observe.obligations import Obligation

Serves = Callable[[str, str], bool]
"""Whether this process has a worker that takes work of a topic and workflow name."""

STALE: Final = timedelta(seconds=5)
"""Engines take a message within this time, if there are any."""

_MESSAGES: Final = {
    "answer": "its answer",
    "added": "an added answer",
    "result": "the result of a job",
    "signal": "its signal",
    "enter": "its beginning",
    "interrupt": "an interrupt",
    "resume": "the call to resume",
    "start": "its start",
    "cancel": "the request to cancel it",
    "pause": "the request to pause it",
}


class Reasons:
    """Tells why the obligations of one job are still there. `children`: what is known of awaited jobs."""

    def __init__(self, situation: Situation, serves: Serves, children: Mapping[str, Explanation]) -> None:
        self._situation = situation
        self._serves = serves
        self._children = children
        self._now = situation.now

    def of(self, one: Obligation) -> Reason:
        """The reason that an obligation is."""
        match one.kind:
            case "work":
                return self._work(one)
            case "message":
                return self._message(one)
            case "timer":
                return self._timer(one)
            case "signal":
                return self._signal(one)
            case "child":
                return self._child(one)
            case _:
                assert_never(one.kind)

    def pending(self) -> Reason:
        """The one thing that a job in pending mode waits for."""
        until = self._situation.expires_at
        gone = "" if until is None else f"; it is gone in {length(until - self._now)}"
        text = f"it was created in pending mode{gone}"
        return Reason("pending", text, "resume the job", self._situation.created_at, until)

    def step(self) -> Reason:
        """A step of a durable function that runs in a process: no row stands for it but the right of that process."""
        holder = self._situation.holder or "a process"
        text = f"steps that run in {holder}, or are about to"
        unblock = f"the end of a step; if {holder} dies, or stands still, another host takes over"
        if holder in self._situation.gone:
            unblock = f"{holder} is gone: another host takes over within seconds; start a worker of the queue if there is none"
        return Reason(
            "step", text, unblock, self._situation.updated_at, held_by=self._situation.holder or None
        )

    # -- work --------------------------------------------------------------------------------------------

    def _work(self, work: Obligation) -> Reason:
        topic, visible_at = work.name, work.due_at
        queued = f"queued {ago(self._now - work.since)}"
        failures = f", {times(work.attempt)} failed" if work.attempt else ""
        known: dict[str, Any] = {
            "since": work.since,
            "topic": topic,
            "attempt": work.attempt,
            "error": work.error,
        }
        due = length(visible_at - self._now)
        if visible_at > self._now and work.held_by in self._situation.gone:
            text = (
                f"a worker on topic {topic}: {queued}{failures}; {work.held_by} is gone and holds it until "
                f"{visible_at:%H:%M:%S} UTC, or until an engine gives it back"
            )
            taker = self._taker(topic, work.key)
            return Reason("held", text, taker, until=visible_at, held_by=work.held_by, **known)
        if visible_at > self._now and work.held_by is not None:
            text = f"a worker on topic {topic}: {queued}{failures}, held by {work.held_by}"
            if work.beside is False:
                text += f" and tried alone there, because its process died {times(work.delivery - 1)} with it"
            return Reason(
                "held",
                f"{text}, whose lease ends in {due} unless it is renewed",
                f"the answer of {work.held_by}; without a sign of life another worker takes it in {due}",
                until=visible_at,
                held_by=work.held_by,
                **known,
            )
        if visible_at > self._now:
            text = f"its next try by a worker on topic {topic} in {due}: {queued}{failures}"
            return Reason("retry", text, f"due in {due}", until=visible_at, **known)
        lost = (
            f", handed out {times(work.delivery)} and never answered"
            if work.delivery
            else ", taken by nobody"
        )
        text = f"a worker on topic {topic}: {queued}{failures}{lost}"
        return Reason("work", text, self._taker(topic, work.key), until=None, **known)

    def _taker(self, topic: str, workflow_name: str) -> str:
        """What would make a worker take work that anybody may have."""
        if self._situation.paused("workers", topic):
            return f"resume the workers of topic {topic}"
        served = self._served(topic, workflow_name)
        gone = self._situation.gone
        living = [] if served is None else [name for name in served.holders if name not in gone]
        dead = [] if served is None else [name for name in served.holders if name in gone]
        if living:
            names = ", ".join(living)
            return f"the workers of topic {topic} ({names}) are busy with other jobs; start more of them"
        if self._serves(topic, workflow_name):
            return f"this process has a worker on topic {topic} and takes it in a moment"
        if dead:
            names, verbs = ", ".join(dead), "is gone and holds" if len(dead) == 1 else "are gone and hold"
            return f"{names} {verbs} work of this topic; no worker serves {topic}: start one"
        if served is not None and served.others:
            names = ", ".join(served.others)
            return (
                f"start a worker on topic {topic} that takes workflow name {workflow_name}, or any; "
                f"those that hold other work of the topic ({names}) may be for other names, or busy"
            )
        return f"start a worker on topic {topic}"

    def _served(self, topic: str, workflow_name: str) -> ServedTopic | None:
        for one in self._situation.topics:
            if (one.topic, one.workflow_name) == (topic, workflow_name):
                return one
        return None

    # -- all else ----------------------------------------------------------------------------------------

    def _message(self, message: Obligation) -> Reason:
        kind, visible_at = message.name, message.due_at
        what = _MESSAGES.get(kind, kind)
        ahead = visible_at > self._now
        failed = f"; handling it has failed {times(message.attempt)}" if message.attempt else ""
        failed += _deadly(message)
        text = f"an engine to handle {what}, queued {ago(self._now - message.since)}{failed}"
        unblock = f"due in {length(visible_at - self._now)}" if ahead else self._engine(visible_at)
        until = visible_at if ahead else None
        return Reason("message", text, unblock, message.since, until, attempt=message.attempt, topic=kind)

    def _timer(self, timer: Obligation) -> Reason:
        due_at = timer.due_at
        late = due_at <= self._now
        due = f"it was due {ago(self._now - due_at)}" if late else f"due in {length(due_at - self._now)}"
        failed = f"; handling it has failed {times(timer.attempt)}" if timer.attempt else ""
        failed += _deadly(timer)
        what = self._named(timer)
        text = f"{what}, set {ago(self._now - timer.since)}, {due}{failed}"
        unblock = self._engine(due_at) if late else due
        return Reason("timer", text, unblock, timer.since, due_at, attempt=timer.attempt)

    def _named(self, timer: Obligation) -> str:
        """What the timer is: of a durable function it may be more than one thing."""
        if self._situation.queue is None:
            return "its timer"
        whole = {
            EXECUTION: "the end of its execution timeout",
            RUN: "the end of its run timeout",
            TURN: "its timer",
        }
        if timer.activity_id in whole:
            return whole[timer.activity_id]
        return "its timer" if len(timer.dimension) == 2 else "the end of its timeout"

    def _signal(self, wait: Obligation) -> Reason:
        if wait.name == BY_ID:
            text = f"a signal to id {wait.key}, for {length(self._now - wait.since)}"
            return Reason("signal", text, f"signal {wait.key}", wait.since, topic=wait.name, key=wait.key)
        if wait.name == OF_WORKFLOW:
            text = f"a signal of that name to this workflow, for {length(self._now - wait.since)}"
            unblock = f"signal {wait.activity_id} to the workflow"
            return Reason("signal", text, unblock, wait.since, topic=wait.name, key=wait.activity_id)
        text = f"a signal on topic {wait.name} with key {wait.key}, for {length(self._now - wait.since)}"
        unblock = f"signal topic {wait.name} with key {wait.key}"
        return Reason("signal", text, unblock, wait.since, topic=wait.name, key=wait.key)

    def _child(self, child: Obligation) -> Reason:
        explained = self._children.get(child.name)
        text = f"job {child.name}, for {length(self._now - child.since)} (status {child.status})"
        return Reason("child", text, f"the end of job {child.name}", child.since, child=explained)

    def _engine(self, since: datetime) -> str:
        """What would make an engine handle what has been due since then."""
        if self._situation.paused("engines"):
            return "resume the engines"
        return "start an engine" if self._now - since > STALE else "an engine takes it in a moment"


def _deadly(event: Obligation) -> str:
    """That engines die, and this may be why."""
    return f"; engines die, and took it {times(event.delivery)}" if event.delivery else ""

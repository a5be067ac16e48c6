"""What keeps or ended a job as a whole, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hotmesh.core.durable.state import State
from hotmesh.core.state.job import INTERRUPTED
from hotmesh.enums import Code
from hotmesh.errors import in_short, place
from hotmesh.observe.explain.situation import Situation, StoredRate
from hotmesh.observe.explain.text import times


def notes(situation: Situation, *, deployed: bool) -> Iterator[str]:
    """One sentence each; `deployed`: the job's version is known here."""
    error = situation.error if isinstance(situation.error, dict) else {}
    said, code = _words(error), error.get("code")
    running = situation.state == "running"
    if situation.queue is not None:
        yield from _of_function(situation)
    elif not deployed:
        yield f"version {situation.version} is not deployed here: no engine can go on with it; deploy it"
    if running and situation.error is not None:
        yield f"a branch has failed, and whoever waits was told: {said}"
    if situation.cancelled:
        yield "it is marked as cancelled"
    if running:
        yield from map(_rate, filter(_slows(situation), situation.rates))
    match situation.state:
        case "complete":
            yield "it is complete: nothing is open"
        case "failed":
            yield f"it has ended with an error: {said}"
        case "interrupted" if code == Code.LOST and situation.status < INTERRUPTED // 10:
            yield f"it was given up: {said}"
        case "interrupted":
            yield "it was interrupted" + (f": {said}" if error else "")
        case _:
            pass


def _of_function(situation: Situation) -> Iterator[str]:
    """What is particular to a durable function."""
    if situation.state != "running":
        return
    state = State.of(situation.open)
    if state.paused:
        yield "it is paused: resume it"
    if state.cancelled:
        yield "it has been asked to end, and cleans up, or did not take notice"
    if state.parked is not None:
        yield f"it is parked, and tried again: {state.parked.message}"
    elif state.attempt:
        yield f"its function has failed {times(state.attempt)}, and is run again"
    if situation.recoveries:
        yield f"it was taken over {times(situation.recoveries)} in a row from processes that had died"


def _words(error: Mapping[str, Any]) -> str:
    """What went wrong, and where: `worker w failed at attempt 3 of 3: ValueError: boom (code 500)`."""
    where = place(error)
    if where and error.get("attempt") is not None:
        where += f" failed at attempt {error['attempt']} of {error.get('attempts', error['attempt'])}"
    return f"{where}{where and ': '}{in_short(error)} (code {error.get('code')})"


def _rate(one: StoredRate) -> str:
    who = f"workers of topic {one.topic}" if one.topic else f"all {one.scope}"
    if one.rate < 0:
        return f"{who} are paused: resume them"
    return f"{who} are throttled: one message per {one.rate} ms"


def _slows(situation: Situation) -> Callable[[StoredRate], bool]:
    """Whether a rate slows the job: that of all workers does not where each topic has a rate of its own."""
    own = {one.topic for one in situation.rates if one.topic}
    topics = [one.name for one in situation.obligations if one.kind == "work"]
    covered = bool(topics) and all(topic in own for topic in topics)
    return lambda one: one.rate != 0 and not (one.scope == "workers" and not one.topic and covered)

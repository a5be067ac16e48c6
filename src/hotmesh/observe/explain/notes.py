"""What keeps or ended a job as a whole, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hotmesh.core.state.job import INTERRUPTED
from hotmesh.enums import Code
from hotmesh.observe.explain.situation import Situation, StoredRate


def notes(situation: Situation, *, deployed: bool) -> Iterator[str]:
    """One sentence each; `deployed`: the job's version is known here."""
    message, code = _said(situation.error)
    running = situation.state == "running"
    if not deployed:
        yield f"version {situation.version} is not deployed here: no engine can go on with it; deploy it"
    if running and situation.error is not None:
        yield f"a branch has failed, and whoever waits was told: {message} (code {code})"
    if situation.cancelled:
        yield "it is marked as cancelled"
    if running:
        yield from map(_rate, filter(_slows(situation), situation.rates))
    match situation.state:
        case "complete":
            yield "it is complete: nothing is open"
        case "failed":
            yield f"it has ended with an error: {message} (code {code})"
        case "interrupted" if code == Code.LOST and situation.status < INTERRUPTED // 10:
            yield f"it was given up: {message} (code {code})"
        case "interrupted":
            yield "it was interrupted" + ("" if message is None else f": {message} (code {code})")
        case _:
            pass


def _said(error: Any) -> tuple[Any, Any]:
    """Message and code of an error."""
    return (error.get("message"), error.get("code")) if isinstance(error, dict) else (None, None)


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

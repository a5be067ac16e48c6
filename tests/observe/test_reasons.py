"""What a situation means, without a database: the words, and who is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotmesh.observe.explain.explain import explanation
from hotmesh.observe.explain.model import Explanation
from hotmesh.observe.explain.situation import OpenRecord, ServedTopic, Situation, StoredRate
from hotmesh.observe.explain.text import ago, length, listed, plural, times
from hotmesh.observe.obligations import Obligation, ObligationKind

NOW = datetime(2024, 2, 29, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(minutes=5)


def obligation(kind: ObligationKind, name: str = "", **more: Any) -> Obligation:
    values: dict[str, Any] = {
        "activity_id": "a1", "dimension": (0, 0), "key": "", "since": LONG_AGO, "until": LONG_AGO,
        "held_by": None, "attempt": 0, "delivery": 0, "status": None,
    }  # fmt: skip
    return Obligation(kind, name=name, **(values | more))


def explained(*obligations: Obligation, serves: bool = False, **more: Any) -> Explanation:
    """What a running job with these obligations, one of each, waits for; its version is not deployed."""
    values: dict[str, Any] = {
        "job_id": "j", "version": "1", "topic": "t", "state": "running", "status": len(obligations), "error": None,
        "open": None, "cancelled": False, "created_at": LONG_AGO, "updated_at": LONG_AGO, "ended_at": None,
        "expires_at": None, "now": NOW, "topics": [], "records": [], "dead_letters": [], "rates": [],
        "number": sum(one.kind in ("work", "message", "child") for one in obligations),
        "obligations": list(obligations),
        "gone": [],
    }  # fmt: skip
    return explanation("app", Situation(**(values | more)), None, lambda *_: serves, {})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 ms"), (0.25, "250 ms"), (12, "12 s"), (180, "3 min"), (7_200, "2 h"), (345_600, "4 days")],
)
def test_spans_of_time(seconds: float, words: str) -> None:
    assert length(timedelta(seconds=seconds)) == words
    assert ago(timedelta(seconds=seconds)) == f"{words} ago"


def test_counts_and_lists() -> None:
    assert (times(1), times(3)) == ("once", "3 times")
    assert (plural(1, "step"), plural(2, "step")) == ("1 step", "2 steps")
    assert (listed(()), listed(("a", "b"))) == ("none", "a, b")


@pytest.mark.parametrize(
    ("served", "serves", "unblock"),
    [
        ([], False, "start a worker on topic w"),
        ([], True, "this process has a worker on topic w and takes it in a moment"),
        ([ServedTopic("w", "x", ("p1", "p2"), ())], True, "the workers of topic w (p1, p2) are busy with other jobs; start more of them"),
        ([ServedTopic("w", "x", (), ("p1",))], False, "start a worker on topic w that takes workflow name x, or any; those that hold other work of the topic (p1) may be for other names, or busy"),
        ([ServedTopic("w", "y", ("p1",), ())], False, "start a worker on topic w"),
    ],
)  # fmt: skip
def test_who_could_take_work(served: list[ServedTopic], serves: bool, unblock: str) -> None:
    told = explained(obligation("work", "w", key="x"), serves=serves, topics=served)
    assert told.unblock == (unblock,)


def test_a_lease_and_a_retry_end_by_themselves() -> None:
    soon = NOW + timedelta(seconds=20)
    held = explained(obligation("work", "w", until=soon, held_by="p1")).branches[0].reasons[0]
    retry = explained(obligation("work", "w", until=soon, attempt=2)).branches[0].reasons[0]
    assert (held.kind, held.held_by, held.until) == ("held", "p1", soon)
    assert (retry.kind, retry.attempt, retry.unblock) == ("retry", 2, "due in 20 s")


def test_an_engine_that_is_late_is_not_there() -> None:
    fresh = explained(obligation("message", "answer", until=NOW - timedelta(seconds=2)))
    late = explained(obligation("message", "answer"))
    paused = explained(obligation("timer"), rates=[StoredRate("engines", "", -1)])
    assert fresh.unblock == ("an engine takes it in a moment",)
    assert late.unblock == ("start an engine",)
    assert paused.unblock == ("resume the engines",)
    assert "all engines are paused: resume them" in paused.notes


def test_what_concerns_the_job_itself_belongs_to_no_activity() -> None:
    told = explained(obligation("message", "interrupt"), obligation("message", "start"), status=1)
    assert [(branch.activity_id, branch.dimension) for branch in told.branches] == [("", ()), ("start", (0,))]
    assert "the job itself waits for" in str(told)


def test_obligations_are_counted_once_and_those_without_a_trace_are_missed() -> None:
    at_once = explained(obligation("timer"), obligation("signal", "s", key="k"), status=1)
    entering = explained(obligation("message", "enter"), obligation("timer"), status=2)
    lost = explained(obligation("timer"), status=3)
    assert (at_once.unaccounted, entering.unaccounted, lost.unaccounted) == (0, 0, 2)
    assert "2 open obligations left no trace" in str(lost)


def test_where_not_everything_was_looked_at_nothing_is_missed() -> None:
    record = OpenRecord("r1", (0, 1), "worker", "open", LONG_AGO)
    told = explained(obligation("work", "w"), number=300, status=300, records=[record])
    assert (told.omitted, told.unaccounted, len(told.branches)) == (299, 0, 1)
    assert explained(records=[record], status=1).branches[0].reasons[0].kind == "lost"


def test_a_job_that_was_given_up_says_so() -> None:
    error = {"message": "poison", "code": 598}
    given_up = explained(state="interrupted", status=-999_999_999, error=error)
    failed = explained(state="failed", status=0, error=error)
    assert "it was given up: poison (code 598)" in given_up.notes
    assert "it has ended with an error: poison (code 598)" in failed.notes
    assert given_up.notes[0].startswith("version 1 is not deployed here")

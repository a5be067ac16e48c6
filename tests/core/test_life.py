"""The table of an activity's life is what happens: a random run never leaves it, and no entry of it goes unseen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model import World, decode, encode, one_graph
from test_properties import SETTINGS, Graph, graphs, world_of

from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.life import HAPPENINGS, LIFE
from hotmesh.core.state.job import ActivityRecord, Dimension, Event
from hotmesh.core.values import UNDEFINED

PAGE = Path(__file__).parent.parent.parent / "docs" / "job-life-cycle.md"

ENTRIES = {(state, happening) for state, moves in LIFE.items() for happening in moves}
CHANGES = {(state, move.to) for state, moves in LIFE.items() for move in moves.values()}
# Most passes that wait are on no record before their first answer.
WRITTEN = CHANGES | {("absent", to) for state, to in CHANGES if state == "open"}

OUTCOMES = {(False, False): "none", (True, False): "its own", (True, True): "that of a further pass"}


class Seen:
    """What the steps have looked up in the table, and which changes of records they have written."""

    def __init__(self) -> None:
        self.entries: set[tuple[str, str]] = set()
        self.changes: set[tuple[str, str]] = set()


class Watched(dict[Any, Any]):
    """One row of the table, which notes what is looked up in it."""

    def __init__(self, state: str, moves: Any, seen: Seen) -> None:
        super().__init__(moves)
        self._state, self._seen = state, seen

    def __getitem__(self, happening: Any) -> Any:
        self._seen.entries.add((self._state, happening))
        return super().__getitem__(happening)


@contextmanager
def watching(seen: Seen) -> Iterator[None]:
    put = JobDraft.put

    def watched(draft: JobDraft, activity_id: str, dimension: Dimension, record: ActivityRecord) -> None:
        before = draft.record(activity_id, dimension)
        seen.changes.add(("absent" if before is None else before.state, record.state))
        put(draft, activity_id, dimension, record)

    with pytest.MonkeyPatch.context() as patch:
        for state, moves in LIFE.items():
            patch.setitem(LIFE, state, Watched(state, moves, seen))
        patch.setattr(JobDraft, "put", watched)
        yield


# -- random runs -----------------------------------------------------------------------------------------

ANSWERS = st.sampled_from(
    [("success", 200), ("success", 200), ("success", 201), ("error", 500), ("pending", 202), ("pending", 202)]
)


def wander(graph: Graph, data: st.DataObject) -> None:
    """Deliver whatever may come, answers with 202 and repetitions among it, until enough has happened."""
    world = world_of(graph, in_memory=data.draw(st.booleans()), activities=1000)
    world.start({"n": "t"})
    old: list[tuple[str, Event]] = []
    for _ in range(25):
        for wait in list(world.waits.values()):
            world.send_signal(wait.topic, {"id": wait.key, "n": 1})
        coming: list[tuple[str, Event]] = []
        for place in sorted(world.work):
            status, code = data.draw(ANSWERS)
            answer: Any = {"message": "no"} if status == "error" else {"n": 1}
            event = world.answer_event(place, answer, status=status, code=code)
            if status == "pending":
                # The worker keeps its message, and the answer is told apart by an id of its own.
                event = Event(
                    "added", place[1], place[2], status, code, answer, message_id=f"more:{len(old)}"
                )
            coming.append((place[0], event))
        coming += [(place[0], world.timer_event(place)) for place in sorted(world.timers)]
        coming += [world.message_event(key) for key in world.messages]
        for generation, event in old:
            if event.status == "pending" and world.jobs[generation].live:
                coming.append((generation, event))
                last = Event(
                    "added", event.activity_id, event.dimension, data={"n": 2}, message_id=f"last:{len(old)}"
                )
                coming.append((generation, last))
        if not coming:
            return
        generation, event = data.draw(st.sampled_from(coming))
        world.happen(generation, event)
        if event.kind != "enter":
            old.append((generation, _again(event)))
        generation, event = data.draw(st.sampled_from(old)) if old else (generation, event)
        if event.message_id and world.jobs[generation].live and data.draw(st.booleans()):
            world.happen(generation, event)


def _again(event: Event) -> Event:
    return Event(
        event.kind, event.activity_id, event.dimension, event.status, event.code, event.data, event.message_id
    )


# -- what random runs do not come to ---------------------------------------------------------------------


def added(activity: str, data: Any, *, status: str = "pending", guid: str = "1") -> Event:
    code = 202 if status == "pending" else 200
    return Event("added", activity, (0, 0), status, code, data, message_id=guid)


PICKY = """
activities:
  t: {type: trigger}
  w: {type: worker, topic: work, job: {maps: {n: {'@pipe': [['{$self.output.data.n}'], ['{@json.parse}']]}}}}
  v: {type: worker, topic: work}
transitions: {t: [{to: w}, {to: v}]}
"""


def failing_maps() -> None:
    """The maps of an outcome find nothing to work on: of the first answer, of a further one, of the last."""
    for before in ([], [added("w", {"n": "1"}, guid="0")]):
        for status in ("pending", "success"):
            world = World(one_graph(PICKY))
            job = world.start()
            for event in [*before, added("w", {"n": "{"}, status=status)]:
                world.happen(job, event)
            assert world.jobs[job].error is not None


def failing_parts() -> None:
    """An activity cannot do its part, with and without being on record."""
    graph = """
    activities:
      t: {{type: trigger}}
      a: {{type: await, topic: '{{t.output.data.topic}}'}}
      w: {{type: worker, topic: work}}
      c: {{type: cycle, ancestor: {ancestor}}}
    transitions: {{t: [{{to: a}}], a: [{{to: w, conditions: {{code: 200}}}}], w: [{{to: c, conditions: {{code: 404}}}}]}}
    """
    for ancestor in ("t", "a"):
        world = World(one_graph(graph.format(ancestor=ancestor)))
        job = world.start({"topic": "nowhere"})
        assert world.jobs[job].error is not None


def lost_activities() -> None:
    """A version without the activity takes over, while it waits, takes more answers, and has closed."""
    graph = "activities:\n  t: {type: trigger}\n  w: {type: worker, topic: work}\n  v: {type: worker, topic: work}\n"
    graph += "transitions: {t: [{to: w}, {to: v}]}\n"
    other = one_graph("activities: {t: {type: trigger}}")
    for before in ([], [added("w", {}, guid="0")], [added("w", {}, status="success")]):
        world = World(one_graph(graph))
        job = world.start()
        for event in before:
            world.happen(job, event)
        world.plan = other
        world.happen(job, added("w", {}, guid="2"))
        if world.jobs[job].live:
            world.happen(job, added("w", {}, guid="3"))
        assert decode(world.records[job, "w", (0, 0)]).state == "closed"


def opened_again() -> None:
    """An activity that was opened again knows the answers from before."""
    world = World(
        one_graph(
            "activities:\n  t: {type: trigger}\n  w: {type: worker, topic: work}\ntransitions: {t: [{to: w}]}"
        )
    )
    job = world.start()
    queued = dict(world.work)
    world.happen(job, added("w", {"n": 1}))
    world.forget()
    world.work |= queued
    record = decode(world.records[job, "w", (0, 0)])
    world.records[job, "w", (0, 0)] = encode(
        ActivityRecord("open", UNDEFINED, type="worker", started_at=record.started_at, seen=record.seen)
    )
    world.happen(job, added("w", {"n": 1}))
    assert decode(world.records[job, "w", (0, 0)]).state == "open"


def closed_by_a_further_pass() -> None:
    """An activity that was closed because an answer after the first one failed has kept the ids of its answers."""
    world = World(one_graph(PICKY))
    job = world.start()
    world.happen(
        job, added("w", {"n": "1"}, guid="0"), added("w", {"n": "{"}), added("w", {"n": "1"}, guid="0")
    )


# -- the tests -------------------------------------------------------------------------------------------


def test_every_entry_of_the_table_is_seen_and_nothing_outside_it() -> None:
    seen = Seen()

    @SETTINGS
    @given(graphs(), st.data())
    def run(graph: Graph, data: st.DataObject) -> None:
        wander(graph, data)

    with watching(seen):
        run()
        failing_maps()
        failing_parts()
        lost_activities()
        opened_again()
        closed_by_a_further_pass()
    assert seen.entries == ENTRIES
    assert seen.changes <= WRITTEN
    assert {
        (state, move.to) for state, moves in LIFE.items() for move in moves.values() if move.outcome
    } <= seen.changes


def test_the_page_shows_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert rows == [
        (state, happening, move.to, OUTCOMES[move.outcome, move.further])
        for state, moves in LIFE.items()
        for happening, move in moves.items()
    ]


def test_the_page_says_what_can_happen() -> None:
    text = PAGE.read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `(\w+)` \| ([^|`]+) \|$", text, re.MULTILINE))
    assert said == HAPPENINGS


def test_the_page_draws_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## The life of an activity")[2]
    drawn = {
        (state, happening.strip(), to)
        for state, to, happenings in re.findall(r"^    (\w+) --> (\w+): (.*)$", text, re.MULTILINE)
        for happening in happenings.split(",")
    }
    assert drawn == {
        (state, happening, move.to)
        for state, moves in LIFE.items()
        for happening, move in moves.items()
        if state != "closed"
    }

"""A step that has taken long enough leaves the rest to later ones."""

from __future__ import annotations

from itertools import count

from model import World, one_graph

from hotmesh.core.advance.limits import Limits

CHAIN = """
activities:
  t: {type: trigger}
  a: {type: hook}
  b: {type: hook}
  c: {type: hook, job: {maps: {y: '{t.output.data.x}'}}}
transitions:
  t: [{to: a}]
  a: [{to: b}]
  b: [{to: c}]
"""


def test_what_it_would_still_enter_is_entered_by_a_message() -> None:
    asked = count()
    world = World(one_graph(CHAIN), limits=Limits(enough=lambda: next(asked) == 1))
    job = world.start({"x": 1})

    [message] = world.steps[0].messages
    assert (message.kind, message.activity_id) == ("enter", "b")
    world.settle()
    assert (world.status(job), world.data(job)) == (0, {"y": 1})
    assert len(world.steps) == 2

"""What a mapping makes is a payload too: more than `max_payload` fails the activity whose mapping it is."""

from __future__ import annotations

import pytest
from model import World, one_graph

from hotmesh.core.advance.limits import Limits
from hotmesh.core.plan.compile import Plan
from hotmesh.errors import MappingError

MOST = 1_000

MADE = "{'@pipe': [['x', '{t.output.data.n}'], ['{@string.repeat}']]}"

MAKERS = {
    "worker": ("type: worker, topic: work, input: {maps: {x: MADE}}", "the input of worker m"),
    "await": ("type: await, topic: child, await: false, input: {maps: {x: MADE}}", "the input of await m"),
    "signal": (
        "type: signal, topic: come, signal: {maps: {id: k, x: MADE}}",
        "the signal of signal m",
    ),
    "hook": ("type: hook, output: {maps: {x: MADE}}", "the output of hook m"),
    "output of a signal": (
        "type: signal, topic: come, signal: {maps: {id: k}}, output: {maps: {x: MADE}}",
        "the output of signal m",
    ),
    "job": ("type: hook, job: {maps: {x: MADE}}", "what m writes to its job"),
    "search": ("type: hook, job: {maps: {-x: MADE}}", "what m writes to its job"),
    "many": ("type: hook, job: {maps: {a: MADE, b: {c: MADE}}}", "what m writes to its job"),
    "job of a wait": ("type: hook, sleep: 60, job: {maps: {x: MADE}}", "what m writes to its job"),
    "job of a signal": (
        "type: signal, topic: come, signal: {maps: {id: k}}, job: {maps: {x: MADE}}",
        "what m writes to its job",
    ),
    "interrupt": ("type: interrupt, target: other, reason: MADE", "what interrupt m says"),
    "escalation": (
        "type: hook, escalation: {role: r, metadata: {x: MADE}}",
        "the escalation of hook m",
    ),
}  # fmt: skip


def _plan(maker: str) -> Plan:
    hooks = "come: [{to: h, conditions: {match: [{expected: k, actual: '{$self.hook.data.id}'}]}}]"
    if "escalation" in maker:
        hooks = hooks.replace("to: h", "to: m")
    return one_graph(
        f"""
        activities:
          t: {{type: trigger}}
          m: {{{maker.replace("MADE", MADE)}}}
          e: {{type: hook, job: {{maps: {{why: '{{m.output.metadata.$error.message}}'}}}}}}
          h: {{type: hook}}
        transitions:
          t: [{{to: m}}]
          m: [{{to: e, conditions: {{code: 500}}}}, {{to: h, conditions: {{code: 599}}}}]
        hooks: {{{hooks}}}
        """,
        "subscribes: child\nactivities:\n  ct: {type: trigger}\n",
    )


@pytest.mark.parametrize(("maker", "what"), MAKERS.values(), ids=MAKERS)
def test_what_a_mapping_makes_too_large_fails_its_activity(maker: str, what: str) -> None:
    world = World(_plan(maker), limits=Limits(max_payload=MOST))
    job = world.start({"n": MOST})
    assert world.status(job) == 0
    [(name, why)] = world.data(job).items()
    size = MOST + 2 if "many" not in maker else 0
    assert name == "why"
    assert why.startswith(f"{what} has ")
    assert why.endswith(
        "bytes of JSON, more than the limit of 1,000 (max_payload): map less of it, or pass on a reference that its reader follows"
    )
    assert size == 0 or int(why.split(" bytes")[0].rsplit(" ", 1)[1].replace(",", "")) >= size
    assert not world.work
    assert not world.timers
    assert not world.waits
    assert not world.messages


@pytest.mark.parametrize("maker", [maker for maker, _ in MAKERS.values()], ids=MAKERS)
def test_what_is_within_the_limit_passes(maker: str) -> None:
    world = World(_plan(maker), limits=Limits(max_payload=MOST))
    job = world.start({"n": MOST // 4})
    assert "why" not in world.data(job)


def test_an_array_made_by_an_index_is_no_input() -> None:
    plan = one_graph(
        """
        activities:
          t: {type: trigger}
          w:
            type: worker
            topic: work
            input: {maps: {x: {'@pipe': [['{t.output.data.l}', '{t.output.data.k}', 1], ['{@object.set}']]}}}
        transitions:
          t: [{to: w}]
        """
    )
    for key, why in (
        ("9999999", "would be an array of 10,000,000 elements: it may have 1,048,576 at most"),
        ("999999", "the input of worker w has 5,000,004 bytes of JSON, more than the limit of 1,048,576"),
    ):
        world = World(plan)
        job = world.start({"l": [], "k": key})
        assert why in world.jobs[job].error["message"]
        assert not world.work


def test_a_payload_at_the_limit_can_be_kept_as_it_came() -> None:
    """Members of one payload are never more than all of it."""
    plan = one_graph(
        "activities:\n  t: {type: trigger, job: {maps: {a: '{$self.input.data.a}', b: '{$self.input.data.b}'}}}\n"
    )
    data = {"a": "x" * 490, "b": "y" * 496}
    world = World(plan, limits=Limits(max_payload=MOST))
    assert world.data(world.start(data)) == data
    with pytest.raises(MappingError, match="what t writes to its job has 1,010 bytes"):
        world.start({"a": "x" * 490, "b": "y" * 516})

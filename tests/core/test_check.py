import re
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotmesh.core.definition.build import build_app
from hotmesh.core.definition.check import check_app, check_app_id
from hotmesh.core.definition.graph import App, Match
from hotmesh.core.definition.manifest import manifest
from hotmesh.core.definition.parse import parse, parse_data
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.errors import Problem
from hotmesh.runtime.definitions.graph_files import inspect

GRAPHS = Path(__file__).parent.parent / "graphs"
BROKEN = sorted(GRAPHS.glob("broken_*.yaml"))
SOUND = sorted(path for path in GRAPHS.glob("*.yaml") if path not in BROKEN)

HEAD = "app:\n  id: demo\n  version: '1'\n  graphs:\n    - subscribes: start.here\n"
TRIGGER = "activities:\n  t1: {type: trigger}\n"


def built(graph: str) -> tuple[App, list[Problem]]:
    """An app of one graph, whose members are given without indentation, and all its problems."""
    document, problems = parse(HEAD + indent(dedent(graph), " " * 6))
    assert document is not None
    app, shape = build_app(document)
    assert app is not None
    return app, problems + shape + check_app(app)


def problems_of(graph: str) -> list[str]:
    return [f"{problem.severity} {problem.rule}: {problem.message}" for problem in built(graph)[1]]


def problems_with(activity: str, *, leads: str = "t1: [{to: x1}]") -> list[str]:
    """The problems of a graph whose trigger is followed by `activity`, called x1."""
    return problems_of(f"{TRIGGER}  x1: {activity}\ntransitions:\n  {leads}\n")


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_graph_has_all_its_problems_reported_at_their_places(path: Path) -> None:
    expected = re.findall(r"^# expect: (\w+) (\w+) (\d+):(\d+)$", path.read_text(), re.MULTILINE)
    found = [(p.severity, p.rule, str(p.line), str(p.column)) for p in inspect(path).problems]

    assert expected
    assert sorted(found) == sorted(expected)


def test_the_broken_graphs_cover_every_rule() -> None:
    rules = {
        rule
        for path in BROKEN
        for rule in re.findall(r"^# expect: \w+ (\w+)", path.read_text(), re.MULTILINE)
    }

    # V7 limits the number of data paths, and there is no limit.
    assert rules == {f"V{number}" for number in range(1, 19)} - {"V7"} | {"syntax", "shape", "reference"}


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.stem)
def test_a_sound_graph_has_no_problems_but_those_it_is_to_have(path: Path) -> None:
    expected = re.findall(r"^# expect: (warning) (\w+) (\d+):(\d+)$", path.read_text(), re.MULTILINE)
    found = [(p.severity, p.rule, str(p.line), str(p.column)) for p in inspect(path).problems]

    assert sorted(found) == sorted(expected)


def test_the_graph_is_built_with_our_names_and_the_authors_values() -> None:
    app, problems = built(
        """
        publishes: done
        expire: 5
        activities:
          t1:
            type: trigger
            stats: {id: '{$self.input.data.id}', measures: [{measure: count, target: '{$self.input.data.x}'}]}
          w1:
            type: worker
            topic: work
            statusThreshold: 1
            retry: {500: [3], '404': [2, x], 409: 1}
            retry_policy: {maximumAttempts: 5, maximum_interval: 5 minutes, initial_interval: 0.5}
            input: {maps: {a: 1}}
            job: {maps: {b: 2}}
          h1: {type: activity, sleep: 5}
        transitions:
          t1: [{to: w1}]
          w1: [{to: h1, conditions: {code: 422}}]
        hooks:
          done: [{to: h1, conditions: {match: [{expected: a, actual: '{$hook.data.id}'}]}}]
        """
    )
    (graph,) = app.graphs
    worker, hook = graph.activities["w1"], graph.activities["h1"]

    assert not problems
    assert (app.id, app.version, graph.subscribes, graph.publishes, graph.expire) == (
        "demo",
        "1",
        "start.here",
        "done",
        5,
    )
    assert (worker.topic, worker.status_threshold, worker.input_maps, worker.job_maps) == (
        "work",
        1,
        {"a": 1},
        {"b": 2},
    )
    assert worker.retry == {"500": (3, None), "404": (2, "x"), "409": (1, None)}
    assert worker.retry_policy == RetryPolicy(5, 10.0, 300.0, 0.5)
    assert (hook.type, hook.sleep, hook.pointer) == ("hook", 5, "/app/graphs/0/activities/h1")
    assert graph.transitions["w1"][0].conditions == {"code": 422}
    assert graph.hooks["done"][0].match == Match("a", "{$hook.data.id}")
    assert graph.activities["t1"].statistics is not None
    assert graph.activities["t1"].statistics.measures == (("count", "{$self.input.data.x}"),)


@pytest.mark.parametrize("root", [None, [], "text", {"apps": {}}, {"app": 5}])
def test_a_document_without_an_app_is_no_app(root: Any) -> None:
    document, _ = parse_data({"x": root})
    assert document is not None
    app, problems = build_app(type(document)(root))

    assert app is None
    assert problems[0].rule == "shape"


def test_a_document_whose_app_key_is_forgotten_gets_a_hint() -> None:
    document, _ = parse("id: x\nversion: '1'\ngraphs: []")
    assert document is not None

    assert build_app(document)[1][0].suggestion == "put id, version and graphs under app:"


def test_a_version_that_lost_a_digit_is_pointed_out() -> None:
    document, _ = parse("app: {id: x, version: 1.10, graphs: []}")
    assert document is not None
    app, problems = build_app(document)

    assert app is not None
    assert app.version == "1.1"
    assert [str(problem) for problem in problems] == [
        "<text>:1:23: V16: the version was read as the number 1.1 (put the version in quotes)"
    ]


def test_the_app_id_must_be_that_of_the_deploying_app() -> None:
    app, _ = built(TRIGGER)

    assert not check_app_id(app, "demo")
    (problem,) = check_app_id(app, "other")
    assert (problem.rule, problem.message, problem.line) == (
        "V16",
        "App ID mismatch: demo !== other: the document is of app demo, this instance of app other",
        2,
    )


def test_the_app_id_a_is_reserved() -> None:
    document, _ = parse("app: {id: a, version: '1', graphs: []}")
    assert document is not None
    app, _ = build_app(document)
    assert app is not None

    assert [problem.rule for problem in check_app(app)] == ["V16"]


@pytest.mark.parametrize(
    "activity",
    [
        "{type: worker, topic: '{t1.output.data.topic}'}",
        "{type: worker, topic: {'@pipe': [['{t1.output.data.a}', b], ['{@string.concat}']]}}",
        "{type: await, topic: start.here, await: false}",
        "{type: await, topic: '{t1.output.data.topic}'}",
        "{type: hook, sleep: '5'}",
        "{type: hook, sleep: '{t1.output.data.delay}'}",
        "{type: hook, join: all}",
        "{type: interrupt, code: 500, throw: '{t1.output.data.throw}'}",
        "{type: hook, x-note: {anything: goes}}",
        "{type: hook, job: {maps: {'any[-]': {'-k': 1}, none: null}}}",
        "{type: worker, topic: x, input: {maps: '{t1.output.data}'}}",
        "{type: worker, topic: x, input: {maps: {n: {'@pipe': [['{$self.output.data}'], ['{@json.stringify}']]}}}}",
    ],
)
def test_these_activities_are_sound(activity: str) -> None:
    assert problems_with(activity) == []


@pytest.mark.parametrize(
    ("activity", "problem"),
    [
        ("{type: worker}", "error V11: the worker x1 has no topic"),
        ("{type: worker, topic: [a]}", "error shape: topic is text, not a list"),
        ("{type: 5}", "error V9: type is the name of a type, not a number"),
        ("text", "error shape: the activity x1 is a mapping, not text"),
        ("{type: hook, scrub: 'no'}", "warning V17: scrub has no effect on an activity of type hook"),
        ("{type: hook, cycle: 'no'}", "error shape: cycle is true or false, not text"),
        (
            "{type: hook, input: {maps: {}}}",
            "warning V17: input.maps has no effect on an activity of type hook",
        ),
        ("{type: hook, output: {map: {}}}", 'error V17: unknown key "map" in output'),
        (
            "{type: hook, job: {maps: 5}}",
            "error shape: job.maps is a mapping of names to values, not a number",
        ),
        ("{type: hook, parent: t1}", "warning V17: parent is worked out from the graph; it is ignored here"),
        ("{type: hook, sleep: true}", "error V18: sleep is a number"),
        ("{type: hook, sleep: 'inf'}", "error V18: sleep is a number"),
        ("{type: interrupt, code: none}", "error V18: code is a number"),
        (
            "{type: await, topic: start.here, await: 'false'}",
            "warning V18: await is true or false; any other",
        ),
        ("{type: hook, escalation: high}", "error shape: escalation is a mapping, not text"),
        ("{type: worker, topic: x, retry: {500: often}}", "error shape: write [count] or [count, 'x']"),
        (
            "{type: worker, topic: x, retry: {maximumAttempts: 3}}",
            "error shape: retry maps outcome codes from",
        ),
        ("{type: worker, topic: x, retry_policy: {maximum_interval: soon}}", "error shape: maximum_interval"),
        (
            "{type: worker, topic: x, retry_policy: {backoff_coefficient: -1}}",
            "error shape: backoff_coefficient",
        ),
        (
            "{type: worker, topic: x, retryPolicy: {attempts: 1}}",
            'warning V17: unknown key "attempts" in retryPolicy',
        ),
    ],
)
def test_these_activities_have_a_problem(activity: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in problems_with(activity)), problems_with(activity)


@pytest.mark.parametrize(
    "place",
    [
        "{type: worker, topic: '{nobody.x}'}",
        "{type: worker, topic: x, input: {maps: {a: {b: ['{nobody.x}']}}}}",
        "{type: hook, output: {maps: {a: '{nobody.x}'}}}",
        "{type: hook, job: {maps: '{nobody.x}'}}",
        "{type: hook, telemetry: {a: '{nobody.x}'}}",
        "{type: hook, emit: '{nobody.x}'}",
        "{type: hook, persist: '{nobody.x}'}",
        "{type: hook, statusThreshold: '{nobody.x}'}",
        "{type: hook, sleep: '{nobody.x}'}",
        "{type: hook, escalation: {metadata: {deep: {'@pipe': [['{nobody.x}']]}}}}",
        "{type: await, topic: start.here, await: '{nobody.x}'}",
        "{type: signal, topic: x, signal: {maps: {id: '{nobody.x}'}}}",
        "{type: signal, topic: x, resolver: {maps: {data: '{nobody.x}'}}}",
        "{type: signal, topic: x, status: '{nobody.x}'}",
        "{type: signal, topic: x, code: '{nobody.x}'}",
        "{type: signal, topic: x, key_name: '{nobody.x}', subtype: all}",
        "{type: signal, topic: x, key_value: '{nobody.x}', subtype: all}",
        "{type: interrupt, target: '{nobody.x}'}",
        "{type: interrupt, reason: '{nobody.x}'}",
        "{type: interrupt, throw: '{nobody.x}'}",
        "{type: interrupt, descend: '{nobody.x}'}",
        "{type: interrupt, stack: '{nobody.x}'}",
        "{type: trigger, entity: '{nobody.x}'}",
        "{type: trigger, stats: {id: '{nobody.x}'}}",
        "{type: trigger, stats: {key: '{nobody.x}'}}",
        "{type: trigger, stats: {measures: [{measure: sum, target: '{nobody.x}'}]}}",
    ],
)
def test_an_expression_is_checked_wherever_it_may_stand(place: str) -> None:
    found = problems_with(place)

    assert found.count("error V2: Mapping statement references non-existent activity: {nobody.x}") == 1, found


@pytest.mark.parametrize(
    "graph",
    [
        f"expire: '{{nobody.x}}'\n{TRIGGER}",
        f"persistent: '{{nobody.x}}'\n{TRIGGER}",
        (
            f"{TRIGGER}  h1: {{type: hook}}\n"
            "transitions: {t1: [{to: h1, conditions: {match: [{expected: 1, actual: '{nobody.x}'}]}}]}\n"
        ),
        (
            f"{TRIGGER}  h1: {{type: hook}}\ntransitions: {{t1: [{{to: h1}}]}}\n"
            "hooks: {s: [{to: h1, conditions: {match: [{expected: '{nobody.x}', actual: '{$hook.data.id}'}]}}]}\n"
        ),
    ],
)
def test_expressions_of_the_graph_its_transitions_and_hooks_are_checked(graph: str) -> None:
    found = problems_of(graph)

    assert "error V2: Mapping statement references non-existent activity: {nobody.x}" in found


def test_the_signal_is_known_in_a_hook_rule_only() -> None:
    assert "error V2: Mapping statement references non-existent activity: {$hook.data.id}" in problems_with(
        "{type: hook, job: {maps: {id: '{$hook.data.id}'}}}"
    )


def test_text_that_only_looks_like_an_expression_is_left_alone() -> None:
    assert problems_with("{type: hook, title: '{nobody.x}', job: {maps: {a: 'Dear {nobody.x}'}}}") == []


def test_each_loop_is_named_by_its_path_once() -> None:
    found = built(
        """
        activities:
          t1: {type: trigger}
          a: {type: hook}
          b: {type: hook}
          c: {type: hook}
          d: {type: hook}
        transitions:
          t1: [{to: a}]
          a: [{to: b}]
          b: [{to: c}, {to: d}]
          c: [{to: a}]
          d: [{to: d}]
        """
    )[1]

    assert [problem.message for problem in found] == [
        "the transitions form a loop: a -> b -> c -> a",
        "the transitions form a loop: d -> d",
    ]


def test_branches_that_meet_again_are_no_loop() -> None:
    graph = f"{TRIGGER}  a: {{type: hook}}\n  b: {{type: hook}}\n  c: {{type: hook, join: all}}\n"

    assert problems_of(graph + "transitions: {t1: [{to: a}, {to: b}], a: [{to: c}], b: [{to: c}]}\n") == []


def test_a_long_chain_is_no_problem_for_the_checks() -> None:
    names = [f"h{number}" for number in range(3_000)]
    graph = TRIGGER + "".join(f"  {name}: {{type: hook}}\n" for name in names) + "transitions:\n"
    chain = "".join(f"  {a}: [{{to: {b}}}]\n" for a, b in zip(["t1", *names], names, strict=False))

    assert problems_of(graph + chain) == []


@pytest.mark.parametrize(
    ("conditions", "problems"),
    [
        ("{code: 422}", []),
        ("{code: '422'}", []),
        ("{code: [404, '405', 406.0]}", []),
        ("{}", []),
        ("false", []),
        ("{match: []}", []),
        ("{code: 99}", ["error V14: code is a whole number from 100 to 999, or a list of such"]),
        ("{code: '0422'}", ["error V14: code is a whole number from 100 to 999, or a list of such"]),
        ("{code: 200.5}", ["error V14: code is a whole number from 100 to 999, or a list of such"]),
        ("{code: []}", ["error V14: an empty list of codes matches no outcome"]),
        ("{gate: OR}", ['error V14: gate is "and" or "or"']),
        ("{match: yes}", ["error shape: match is a list, not text"]),
        ("{match: [yes]}", ["error shape: a match is a mapping, not text"]),
        (
            "{match: [{expected: null}]}",
            ["error V14: a match needs both expected and actual; actual is missing"],
        ),
    ],
)
def test_conditions_can_be_met(conditions: str, problems: list[str]) -> None:
    assert problems_with("{type: hook}", leads=f"t1: [{{to: x1, conditions: {conditions}}}]") == problems


def test_a_graph_needs_activities_and_an_app_graphs() -> None:
    assert problems_of("activities:\n") == ["error shape: a graph has activities"]
    assert [problem.message for problem in inspect("app: {id: x, version: '1', graphs: }").problems] == [
        "app has no graphs"
    ]


def test_a_transition_needs_a_target() -> None:
    assert "error shape: a transition has no to" in problems_with("{type: hook}", leads="t1: [{too: x1}]")


def test_only_the_first_match_of_a_hook_rule_counts_and_needs_both_sides() -> None:
    pair = "{expected: a, actual: '{$hook.data.id}'}"
    graph = f"{TRIGGER}  h1: {{type: hook}}\ntransitions: {{t1: [{{to: h1}}]}}\n"
    empty = "{expected: , actual: '{$hook.data.id}'}"

    assert problems_of(f"{graph}hooks: {{s: [{{to: h1, conditions: {{match: [{empty}]}}}}]}}\n") == [
        "error V15: a match needs both expected and actual; expected is missing"
    ]

    assert problems_of(f"{graph}hooks: {{s: [{{to: h1, conditions: {{match: [{pair}, {pair}]}}}}]}}\n") == [
        "warning V15: only the first match of a hook rule is used"
    ]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["{t1.x}", "{@a.b}", "{", "trigger", "start", "<<", "$ref"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["to", "@pipe", "match", "x"]), inner)
    ),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_damage_to_a_graph_is_reported_and_never_raised(data: st.DataObject) -> None:
    document, _ = parse((GRAPHS / "everything.yaml").read_text())
    assert document is not None
    pointer = data.draw(st.sampled_from(sorted(document.locations)[1:]))
    around, _, name = pointer.rpartition("/")
    parent = document.at(around)
    key = int(name) if isinstance(parent, list) else name.replace("~1", "/").replace("~0", "~")
    parent[key] = data.draw(JSON)
    app, problems = build_app(document)

    if app is not None:
        problems += check_app(app)
    if app is not None and not any(problem.severity == "error" for problem in problems):
        manifest(app)
    assert all(problem.rule and problem.message and problem.line for problem in problems)

"""What is written in a graph has its effect, or is spoken of: nothing is ignored, cut off or taken for nothing in silence."""

from textwrap import dedent
from typing import Any

import pytest
from model import World, one_graph

from hotmesh.core.advance.expressions import computed_seconds
from hotmesh.core.definition.build import build_app
from hotmesh.core.definition.check import check_app
from hotmesh.core.definition.manifest import manifest
from hotmesh.core.definition.parse import parse, parse_data
from hotmesh.core.mapping import compile_job_maps
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError, Problem


def problems_of(text: str) -> list[Problem]:
    document, problems = parse(dedent(text))
    assert document is not None
    app, shape = build_app(document)
    assert app is not None
    return problems + shape + check_app(app)


def graph(
    *,
    head: str = "",
    activity: str = "{type: worker, topic: x}",
    transition: str = "",
    trigger: str = "{type: trigger}",
) -> list[str]:
    """The problems of a graph of a trigger and one activity, as `line severity: message (suggestion)`."""
    text = f"""\
        app:
          id: demo
          version: '1'
          graphs:
            - subscribes: start.here
              {head or "x-nothing: here"}
              activities:
                t1: {trigger}
                x1: {activity}
              transitions:
                t1:
                  - to: x1
                    {transition or "x-nothing: here"}
        """
    return [
        f"{problem.line} {problem.severity} {problem.rule}: {problem.message} ({problem.suggestion})"
        for problem in problems_of(text)
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"activity": "{type: worker, topic: x, timeout: 5}"},
            (
                "9 warning V17: timeout has no effect on an activity of type worker "
                "(give it to the worker in Python: Worker(topic, callback, timeout=…))"
            ),
        ),
        (
            {"activity": "{type: await, topic: start.here, retry_policy: {maximum_attempts: 3}}"},
            (
                "9 warning V17: retry_policy has no effect on an activity of type await "
                "(take a transition with conditions.code of the error that the other job ended with)"
            ),
        ),
        (
            {"activity": "{type: await, topic: start.here, timeout: 5}"},
            "9 warning V17: timeout has no effect",
        ),
        ({"activity": "{type: await, topic: start.here, retry: {500: 1}}"}, "9 warning V17: retry has no ef"),
        ({"activity": "{type: await, topic: start.here, eventName: e}"}, "9 warning V17: eventName has no "),
        (
            {"activity": "{type: worker, topic: x, expire: 60}"},
            (
                "9 warning V17: expire has no effect on an activity of type worker "
                "(the graph's expire counts: write it there)"
            ),
        ),
        ({"activity": "{type: worker, topic: x, settings: {a: 1}}"}, "9 warning V17: settings has no effect"),
        (
            {"activity": "{type: signal, topic: x, key_name: colour}"},
            (
                "9 warning V17: key_name has no effect on a signal to one "
                "(write subtype: all to signal every job under a facet)"
            ),
        ),
        (
            {"activity": "{type: interrupt, topic: x}"},
            "9 warning V17: topic has no effect on an interrupt of its",
        ),
        (
            {"activity": "{type: hook, hook: {type: object}}"},
            "9 warning V17: hook has no effect where no hook rule",
        ),
        ({"head": "persistent: true"}, "6 warning V17: persistent of a graph has no effect (leave it out)"),
        (
            {"head": "inputs: {schema: {}}"},
            "6 warning V17: inputs of a graph has no effect (the key is input)",
        ),
        (
            {"transition": "code: 422"},
            (
                "13 warning V17: code beside to has no effect: the transition is taken whatever the code "
                "(write conditions: {code: 422})"
            ),
        ),
        ({"transition": "conditions: {gate: or}"}, "13 warning V17: gate has no effect without match"),
    ],
)
def test_a_key_without_effect_is_told_with_its_line_and_what_to_write(
    given: dict[str, str], said: str
) -> None:
    (found,) = [text for text in graph(**given) if "V17" in text]

    assert found.startswith(said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"transition": "condition: {code: 422}"},
            (
                '13 error V17: unknown key "condition" in a transition, which would be taken always '
                '(did you mean "conditions"?)'
            ),
        ),
        (
            {"transition": "when: '{t1.output.data.x}'"},
            (
                '13 error V17: unknown key "when" in a transition, which would be taken always '
                "(what a transition depends on goes under conditions:)"
            ),
        ),
        ({"transition": "conditions: {codes: 422}"}, '13 error V17: unknown key "codes" in conditions'),
        ({"transition": "conditions: {unless: 5}"}, '13 error V17: unknown key "unless" in conditions'),
        (
            {"transition": "conditions: {match: [{expected: 1, actual: 2, operator: gt}]}"},
            '13 error V17: unknown key "operator" in a match',
        ),
        (
            {"activity": "{type: hook, sleeps: 5}"},
            '9 error V17: unknown key "sleeps" (did you mean "sleep"?)',
        ),
        ({"activity": "{type: hook, joins: all}"}, '9 error V17: unknown key "joins"'),
        ({"activity": "{type: hook, statusTreshold: 1}"}, '9 error V17: unknown key "statusTreshold"'),
        ({"activity": "{type: await, topic: start.here, awiat: false}"}, '9 error V17: unknown key "awiat"'),
        ({"activity": "{type: interrupt, targets: x}"}, '9 error V17: unknown key "targets"'),
        (
            {"activity": "{type: worker, topic: x, input: {mapps: {}}}"},
            '9 error V17: unknown key "mapps" in input',
        ),
        ({"activity": "{type: worker, topic: x, retryPolcy: {}}"}, '9 error V17: unknown key "retryPolcy"'),
        ({"head": "expires: 60"}, '6 error V17: unknown key "expires" in a graph (did you mean "expire"?)'),
        (
            {"head": "subscribe: other"},
            '6 error V17: unknown key "subscribe" in a graph, beside subscribes: what it says',
        ),
        (
            {"head": "transition: {t1: []}"},
            '6 error V17: unknown key "transition" in a graph, beside transitions',
        ),
        ({"head": "hook: {}"}, '6 error V17: unknown key "hook" in a graph'),
    ],
)
def test_a_misspelling_that_changes_the_meaning_is_an_error(given: dict[str, str], said: str) -> None:
    (found,) = [text for text in graph(**given) if "V17" in text]

    assert found.startswith(said)


def test_the_id_of_jobs_that_is_misspelt_is_an_error() -> None:
    (found,) = graph(
        activity="{type: worker, topic: x}", trigger="{type: trigger, stats: {ids: '{$self.input.data.id}'}}"
    )

    assert found == '8 error V17: unknown key "ids" in stats (did you mean "id"?)'


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {
                "transition": "conditions: {match: [{expected: '{t1.output.data.y}', actual: '{t1.output.data.x}'}]}"
            },
            "13 warning V20: expected of a transition is taken literally",
        ),
        (
            {"activity": "{type: worker, topic: x, input: {maps: {a: '{t1.output.data.x'}}}"},
            "9 warning V20: {t1.output.data.x has no closing brace: it is a text, no path (write '{t1.output.data.x}')",
        ),
        (
            {"activity": "{type: worker, topic: x, input: {maps: {a: ['$self.output.data.x}']}}}"},
            "9 warning V20: $self.output.data.x} has no opening brace",
        ),
        (
            {"activity": "{type: worker, topic: x, input: {maps: {a: {'@pip': [[1]]}}}}"},
            '9 warning V20: @pip is taken for the name of a member (did you mean "@pipe"?)',
        ),
        (
            {"activity": "{type: worker, topic: x, input: {maps: {a: '{t1.outptu.data.x}'}}}"},
            '9 warning V20: {t1.outptu.data.x} is always undefined: t1 has no outptu (did you mean "output"?)',
        ),
        (
            {"activity": "{type: worker, topic: x, input: {maps: {a: '{$job.state.x}'}}}"},
            "9 warning V20: {$job.state.x} is always undefined: $job has no state",
        ),
        (
            {"activity": "{type: worker, topic: x, job: {maps: {'n[x]': '{$self.output.data.x}'}}}"},
            "9 warning V20: [x] is part of the name n[x]",
        ),
        ({"activity": "{type: hook, sleep: -5}"}, "9 warning V20: a sleep below 0 does not wait"),
        ({"activity": "{type: hook, sleep: '-5'}"}, "9 warning V20: a sleep below 0 does not wait"),
    ],
)
def test_what_looks_like_something_else_is_a_warning(given: dict[str, str], said: str) -> None:
    (found,) = graph(**given)

    assert found.startswith(said)


@pytest.mark.parametrize(
    "activity",
    [
        "{type: worker, topic: x, input: {maps: {a: '{json', b: 'json}', c: '{nobody.x', d: '{ t1.x', e: '@pip'}}}",
        "{type: worker, topic: x, input: {maps: {a: '{t1.output}', b: '{$job.metadata.jid}', c: '{$self.hook.data.x}'}}}",
        "{type: worker, topic: x, job: {maps: {'n[25]': {}, 'n[-]': {}, 'n[_]': {}, 'n]': 1, '[x': 1}}}",
        "{type: worker, topic: x, input: {maps: {a: {'@pipe': [[[1], 0], {'@reduce': [['{$output}', '{$item}'], ['{@math.add}']]}]}}}}",
        "{type: hook, sleep: 0}",
    ],
)
def test_what_is_what_it_looks_like_is_not_complained_about(activity: str) -> None:
    assert graph(activity=activity) == []


@pytest.mark.parametrize(
    "given",
    [
        {"activity": "{type: worker, topic: x, titel: Charge}"},
        {"activity": "{type: worker, topic: x, owner: the shop team}"},
        {"head": "description: what for"},
    ],
)
def test_an_unknown_key_that_changes_nothing_is_a_warning(given: dict[str, str]) -> None:
    (found,) = graph(**given)

    assert " warning V17: unknown key" in found


@pytest.mark.parametrize(
    "given",
    [
        {"head": "persistent: false"},
        {"transition": "{conditions: {code: 422}}"[1:-1]},
        {"transition": "conditions: {gate: or, match: [{expected: 1, actual: '{t1.output.data.x}'}]}"},
        {"activity": "{type: interrupt, target: x, topic: x}"},
        {"activity": "{type: worker, topic: x, x-timeout: 5}"},
    ],
)
def test_what_has_an_effect_is_not_complained_about(given: dict[str, str]) -> None:
    assert graph(**given) == []


def test_a_manifest_can_be_deployed_again_without_new_warnings() -> None:
    document, _ = parse_data(
        {
            "app": {
                "id": "demo",
                "version": "1",
                "graphs": [
                    {
                        "subscribes": "a",
                        "expire": 60,
                        "persistent": False,
                        "activities": {"t": {"type": "trigger"}, "w": {"type": "worker", "topic": "x"}},
                        "transitions": {"t": [{"to": "w"}]},
                    }
                ],
            }
        }
    )
    assert document is not None
    app, _ = build_app(document)
    assert app is not None
    again, _ = parse_data(manifest(app))
    assert again is not None
    app, problems = build_app(again)
    assert app is not None

    assert [str(problem) for problem in problems + check_app(app)] == []


# -- durations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, 2.0), (0.5, 0.5), ("2", 2.0), ("1e1", 10.0), (0, 0.0), (-3, -3.0), ("-3", -3.0),
        ("2 seconds", 2.0), ("2s", 2.0), ("10 minutes", 600.0), ("1h 30m", 5400.0), ("250ms", 0.25),
        (None, None), (UNDEFINED, None), ("", None), (False, None), ("200 years", 100 * 365 * 86_400.0),
    ],
)  # fmt: skip
def test_a_computed_duration_is_a_number_or_text(value: Any, expected: float | None) -> None:
    assert computed_seconds(value, "sleep") == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("five", "'five'"),
        ("2 moons", "'2 moons'"),
        ("-2s", "'-2s'"),
        (True, "True"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ([5], "a value of type list"),
        ({"seconds": 5}, "a value of type dict"),
    ],
)
def test_what_is_no_duration_is_refused_by_name(value: Any, shown: str) -> None:
    with pytest.raises(MappingError) as raised:
        computed_seconds(value, "sleep of the activity nap")

    assert str(raised.value) == (
        f"sleep of the activity nap came to {shown}, which is no duration; "
        "it is a number of seconds, or text such as '5 minutes'"
    )


NAP = """
    activities:
      t: {type: trigger}
      nap: {type: hook, sleep: '{t.output.data.time}'}
      late: {type: hook, job: {maps: {message: '{nap.output.metadata.$error.message}'}}}
    transitions:
      t: [{to: nap}]
      nap: [{to: late, conditions: {code: 500}}]
    """


def test_a_sleep_that_is_text_sleeps() -> None:
    world = World(one_graph(NAP))
    world.start({"time": "2 seconds"})

    assert [timer.delay for timer in world.timers.values()] == [2.0]


def test_a_sleep_that_is_no_duration_is_an_error_of_its_activity() -> None:
    world = World(one_graph(NAP))
    job = world.start({"time": "five"})

    assert world.jobs[job].status == 0
    assert "sleep of the activity nap came to 'five'" in world.jobs[job].data["message"]


KEPT = """
    expire: '{t.output.data.keep}'
    activities:
      t: {type: trigger}
    """


@pytest.mark.parametrize(("keep", "expected"), [("10 minutes", 600.0), ("2s", 2.0), (7, 7.0), (None, 1.0)])
def test_an_expire_that_is_text_is_understood(keep: Any, expected: float) -> None:
    world = World(one_graph(KEPT))
    job = world.start({"keep": keep})

    assert world.jobs[job].expire == expected


def test_an_expire_that_is_no_duration_refuses_the_start() -> None:
    world = World(one_graph(KEPT))

    with pytest.raises(MappingError, match=r"expire of the graph .* came to 'a while', which is no duration"):
        world.start({"keep": "a while"})


@pytest.mark.parametrize("literal", ["5 minutes", "2s", "'5'"])
def test_durations_may_be_written_out(literal: str) -> None:
    assert graph(head=f"expire: {literal}", activity=f"{{type: hook, sleep: {literal}}}") == []


# -- slots ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (list(range(101)), "and the list has 101 items: write s[101] or more"),
        ({"0": "a", "100": "b"}, "and the value has the member 100: write s[101] or more"),
        ({"0": "a", "x": "b"}, "and the member 'x' is no index"),
        ("text", "and gets the text 'text', which is neither a list nor an object"),
    ],
)
def test_a_member_without_a_slot_is_an_error_and_not_lost(value: Any, said: str) -> None:
    with pytest.raises(MappingError) as raised:
        compile_job_maps({"s[100]": "{a}"}).evaluate({"a": value})

    assert str(raised.value).startswith("s[100] has slots for 0 to 99, ")
    assert said in str(raised.value)


def test_as_many_members_as_slots_are_all_kept() -> None:
    written = compile_job_maps({"s[100]": "{a}"}).evaluate({"a": list(range(100))})

    assert written == [(("s", str(index)), index) for index in range(100)]

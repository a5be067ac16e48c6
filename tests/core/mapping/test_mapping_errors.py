"""What an error says: which expression, where, which function, which argument; and what is checked before a deploy."""

from __future__ import annotations

from typing import Any

import pytest

from hotmesh.core.mapping import check_condition, check_expression, compile_condition, compile_expression
from hotmesh.errors import MappingError


def test_a_failing_function_names_place_argument_and_expression() -> None:
    compiled = compile_expression({"@pipe": [["{a.x}", 2], ["{@string.repeat}"]]}, where="app.yaml:12:9")

    with pytest.raises(MappingError) as failure:
        compiled.evaluate({"a": {"x": 5}})

    assert str(failure.value) == (
        "app.yaml:12:9: {@string.repeat}: argument 1 must be text, not the number 5, "
        "in {'@pipe': [['{a.x}', 2], ['{@string.repeat}']]}"
    )
    assert failure.value.argument == 1
    assert failure.value.expression == compiled.source


def test_the_second_argument_is_named_too() -> None:
    with pytest.raises(MappingError, match="argument 2 must be a count") as failure:
        compile_expression({"@pipe": [["x", -1], ["{@string.repeat}"]]}).evaluate({})

    assert failure.value.argument == 2


def test_a_long_expression_is_cut() -> None:
    with pytest.raises(MappingError) as failure:
        compile_expression({"@pipe": [[5, "x" * 1000], ["{@string.trim}"]]}).evaluate({})

    assert len(str(failure.value)) < 250


def test_the_place_of_a_condition_is_named() -> None:
    rule = {"match": [{"expected": 1, "actual": {"@pipe": [[1], ["{@string.trim}"]]}}]}

    with pytest.raises(MappingError, match=r"app\.yaml:7:3: \{@string\.trim\}"):
        compile_condition(rule, where="app.yaml:7:3").evaluate({}, 200)


@pytest.mark.parametrize(
    ("expression", "rule", "message", "path", "suggestion"),
    [
        ("{t2.x}", "V2", "Mapping statement references non-existent activity: {t2.x}", "/m", "did you mean {t1}?"),
        ("{$jbo.data.x}", "V2", "non-existent activity: {$jbo.data.x}", "/m", "did you mean {$job}?"),
        ("{$items.x}", "V2", "non-existent activity: {$items.x}", "/m", "did you mean {$item}?"),
        ("{}", "V2", "non-existent activity: {}", "/m", "a path begins with one of $self, $job, t1, w1"),
        ("{@strng.trim}", "V3", "Unknown domain name [{@strng.trim}]: strng", "/m", "did you mean {@string.trim}?"),
        ("{@trim}", "V3", "Unknown domain name [{@trim}]: trim", "/m", "did you mean {@string.trim}?"),
        ("{@string.toupper}", "V4", "Unknown domain function [{@string.toupper}]: string.toupper", "/m", "did you mean {@string.toUpperCase}?"),
        ("{@string.TRIM}", "V4", "Unknown domain function [{@string.TRIM}]: string.TRIM", "/m", "did you mean {@string.trim}?"),
        ("{@string.trim.x}", "V4", "Unknown domain function [{@string.trim.x}]: string.trim.x", "/m", "did you mean {@string.trim}?"),
        ("{@dates.x}", "V3", "dates", "/m", "did you mean {@date.…}?"),
        ("{@zzz.qqq}", "V3", "zzz", "/m", None),
        ({"a/b": {"@pipe": [["x"], [5]]}}, "V2", "must be a function", "/m/a~1b/@pipe/1/0", None),
        ({"@pipe": [["x", "{t9.y}"]]}, "V2", "{t9.y}", "/m/@pipe/0/1", "did you mean {t1}?"),
        ({"@pipe": [[["{t9.y}"]]]}, "V2", "{t9.y}", "/m/@pipe/0/0/0", "did you mean {t1}?"),
        ({"@pipe": [[], ["{@string.trim}"]]}, "V4", "{@string.trim} needs at least 1 argument", "/m/@pipe/1/0", None),
        ({"@pipe": [["a"], {"@pipe": []}]}, "V2", "at least one row", "/m/@pipe/1/@pipe", None),
        ({"@pipe": [["a", 1], {"@reduce": [["x"]]}]}, "V2", "must be a function", "/m/@pipe/1/@reduce/0/0", None),
    ],
)  # fmt: skip
def test_problems(expression: Any, rule: str, message: str, path: str, suggestion: str | None) -> None:
    (problem,) = check_expression(expression, "/m", {"t1", "w1"})

    assert (problem.rule, problem.path, problem.suggestion) == (rule, path, suggestion)
    assert message in problem.message


@pytest.mark.parametrize(
    "expression",
    [
        "{t1.x}", "{$self.x}", "{$job.x}", "{$app.x}", "{$graph.x}", "{$item}", "{$item.name.0}", "{$output.x}",
        "{$key}", "{$index}", "{$input}", "Hello {nobody.x}", "{t1.x} ", 5, None, {"@pipe": [["{@math.add}"]]},
        {"@pipe": [["{t1.x}", 0], {"@reduce": [["{@math.add}", "{$item}"], ["{@math.add}"]]}]},
        # A body may never run, so a call that cannot succeed is no problem yet.
        {"@pipe": [["{t1.x}", 0], {"@reduce": [["{@math.add}", "{@string.trim}"]]}]},
    ],
)  # fmt: skip
def test_no_problem(expression: Any) -> None:
    assert check_expression(expression, "/m", {"t1"}) == []


def test_all_problems_are_reported_at_once() -> None:
    tree = {"a": "{t9.x}", "b": {"@pipe": [["{@nope.x}"], ["text"], ["{@string.nope}"]]}}

    found = {(problem.rule, problem.path) for problem in check_expression(tree, "", {"t1"})}

    assert found == {("V2", "/a"), ("V3", "/b/@pipe/0/0"), ("V2", "/b/@pipe/1/0"), ("V4", "/b/@pipe/2/0")}


def test_of_a_condition_only_the_actual_side_is_checked() -> None:
    rule = {"match": [{"expected": "{t9.x}", "actual": "{t8.x}"}, {"expected": 1, "actual": "{@no.x}"}]}

    found = [(problem.rule, problem.path) for problem in check_condition(rule, "/c", {"t1"})]

    assert found == [("V2", "/c/match/0/actual"), ("V3", "/c/match/1/actual")]
    assert check_condition({"match": [{"expected": 1, "actual": "{@string.trim}"}]}, "", ()) == []
    assert [problem.path for problem in check_condition("x", "/c", ())] == ["/c"]

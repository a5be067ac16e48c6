"""No expression takes for ever: patterns, reduces within reduces, texts and lists that grow."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from hotmesh.core.mapping import compile_expression
from hotmesh.core.pipe import array
from hotmesh.core.pipe.pattern import _class_escape, _Translator
from hotmesh.errors import MappingError

LONG = list(range(100_000))
SUM = {"@reduce": [["{$output}", "{$item}"], ["{@math.add}"]]}


def evaluate(expression: Any, **data: Any) -> Any:
    return compile_expression(expression).evaluate({"a": data})


def search(pattern: str, text: str) -> Any:
    return evaluate(
        {"@pipe": [["{a.text}", "{a.pattern}"], ["{@string.search}"]]}, text=text, pattern=pattern
    )


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 40 + "b"),
        ("^(?:(a|aa)+)+$", "a" * 60 + "b"),
        ("((((a*)*)*)*)*b", "a" * 60),
        ("(x+x+)+y", "x" * 1_000),
        ("(a*)*\\1b", "a" * 40),
        ("(?=(a+)+$)b", "a" * 50 + "b"),
        ("(?:.*a){20}b", "a" * 200),
        ("[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*1", "a" * 5_000),
        ("(a{1000}){1000}", "a" * 1_000),
        ("a{1000000000}", "a"),
        ("(?:(?:(?:a{100}){100}){100}){100}", "a"),
        ("(" * 5_000 + ")" * 5_000, "a"),
        ("a" * 20_000, "a"),
        ("(?:" * 30 + "a" + ")+" * 30 + "b", "a"),
        ("(?:" * 30 + "a|bc" + "){2,9}" * 30 + "b", "a"),
        ("(?:" * 11 + "(a|bc)" + "){2}" * 11 + "b", "a"),
    ],
)
def test_a_pattern_has_an_end(pattern: str, text: str) -> None:
    """It finds nothing, or it is an error; neither takes long, and none takes the memory of the machine."""
    began = time.process_time()
    with suppress(MappingError):
        assert search(pattern, text) == -1
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("pattern", "text", "at"),
    [
        ("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "id 0b4e1b2c-0000-4abc-8def-0123456789ab", 3),
        ("^[^@]{1,64}@(?:[a-z0-9-]{1,63}\\.){1,8}[a-z]{2,63}$", "me@mail.example.org", 0),
        ("(?<y>\\d{4})-\\k<y>", "1999-2024-2024", 5),
        ("x{0,1000}y", "xxy", 0),
    ],
)
def test_an_honest_pattern_finds_what_it_found(pattern: str, text: str, at: int) -> None:
    assert search(pattern, text) == at


@pytest.mark.parametrize(
    "rows",
    [
        [["{a.long}", 0], {"@reduce": [{"@pipe": [["{a.long}", 0], SUM]}, ["{@math.add}"]]}],
        [["{a.long}", 0], {"@reduce": [{"@pipe": [["{a.long}", 0], {"@reduce": [["{$output}"]]}]}, ["{@math.add}"]]}],
        [["{a.long}", 0], {"@reduce": [{"@pipe": [["{a.long}"], ["{@array.sort}"], ["{@array.length}"]]}, ["{@math.add}"]]}],
        [["{a.long}", 0], {"@reduce": [{"@pipe": [["{a.long}"], ["{@json.stringify}"]]}, ["{@string.concat}"]]}],
        [["{a.long}", 0], {"@reduce": [{"@pipe": [["x", 4000000], ["{@string.repeat}"]]}, ["{@string.concat}"]]}],
    ],
    ids=["sums", "empty bodies", "sorting", "JSON", "repeating"],
)  # fmt: skip
def test_a_reduce_that_would_take_for_ever_is_an_error(rows: Any) -> None:
    began = time.process_time()
    with pytest.raises(MappingError, match=r"too much work|too long"):
        evaluate({"@pipe": rows}, long=LONG)
    assert time.process_time() - began < 15


@pytest.mark.parametrize(("function", "start"), [("string.concat", "x"), ("array.concat", [1])])
def test_what_doubles_at_each_step_is_an_error(function: str, start: Any) -> None:
    doubling = {"@reduce": [["{$output}", "{$output}"], [f"{{@{function}}}"]]}
    began = time.process_time()
    with pytest.raises(MappingError, match="too long"):
        evaluate({"@pipe": [["{a.long}", "{a.start}"], doubling]}, long=LONG, start=start)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "rows",
    [
        [["x", 1e9], ["{@string.repeat}"]],
        [["x", 1e9], ["{@string.padStart}"]],
        [["x", 1e9], ["{@string.padEnd}"]],
        [["{a.list}", "{a.text}"], ["{@array.join}"]],
        [["{a.text}", "x", "{a.dollars}"], ["{@string.replace}"]],
    ],
    ids=["repeat", "padStart", "padEnd", "join", "replace"],
)
def test_a_text_that_would_be_huge_is_an_error_at_once(rows: Any) -> None:
    data = {"list": LONG, "text": "x" * 1_000_000, "dollars": "$&$'" * 100_000}
    began = time.process_time()
    with pytest.raises(MappingError, match="makes the text too long"):
        evaluate({"@pipe": rows}, **data)
    assert time.process_time() - began < 1


def test_a_long_list_is_put_in_order_in_good_time() -> None:
    random.seed(1)
    numbers: list[Any] = [random.choice([random.random(), random.randrange(100)]) for _ in range(200_000)]
    began = time.process_time()
    assert evaluate({"@pipe": [["{a.list}"], ["{@array.sort}"]]}, list=numbers) == sorted(numbers)
    down = evaluate({"@pipe": [["{a.list}", "DESCENDING"], ["{@array.sort}"]]}, list=numbers)
    assert down == sorted(numbers, reverse=True)
    assert time.process_time() - began < 3
    with pytest.raises(MappingError, match="more than 20,000 elements"):
        evaluate({"@pipe": [["{a.list}"], ["{@array.sort}"]]}, list=[[n % 7] for n in range(30_000)])


def test_sorting_is_stable_in_either_direction() -> None:
    items = [1, 1.0, 0, -0.0, 0.0]
    for order in ("ASCENDING", "DESCENDING"):
        found = evaluate({"@pipe": [["{a.list}", order], ["{@array.sort}"]]}, list=items)
        assert [repr(item) for item in found if item == 1] == ["1", "1.0"]
        assert [repr(item) for item in found if item == 0] == ["0", "-0.0", "0.0"]


def test_honest_work_is_within_the_budget() -> None:
    listed = {"@reduce": [["{$output}", "{$item}"], ["{@array.push}"]]}
    joined = {"@reduce": [["{$output}", "{$item}"], ["{@string.concat}"]]}
    assert evaluate({"@pipe": [["{a.long}", 0], SUM]}, long=LONG) == sum(LONG)
    assert evaluate({"@pipe": [["{a.long}", []], listed]}, long=LONG[:20_000]) == LONG[:20_000]
    text = evaluate({"@pipe": [["{a.long}", ""], joined]}, long=LONG[:10_000])
    assert text == "".join(map(str, LONG[:10_000]))


@pytest.mark.parametrize(
    ("pattern", "text", "at"),
    [
        ("[" + "\\W" * 4_990 + "]", "abc-", 3),
        ("[" + "\\W\\S\\D" * 1_660 + "]", "a", 0),
        ("[^" + "\\s" * 4_990 + "]", "  a", 2),
        ("\\s" * 250, " " * 251, 0),
        ("\\b" * 1_000 + "b", "a b", 2),
    ],
)
def test_a_class_that_is_named_often_is_written_once(pattern: str, text: str, at: int) -> None:
    assert search(pattern, text) == at
    assert len(_Translator(pattern).whole()) < 100_000
    assert _class_escape.cache_info().misses <= 6, "one for each of the classes that there are"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("[\\S]" * 2_400, "more than 250 classes with characters beyond U"),
        ("\\s" * 251, "more than 250 classes with characters beyond U"),
        ("[ĀȀЀԀ]" * 1_500, "more than 250 classes with characters beyond U"),
        ("\\b" * 1_001, "more than 1,000 times for the edge of a word"),
    ],
)
def test_a_pattern_that_takes_long_to_compile_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(MappingError, match=why.replace("+", "\\+")):
        search(pattern, "abc")


def sort(items: list[Any]) -> Any:
    return evaluate({"@pipe": [["{a.items}"], ["{@array.sort}"]]}, items=items)


def test_a_sort_makes_one_key_of_each_element(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()

    def counted(name: str) -> None:
        call = vars(array)[name]

        def counting(value: Any) -> Any:
            made[name] += 1
            return call(value)

        monkeypatch.setattr(array, name, counting)

    counted("text_order")
    counted("to_text")
    texts = [f"é{number * 7919 % 9_000}" for number in range(9_000)]
    assert sort(texts) == sorted(texts)
    assert made == {"text_order": 9_000}
    lists = [[number * 7919 % 900] for number in range(900)]
    assert sort([*lists, None])[1:] == sorted(lists, key=lambda item: str(item[0]))
    assert made == {"text_order": 9_000, "to_text": 900}

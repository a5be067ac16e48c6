from typing import Any

import pytest

from hotmesh.core.definition.graph import Document, SourceLocation
from hotmesh.core.definition.parse import Read, parse, parse_data
from hotmesh.core.definition.yaml_document import read_plain
from hotmesh.errors import Problem


def read_from(**files: str) -> Read:
    """Files by name, dots written as underscores; every name is relative to the same place."""

    def read(reference: str, base: str | None) -> tuple[str, str]:
        name = reference.removeprefix("./")
        text = files.get(name.replace(".", "_"))
        if text is None:
            raise FileNotFoundError(2, "No such file or directory", reference)
        return name, text

    return read


def parsed(text: str, **files: str) -> Document:
    document, problems = parse(text, name="main.yaml", read=read_from(**files))
    assert not problems
    assert document is not None
    return document


def problems_of(text: str, **files: str) -> list[Problem]:
    return parse(text, name="main.yaml", read=read_from(**files))[1]


def only_problem(text: str, **files: str) -> str:
    (problem,) = problems_of(text, **files)
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("010", 10),
        ("-7", -7),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.5.0", "1.5.0"),
        ("-", "-"),
        ("9" * 30, 1e30),
        ("2024-02-29", "2024-02-29T00:00:00.000Z"),
        ("2024-02-29T10:20:30Z", "2024-02-29T10:20:30.000Z"),
        ("2024-02-29 10:20:30.5 +02:00", "2024-02-29T08:20:30.500Z"),
        ("2024-2-9", "2024-2-9"),
        ("2024-02-30", "2024-02-30"),
        ("=", "="),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert read_plain(text) == value
    assert type(read_plain(text)) is type(value)


def test_quotes_make_text_of_everything() -> None:
    assert parsed("['010', \"true\", '2024-02-29', !!str 5]").data == ["010", "true", "2024-02-29", "5"]


def test_keys_are_text_as_written() -> None:
    assert parsed("{422: a, on: b, true: c, 010: d}").data == {"422": "a", "on": "b", "true": "c", "010": "d"}


def test_explicit_tags_are_honoured_or_refused() -> None:
    assert parsed("{a: !!int 5, b: !!float 5, c: !!null ''}").data == {"a": 5, "b": 5.0, "c": None}
    assert only_problem("a: !!int five") == "main.yaml:1:4: syntax: 'five' is not !!int"
    assert only_problem("a: !python/name x") == "main.yaml:1:4: syntax: unknown tag !python/name"


@pytest.mark.parametrize("text", [".nan", "-.inf", "1e999", "9" * 5_000])
def test_numbers_that_json_cannot_hold_are_refused(text: str) -> None:
    assert "is no number that JSON can hold" in only_problem(f"a: {text}")


def test_every_node_keeps_its_place_and_every_name_its_own() -> None:
    document = parsed("a:\n  b/c: [1, {d~: 2}]\n")

    assert document.location("/a/b~1c") == SourceLocation("main.yaml", 2, 8)
    assert document.location("/a/b~1c/1/d~0") == SourceLocation("main.yaml", 2, 17)
    assert document.key_location("/a/b~1c/1/d~0") == SourceLocation("main.yaml", 2, 13)
    assert document.location("/a/b~1c/1/unknown/deeper") == SourceLocation("main.yaml", 2, 12)
    assert document.at("/a/b~1c/1/d~0") == 2


def test_columns_count_characters() -> None:
    assert parsed("é: {ü: 1}").location("/é/ü") == SourceLocation("main.yaml", 1, 8)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: b: c",
            "main.yaml:1:5: syntax: mapping values are not allowed in this context (a text that holds",
        ),
        ("a: {@date.now}", "main.yaml:1:5: syntax: while scanning for the next token, found character that"),
        ("a: *x", "main.yaml:1:4: syntax: found undefined alias (a text that begins with"),
        (
            "a:\n\t- b",
            "main.yaml:2:1: syntax: while scanning for the next token, found character that cannot",
        ),
        ("a: [1,", "main.yaml:1:7: syntax: while parsing a flow node, did not find expected node content"),
        ("a: 1\n---\nb: 2", "main.yaml:2:1: syntax: expected a single document in the stream"),
        ("a: é\x01", "main.yaml:1:5: syntax: the character U+0001 may not stand in YAML"),
        ("a: \ud800", "main.yaml:1:4: syntax: the text holds half a surrogate pair"),
        ("[" * 100_000, "main.yaml:1:150: syntax: nested deeper than 150 levels"),
        ("- " * 100_000, "main.yaml:1:299: syntax: nested deeper than 150 levels"),
        ("? [a]\n: 1", "main.yaml:1:3: syntax: a key must be text"),
    ],
)
def test_what_is_no_yaml_is_reported_at_its_place(text: str, problem: str) -> None:
    assert only_problem(text).startswith(problem)


def test_a_duplicate_key_names_both_places() -> None:
    assert (
        only_problem("a: 1\n'a': 2") == 'main.yaml:2:1: syntax: duplicate key "a", first at line 1, column 1'
    )


def test_a_duplicate_activity_breaks_rule_v1() -> None:
    text = "app: {graphs: [{activities: {t1: {type: trigger}, t1: {type: hook}}}]}"

    assert only_problem(text).startswith(
        "main.yaml:1:51: V1: Duplicate activity id found: t1, first at line 1"
    )


def test_an_expression_without_quotes_is_pointed_out() -> None:
    assert only_problem("a: {t1.output.data.x}").endswith("(write '{t1.output.data.x}')")


def test_a_merge_key_lays_a_mapping_under_another() -> None:
    document = parsed(
        "base: &base {a: 1, b: 1}\nx: {<<: *base, b: 2}\ny: {<<: [{a: 5}, *base]}\nz: {'<<': 1}"
    )

    assert document.data["x"] == {"a": 1, "b": 2}
    assert document.data["y"] == {"a": 5, "b": 1}
    assert document.data["z"] == {"<<": 1}
    assert document.location("/x/a") == SourceLocation("main.yaml", 1, 17)


def test_only_mappings_can_be_merged() -> None:
    assert only_problem("a: {<<: 5}") == "main.yaml:1:9: syntax: only a mapping can be merged"


def test_aliases_that_expand_without_end_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    document, problems = parse(bomb)

    assert document is None
    assert "more than 200,000 values, with aliases and references written out" in str(problems[-1])


def test_a_text_of_too_many_values_is_not_composed() -> None:
    """It is left at the first value that is too much, and says nothing of aliases, of which it has none."""
    document, problems = parse("app: [" + "{a: b}, " * 200_000 + "]\n")
    assert document is None
    assert [problem.message for problem in problems] == ["more than 200,000 values"]
    document, problems = parse("[" + "1, " * 199_999 + "]")
    assert (document and len(document.data), problems) == (199_999, [])
    document, problems = parse("[" + "1, " * 200_000 + "]")
    assert (document, problems[0].message) == (None, "more than 200,000 values")


def test_data_with_parts_in_many_places_is_counted_while_it_is_walked() -> None:
    """Lists of lists of the same list: a billion values in thirty lists. What is counted ends at the limit."""
    wide: list[Any] = [1]
    for _ in range(30):
        wide = [wide, wide]
    tall: dict[str, Any] = {"x": 1}
    for _ in range(100):
        tall = {"a": tall, "b": tall}
    for part in (wide, tall):
        document, [problem] = parse_data({"app": part})
        assert document is None
        assert problem.message == (
            "the document has more than 200,000 values, where one that stands in several places counts in each"
        )
    document, problems = parse_data({"app": [[1, 2]] * 60_000})
    assert (document and len(document.data["app"]), problems) == (60_000, [])


def test_long_names_of_many_values_are_counted() -> None:
    """The place of a value has the names of all that it stands in."""
    name = "k" * 1_000_000
    document, problems = parse(f"{name}: [{'1, ' * 1_000}]".replace(name, f'? "{name}"\n', 1))
    assert document is None
    assert "names that are too long for so many values" in problems[-1].message
    assert len(str(problems[-1])) < 1_000
    document, problems = parse_data({name: [1] * 1_000})
    assert document is None
    assert "names that are too long for so many values" in problems[-1].message


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a {<<: *a}",
        "a: {b: {$ref: '#/a'}}",
        "a: {$ref: '#/a'}",
        "a: {$ref: '#/a/b'}",
        "a: {$ref: '#/a', b: 1}",
        "a: {$ref: '#', b: 1}",
    ],
)
def test_what_refers_to_itself_is_reported(text: str) -> None:
    document, problems = parse(text, name="main.yaml")

    assert document is not None
    assert problems
    assert {problem.rule for problem in problems} == {"reference"}


def test_two_files_that_refer_to_each_other_are_reported() -> None:
    problem = only_problem("a: {$ref: b.yaml}", b_yaml="c: {$ref: main.yaml}", main_yaml="a: {$ref: b.yaml}")

    assert "refers to itself" in problem


def test_references_reach_files_places_in_files_and_the_document_itself() -> None:
    document = parsed(
        "whole: {$ref: ./other.yaml}\npart: {$ref: 'other.yaml#/list/1'}\nown: {$ref: '#/whole/text'}\n",
        other_yaml="text: hello\nlist: [a, {b: c}]\n",
    )

    assert document.data == {
        "whole": {"text": "hello", "list": ["a", {"b": "c"}]},
        "part": {"b": "c"},
        "own": "hello",
    }
    assert document.location("/part/b") == SourceLocation("other.yaml", 2, 15)
    assert document.location("/own") == SourceLocation("other.yaml", 1, 7)


def test_references_in_a_file_are_relative_to_that_file() -> None:
    asked: list[tuple[str, str | None]] = []

    def read(reference: str, base: str | None) -> tuple[str, str]:
        asked.append((reference, base))
        return f"dir/{reference}", "{$ref: next.yaml}" if reference == "first.yaml" else "end"

    document, problems = parse("a: {$ref: first.yaml}", name="main.yaml", read=read)

    assert (document and document.data, problems) == ({"a": "end"}, [])
    assert asked == [("first.yaml", "main.yaml"), ("next.yaml", "dir/first.yaml")]


def test_members_beside_a_reference_are_laid_over_it() -> None:
    document = parsed("a: {$ref: '#/b', y: 3}\nb: {x: 1, y: 2}")

    assert document.data["a"] == {"x": 1, "y": 3}
    assert document.location("/a/x") == SourceLocation("main.yaml", 2, 8)


def test_pointers_with_escapes_and_through_references_are_followed() -> None:
    assert parsed("a: {$ref: '#/x~1y/~0/z'}\nx/y: {'~': {$ref: '#/w'}}\nw: {z: 5}").data["a"] == 5


def test_json_files_with_tabs_and_escaped_pairs_are_read() -> None:
    document = parsed("$ref: data.json", data_json='{\n\t"a": "\\ud83d\\ude00",\n\t"b": "\\\\ud83d"\n}')

    assert document.data == {"a": "\U0001f600", "b": "\\ud83d"}


def test_a_schema_may_have_a_property_called_ref() -> None:
    assert parsed("properties: {$ref: {type: string}}").data == {"properties": {"$ref": {"type": "string"}}}


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("nowhere.yaml", "No such file or directory"),
        ("other.yaml#/missing", "there is no /missing in other.yaml"),
        ("other.yaml#missing", "a place in a file is a JSON pointer and begins with #/"),
        ("https://example.com/x.yaml", "only files can be referred to"),
        ("'#/nothing/at/all'", "there is no /nothing/at/all in main.yaml"),
    ],
)
def test_a_reference_that_leads_nowhere_says_why(reference: str, reason: str) -> None:
    problem = only_problem(f"x:\n  $ref: {reference}", other_yaml="a: 1")

    assert problem.startswith("main.yaml:2:3: reference: ")
    assert problem.endswith(reason)


def test_a_syntax_error_in_another_file_is_reported_in_that_file_once() -> None:
    problems = problems_of("a: {$ref: bad.yaml}\nb: {$ref: bad.yaml}", bad_yaml="x: [")

    assert [str(problem).split(": ")[0] for problem in problems] == [
        "bad.yaml:1:5",
        "main.yaml:1:4",
        "main.yaml:2:4",
    ]


def test_a_text_without_a_base_can_refer_to_itself_only() -> None:
    document, problems = parse("a: {$ref: '#/b'}\nb: 1\nc: {$ref: x.yaml}")

    assert document is not None
    assert document.data["a"] == 1
    assert [problem.message for problem in problems] == ["x.yaml: a reference to a file needs a base path"]


def test_data_is_copied_and_its_references_are_resolved() -> None:
    data = {"a": {"$ref": "#/b"}, "b": [1, 2.5, None, {422: True}], "c": "010"}
    document, problems = parse_data(data)

    assert not problems
    assert document is not None
    assert document.data == {
        "a": [1, 2.5, None, {"422": True}],
        "b": [1, 2.5, None, {"422": True}],
        "c": "010",
    }
    assert document.data["b"] is not data["b"]
    assert document.location("/a") == SourceLocation()


def test_data_that_is_no_json_is_refused() -> None:
    looped: dict[str, object] = {}
    looped["self"] = looped

    for value, reason in (
        ({"a": {1}}, "/a is not JSON"),
        ({"a": {1.5: 2}}, "a key of /a"),
        (looped, "nested deeper"),
    ):
        document, problems = parse_data(value)
        assert document is None
        assert reason in problems[0].message


def test_an_empty_text_is_null() -> None:
    assert parsed("").data is None
    assert parsed("# only a comment\n").data is None
    assert parsed("\ufeffa: 1").data == {"a": 1}

"""The schema, the parser and the reference know the same words; and the schema accepts what the parser accepts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hotmesh.core.definition import grammar
from hotmesh.core.state.retry import RETRY_POLICY_KEYS
from hotmesh.runtime.definitions.graph_files import inspect
from hotmesh.schema import graph_schema

ROOT = Path(__file__).parent.parent.parent
GRAPHS = ROOT / "tests" / "graphs"
SOUND = sorted(path for path in GRAPHS.glob("*.yaml") if not path.stem.startswith("broken_"))
SCHEMA = graph_schema()

KEYS: dict[str, frozenset[str]] = {
    "graph": grammar.GRAPH,
    **{name: grammar.activity_keys(name) | grammar.COMPILER for name in grammar.TYPES},
    "stats": grammar.STATS,
    "escalation": grammar.ESCALATION,
    "retryPolicy": frozenset(RETRY_POLICY_KEYS),
    "transition": grammar.TRANSITION,
    "conditions": grammar.CONDITIONS,
    "match": grammar.MATCH,
    "hookRule": grammar.HOOK_RULE,
}
"""Definition of the schema → the keys that the parser knows there."""


def properties(schema: Any) -> dict[str, Any]:
    """The properties of a definition, whichever of its alternatives has them."""
    if "properties" in schema and "$ref" not in schema["properties"]:
        found: dict[str, Any] = schema["properties"]
        return found
    return next((found for part in schema.get("anyOf", ()) if (found := properties(part))), {})


def mismatches(value: Any, schema: Any, place: str = "") -> Iterator[str]:
    """A validator for the part of JSON Schema that ours uses; unknown keywords are failures of the test itself."""
    if schema is True or schema == {}:
        return
    for keyword, rule in schema.items():
        match keyword:
            case "$ref":
                yield from mismatches(value, SCHEMA["definitions"][rule.rpartition("/")[2]], place)
            case "type":
                kinds = rule if isinstance(rule, list) else [rule]
                if not any(is_kind(value, kind) for kind in kinds):
                    yield f"{place}: {value!r} is not {kinds}"
            case "enum":
                if not any(value == word and type(value) is type(word) for word in rule):
                    yield f"{place}: {value!r} is not one of {rule}"
            case "pattern":
                if isinstance(value, str) and not re.search(rule, value):
                    yield f"{place}: {value!r} does not match {rule}"
            case "minimum" | "maximum":
                if is_kind(value, "number") and (value < rule if keyword == "minimum" else value > rule):
                    yield f"{place}: {value} is beyond {rule}"
            case "required":
                if isinstance(value, dict):
                    yield from (f"{place}: {name} is missing" for name in rule if name not in value)
            case "minProperties" | "minItems" | "maxItems":
                if isinstance(value, dict | list) and (
                    len(value) < rule if keyword[:3] == "min" else len(value) > rule
                ):
                    yield f"{place}: {len(value)} members"
            case "properties" | "patternProperties" | "additionalProperties":
                pass
            case "propertyNames":
                for name in value if isinstance(value, dict) else ():
                    yield from mismatches(name, rule, f"{place}/{name}")
            case "items":
                for index, item in enumerate(value if isinstance(value, list) else ()):
                    item_rule = rule if isinstance(rule, dict) else rule[index]
                    yield from mismatches(item, item_rule, f"{place}/{index}")
            case "allOf":
                for part in rule:
                    yield from mismatches(value, part, place)
            case "anyOf" | "oneOf":
                parts = [list(mismatches(value, part, place)) for part in rule]
                fitting = sum(not part for part in parts)
                if not fitting or (keyword == "oneOf" and fitting > 1):
                    yield from min(parts, key=len) or [f"{place}: {fitting} alternatives fit"]
            case "if":
                if not list(mismatches(value, rule, place)):
                    yield from mismatches(value, schema["then"], place)
            case "title" | "description" | "default" | "then" | "$schema" | "definitions":
                pass
            case _:
                pytest.fail(f"the schema uses the keyword {keyword}")
    if isinstance(value, dict):
        yield from members_that_mismatch(value, schema, place)


def members_that_mismatch(value: dict[str, Any], schema: Any, place: str) -> Iterator[str]:
    for name, member in value.items():
        rules = [schema["properties"][name]] if name in schema.get("properties", {}) else []
        rules += [
            rule for pattern, rule in schema.get("patternProperties", {}).items() if re.search(pattern, name)
        ]
        if not rules:
            rest = schema.get("additionalProperties", True)
            if rest is False:
                yield f"{place}: unknown key {name}"
            elif rest is not True:
                rules = [rest]
        for rule in rules:
            yield from mismatches(member, rule, f"{place}/{name}")


def is_kind(value: Any, kind: str) -> bool:
    match kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
            return isinstance(value, kinds[kind])


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.stem)
def test_a_sound_graph_fits_the_schema(path: Path) -> None:
    app = inspect(path).app

    assert app is not None
    assert list(mismatches(app.document.data, SCHEMA)) == []


def test_references_fit_the_schema_wherever_they_stand() -> None:
    # BaseLoader leaves references, and all scalars as text; only mappings with references matter here.
    raw = yaml.load((GRAPHS / "with_references.yaml").read_text(), yaml.BaseLoader)
    raw["app"]["graphs"][1]["expire"] = 5

    assert list(mismatches(raw, SCHEMA)) == []


@pytest.mark.parametrize(
    "name",
    ["app", "conditions", "hooks", "keys", "literals", "shape", "topics", "types"],
)
def test_a_graph_that_the_rules_refuse_for_its_form_does_not_fit_the_schema(name: str) -> None:
    app = inspect(GRAPHS / f"broken_{name}.yaml").app

    assert app is not None
    assert list(mismatches(app.document.data, SCHEMA))


def test_a_transition_to_nowhere_fits_the_schema_which_knows_no_ids() -> None:
    app = inspect(GRAPHS / "broken_flow.yaml").app

    assert app is not None
    assert list(mismatches(app.document.data, SCHEMA)) == []


@pytest.mark.parametrize("definition", sorted(KEYS))
def test_the_schema_has_the_keys_that_the_parser_knows(definition: str) -> None:
    assert set(properties(SCHEMA["definitions"][definition])) == KEYS[definition]


def test_the_schema_has_the_keys_of_the_document_and_the_app() -> None:
    assert set(SCHEMA["properties"]) == grammar.DOCUMENT
    assert set(properties(SCHEMA["properties"]["app"])) == grammar.APP


def test_the_schema_has_the_words_that_the_parser_knows() -> None:
    definitions = SCHEMA["definitions"]
    stats = properties(definitions["stats"])
    measure = properties(stats["measures"]["anyOf"][0]["items"])
    worker = definitions["worker"]["properties"]

    assert tuple(stats["granularity"]["enum"]) == (*grammar.GRANULARITIES, None)
    assert set(measure) == grammar.MEASURE
    assert tuple(measure["measure"]["enum"]) == grammar.MEASURES
    assert tuple(worker["join"]["enum"]) == (*grammar.JOINS, None)
    assert tuple(properties(definitions["conditions"])["gate"]["enum"]) == (*grammar.GATES, None)
    assert tuple(definitions["signal"]["properties"]["subtype"]["enum"]) == (*grammar.SUBTYPES, None)
    for block in ("input", "output", "job"):
        assert set(properties(worker[block])) == grammar.BLOCK


def test_everything_in_the_schema_that_an_editor_completes_is_described() -> None:
    for definition in sorted(KEYS):
        for name, schema in properties(SCHEMA["definitions"][definition]).items():
            target = schema.get("$ref", "").rpartition("/")[2]
            assert schema.get("description") or SCHEMA["definitions"][target].get("description"), (
                f"{definition}.{name}"
            )


def test_the_reference_names_every_key_and_word() -> None:
    text = (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8")
    examples = re.findall(r"```.*?```", text, re.DOTALL)
    inline = re.findall(r"`[^`]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = set(re.findall(r"[\w$@]+", " ".join(examples + inline)))
    known = grammar.DOCUMENT | grammar.APP | grammar.MEASURE | grammar.BLOCK
    known = known.union(*KEYS.values(), grammar.MEASURES, grammar.GRANULARITIES, grammar.JOINS, grammar.GATES)

    assert sorted(known - words) == []


def test_the_reference_explains_every_rule() -> None:
    text = (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8")
    source = "".join(path.read_text() for path in (ROOT / "src" / "hotmesh" / "core").glob("*.py"))
    rules = set(re.findall(r'"(V\d+|syntax|shape|reference|source)"', source))

    assert rules
    assert [rule for rule in rules if not re.search(rf"^\|.*\b{rule}\b.*\|", text, re.MULTILINE)] == []


def test_the_examples_of_the_reference_are_sound() -> None:
    text = (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8")
    documents = [
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if block.startswith("app:")
    ]

    assert documents
    for document in documents:
        assert inspect(document).problems == ()

"""What a document becomes: the manifest that `plan` and `deploy` return, and the form an app is stored in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from hotmesh.core.definition import grammar
from hotmesh.core.definition.build import build_app
from hotmesh.core.definition.graph import NOWHERE, App, Document, SourceLocation
from hotmesh.core.definition.yaml_document import escape
from hotmesh.errors import CompileError

_FORMAT: Final = 1


def manifest(app: App) -> dict[str, Any]:
    """The merged document as plain data of its own, with what follows from it written down.

    Added are, per activity: the graph's `expire` and `persistent`; `subtype` (the topic of a worker or await);
    `hook.topic` on the targets of hook rules; `cycle: true` on the ancestors of cycles; and on the trigger the
    graph's schemas, as `output.schema` and `job.schema`. The alias type `activity` becomes `hook`.
    """
    document: dict[str, Any] = deepcopy(app.document.data)
    for graph in document["app"].get("graphs") or []:
        if isinstance(graph, dict):
            _complete(graph)
    return document


def _complete(graph: dict[str, Any]) -> None:
    activities = {
        name: item for name, item in (graph.get("activities") or {}).items() if isinstance(item, dict)
    }
    for activity in activities.values():
        kind = activity.get("type")
        activity["type"] = kind = grammar.ALIASES.get(str(kind), kind)
        for key in ("expire", "persistent"):
            if key in graph:
                activity[key] = deepcopy(graph[key])
        if kind in {"worker", "await"} and activity.get("subtype") is None and "topic" in activity:
            activity["subtype"] = deepcopy(activity["topic"])
        if kind == "trigger":
            _give_schemas(graph, activity)
        if kind == "cycle" and isinstance(ancestor := activities.get(str(activity.get("ancestor"))), dict):
            ancestor["cycle"] = True
    for topic, rules in (graph.get("hooks") or {}).items():
        for rule in rules or []:
            target = activities.get(str(rule.get("to"))) if isinstance(rule, dict) else None
            if target is not None:
                target["hook"] = {**(target.get("hook") or {}), "topic": topic}


def _give_schemas(graph: dict[str, Any], trigger: dict[str, Any]) -> None:
    for source, block in (("input", "output"), ("output", "job")):
        schema = (graph.get(source) or {}).get("schema")
        if schema is not None:
            trigger[block] = {**(trigger.get(block) or {}), "schema": deepcopy(schema)}


def app_to_json(app: App) -> dict[str, Any]:
    """The app as data to store: the document as it was written, and the place of every node.

    Store it as text or `json`: `jsonb` does not keep the order of keys, which a map's result shows.
    """
    files: dict[str | None, int] = {}
    locations: list[int] = []
    for pointer in _pointers(app.document.data):
        place = app.document.locations.get(pointer, NOWHERE)
        if place.line is None or place.column is None:
            locations += (-1, 0, 0)
        else:
            locations += (files.setdefault(place.file, len(files)), place.line, place.column)
    while locations and locations[-3] == -1:
        del locations[-3:]
    return {"format": _FORMAT, "document": app.document.data, "files": list(files), "places": locations}


def app_from_json(data: Mapping[str, Any]) -> App:
    """The app that `app_to_json` stored. It is not checked again.

    Raises CompileError for data that holds no app at all.
    """
    files: list[str | None] = data["files"]
    flat: list[int] = data["places"]
    triples = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
    locations = {
        pointer: SourceLocation(files[file], line, column)
        for pointer, (file, line, column) in zip(_pointers(data["document"]), triples, strict=False)
        if file >= 0
    }
    app, problems = build_app(Document(data["document"], locations))
    if app is None:
        raise CompileError(problems)
    return app


def _pointers(node: Any, pointer: str = "") -> Iterator[str]:
    """Every node of a document, in an order that does not depend on that of its keys."""
    yield pointer
    if isinstance(node, dict):
        for name in sorted(node):
            yield from _pointers(node[name], f"{pointer}/{escape(name)}")
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _pointers(item, f"{pointer}/{index}")

import json
from pathlib import Path

import pytest

from hotmesh.core.definition.graph import SourceLocation
from hotmesh.core.definition.manifest import app_from_json, app_to_json, manifest
from hotmesh.errors import CompileError
from hotmesh.runtime.definitions.graph_files import load

GRAPHS = Path(__file__).parent.parent / "graphs"


def test_the_manifest_writes_down_what_follows_from_the_document() -> None:
    app = load(GRAPHS / "everything.yaml").app
    graph = manifest(app)["app"]["graphs"][0]
    activities = graph["activities"]

    assert activities["child"]["subtype"] == "child.start"
    assert activities["work"]["subtype"] == "anything"
    assert activities["wait"]["cycle"] is True
    assert activities["wait"]["hook"] == {"type": "object", "topic": "told"}
    assert activities["pass"]["type"] == "hook"
    assert activities["start"]["output"]["schema"] == {"type": "object"}
    assert activities["start"]["job"]["schema"] == {"type": "object"}
    assert activities["start"]["job"]["maps"] == {"kind": "{$self.output.data.kind}"}
    assert {activity["expire"] for activity in activities.values()} == {"{start.output.data.keep}"}
    assert {activity["persistent"] for activity in activities.values()} == {False}


def test_the_manifest_has_references_merged() -> None:
    graphs = manifest(load(GRAPHS / "with_references.yaml").app)["app"]["graphs"]

    assert graphs[0]["activities"]["greet"]["input"]["maps"] == {"name": "{greet_start.output.data.name}"}
    assert graphs[1]["activities"]["other_work"]["title"] == "laid over the template"
    assert graphs[1]["activities"]["other_start"]["output"]["schema"]["type"] == "object"


def test_the_manifest_is_a_copy() -> None:
    app = load(GRAPHS / "order.yaml").app
    manifest(app)["app"]["graphs"][0]["activities"].clear()

    assert "cycle" not in app.document.data["app"]["graphs"][0]["activities"]["charge"]


def test_a_manifest_can_be_deployed() -> None:
    app = load(GRAPHS / "order.yaml").app

    assert load(manifest(app)).warnings == ()


@pytest.mark.parametrize("name", ["order.yaml", "everything.yaml", "with_references.yaml"])
@pytest.mark.parametrize("sort_keys", [False, True])
def test_a_stored_app_comes_back_with_its_places(name: str, sort_keys: bool) -> None:
    app = load(GRAPHS / name).app
    back = app_from_json(json.loads(json.dumps(app_to_json(app), sort_keys=sort_keys)))

    assert (back.id, back.version, back.graphs) == (app.id, app.version, app.graphs)
    assert back.document.data == app.document.data
    assert back.document.locations == app.document.locations


def test_a_stored_app_keeps_the_order_of_its_keys() -> None:
    app = load(GRAPHS / "order.yaml").app
    back = app_from_json(json.loads(json.dumps(app_to_json(app))))

    assert list(back.graphs[0].activities) == list(app.graphs[0].activities)


def test_an_app_from_data_is_stored_without_places() -> None:
    app = load({"app": {"id": "x", "version": "1", "graphs": []}}).app
    stored = app_to_json(app)

    assert stored["places"] == []
    assert app_from_json(stored).document.location("/app") == SourceLocation()


def test_stored_data_without_an_app_is_refused() -> None:
    with pytest.raises(CompileError):
        app_from_json({"format": 1, "document": {}, "files": [], "places": []})

"""What a caller can hand in wrongly: refused with an error of ours that names it, before anything is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from harness import one_worker
from hotmesh import (
    DBA,
    ConfigError,
    ConnectionLostError,
    DeadLetterNotFoundError,
    HotMesh,
    HotMeshError,
    JobNotFoundError,
    MessageTooLargeError,
    PayloadError,
    Virtual,
    Worker,
    connect_client,
)
from hotmesh.core.duration import seconds
from hotmesh.core.wire import normalise
from hotmesh.runtime.settings import Settings

HALF = "\ud800"
BIG = 10**400
COUNTED = """
    - subscribes: counted
      expire: 3600
      activities:
        c0:
          type: trigger
          stats: {key: all, granularity: 5m, measures: [{measure: index, target: '{$self.input.data.color}'}]}
        c1: {type: hook}
      transitions: {c0: [{to: c1}]}
      hooks:
        told: [{to: c1, conditions: {match: [{expected: '{$job.metadata.jid}', actual: '{$self.hook.data.id}'}]}}]
"""

Call = Callable[[HotMesh], Awaitable[Any]]


def double(message: Any) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


NO_TEXT: list[Any] = [5, b"x", ["x"], "a\0b", HALF]
TAKE_A_JOB: dict[str, Callable[[HotMesh, Any], Awaitable[Any]]] = {
    "get_state": lambda mesh, job_id: mesh.get_state("one", job_id),
    "get_status": lambda mesh, job_id: mesh.get_status(job_id),
    "get_raw": lambda mesh, job_id: mesh.get_raw(job_id),
    "get_query_state": lambda mesh, job_id: mesh.get_query_state(job_id, ["a"]),
    "export": lambda mesh, job_id: mesh.export(job_id),
    "explain": lambda mesh, job_id: mesh.explain(job_id),
    "interrupt": lambda mesh, job_id: mesh.interrupt("one", job_id),
    "cancel": lambda mesh, job_id: mesh.cancel(job_id),
    "scrub": lambda mesh, job_id: mesh.scrub(job_id),
    "forget": lambda mesh, job_id: mesh.forget(job_id, "g"),
    "resume": lambda mesh, job_id: mesh.resume(job_id),
    "list_dead_letters": lambda mesh, job_id: mesh.list_dead_letters(job_id=job_id),
}


def added(**metadata: Any) -> dict[str, Any]:
    whole = {"jid": "j", "gid": "00000000-0000-0000-0000-000000000000", "dad": ",0", "aid": "a"}
    return {"metadata": whole | metadata}


REFUSED: list[tuple[Call, type[HotMeshError], str]] = [
    # -- starting
    (lambda mesh: mesh.pub(5, {}), ConfigError, "topic must be a text, not 5"),  # type: ignore[arg-type]
    (lambda mesh: mesh.pub("one", {}, 5), ConfigError, "context must be a dict, not 5"),  # type: ignore[arg-type]
    (
        lambda mesh: mesh.pub("one", {}, {"metadata": "x"}),
        ConfigError,
        r"context\.metadata must be a dict, not 'x'",
    ),
    (lambda mesh: mesh.pub("one", {}, {"metadata": {"trc": HALF}}), ConfigError, r"context\.metadata\.trc"),
    (lambda mesh: mesh.pub("one", {}, None, "x"), ConfigError, "extended must be a dict, not 'x'"),  # type: ignore[arg-type]
    (lambda mesh: mesh.pub("one", {}, None, {"id": HALF}), ConfigError, "a job id is a text"),
    (
        lambda mesh: mesh.pub("one", {}, None, {"entity": HALF}),
        ConfigError,
        r"extended\.entity has a NUL .* half",
    ),
    (
        lambda mesh: mesh.pub("one", {}, None, {"search": "x"}),
        ConfigError,
        r"extended\.search must be a dict",
    ),
    (
        lambda mesh: mesh.pub("one", {}, None, {"marker": {5: 1}}),
        ConfigError,
        r"keys of extended\.marker .* 5",
    ),
    (
        lambda mesh: mesh.pub("one", {}, None, {"search": {"a": float("nan")}}),
        PayloadError,
        r"nan at \$\._a",
    ),
    (lambda mesh: mesh.pub("one", {}, None, {"pending": BIG}), ConfigError, "pending must be a finite"),
    (lambda mesh: mesh.pubsub("one", {}, timeout=BIG), ConfigError, "timeout must be a finite"),
    # -- stopping
    (lambda mesh: mesh.interrupt("one", "j", reason=5), ConfigError, "reason must be a text, not 5"),  # type: ignore[arg-type]
    (lambda mesh: mesh.interrupt("one", "j", reason=HALF), PayloadError, r"surrogate pair at \$\.reason"),
    (lambda mesh: mesh.interrupt("one", "j", stack="x" * 2_000_000), MessageTooLargeError, "2,000,0.. bytes"),
    (lambda mesh: mesh.interrupt("one", "j", throw="no"), ConfigError, "throw must be True or False"),  # type: ignore[arg-type]
    # -- signals and statistics
    (lambda mesh: mesh.signal(HALF, {}), ConfigError, "topic has a NUL"),
    (lambda mesh: mesh.signal_all("told", "x", {}), ConfigError, "data must be a dict, not 'x'"),  # type: ignore[arg-type]
    (lambda mesh: mesh.signal_all("told", {}, 5), ConfigError, "query must be a dict, not 5"),  # type: ignore[arg-type]
    (
        lambda mesh: mesh.signal_all("told", {}, {}, "color:red"),
        ConfigError,
        "facets is a list of texts, not 'c",
    ),
    (lambda mesh: mesh.get_ids("counted", {}, "color:red"), ConfigError, "facets is a list of texts"),
    (lambda mesh: mesh.get_ids("counted", {}, [5]), ConfigError, "each of facets must be a text, not 5"),  # type: ignore[list-item]
    (lambda mesh: mesh.get_stats("counted", None), ConfigError, "Invalid combination"),  # type: ignore[arg-type]
    (
        lambda mesh: mesh.get_stats("counted", {"range": "9" * 30 + "d", "end": "NOW"}),
        ConfigError,
        "is too long",
    ),
    (
        lambda mesh: mesh.get_stats("counted", {"range": "9999999d", "end": "NOW"}),
        ConfigError,
        "years 1 to 9999",
    ),
    # -- further answers
    (lambda mesh: mesh.add(5), ConfigError, "message must be a dict, not 5"),  # type: ignore[arg-type]
    (
        lambda mesh: mesh.add({"metadata": "x"}),
        ConfigError,
        "metadata of an added message must be a dict",
    ),
    (lambda mesh: mesh.add(added(jid=5)), ConfigError, r"metadata\.jid of an added message must be a text"),
    (lambda mesh: mesh.add(added(dad="x")), ConfigError, r"metadata\.dad .* an address such as ',0,0'"),
    (lambda mesh: mesh.add(added(gid="x")), JobNotFoundError, "Job j not found"),
    # -- reading
    (lambda mesh: mesh.get_query_state("j", 5), ConfigError, "fields is a list of names, not 5"),  # type: ignore[arg-type]
    (lambda mesh: mesh.get_query_state("j", [5]), ConfigError, "fields is a list of names, and 5"),  # type: ignore[list-item]
    (lambda mesh: mesh.export("j", allow=5), ConfigError, "allow is a list of dependencies"),  # type: ignore[arg-type]
    (lambda mesh: mesh.requeue(BIG), DeadLetterNotFoundError, "there is no dead letter 1000"),
    (lambda mesh: mesh.discard("x"), ConfigError, "id of a dead letter must be an integer"),  # type: ignore[arg-type]
    # -- the mesh
    (lambda mesh: mesh.throttle(0, topic=HALF), ConfigError, "topic must be a non-empty text"),
    (lambda mesh: mesh.throttle(0, scope=[]), ConfigError, "scope must be one of"),  # type: ignore[arg-type]
    (lambda mesh: mesh.roll_call(BIG), ConfigError, "delay must be a finite"),
    (lambda mesh: mesh.pub_quorum(5), ConfigError, "message must be a dict, not 5"),  # type: ignore[arg-type]
    (lambda mesh: mesh.pub_quorum({"type": []}), ConfigError, "a quorum message needs a type"),
    (lambda mesh: mesh.sub_quorum(5), ConfigError, "the subscriber is not callable: 5"),  # type: ignore[arg-type]
    (lambda mesh: mesh.resume(None), ConfigError, "job_id must be a text, not None"),  # type: ignore[call-overload]
    (lambda mesh: mesh.sub(HALF, print), ConfigError, "a topic to subscribe to"),
    (lambda mesh: mesh.unsub(5), ConfigError, "topic must be a text, not 5"),  # type: ignore[arg-type]
    (lambda mesh: mesh.punsub("\0"), ConfigError, "pattern has a NUL"),
    (lambda mesh: mesh.activate(HALF), ConfigError, "version has a NUL"),
]


@pytest.mark.anyio
async def test_calls_with_what_they_cannot_use_are_refused_by_name(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with HotMesh.init("arguments", connection=database_url, workers=[Worker("w", double)]) as mesh:
        await mesh.deploy(one_worker("arguments", more=COUNTED))
        await mesh.activate("1")
        for call, kind, words in REFUSED:
            with pytest.raises(kind, match=words):
                await call(mesh)
        for method, ask in TAKE_A_JOB.items():
            for value in NO_TEXT:
                with pytest.raises(ConfigError, match=r"job_id (must be a text|has a NUL)"):
                    await ask(mesh, value)
            assert method
        assert await mesh.list_dead_letters(limit=BIG) == []
        assert not await mesh.forget("j", "no generation")
        job_id = await mesh.pub("one", {"x": 1}, None, {"pending": 1e300})
        assert await mesh.get_status(job_id) == -1
        await mesh.resume(job_id)
        # Nothing of all that has reached the engine.
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.anyio
async def test_after_stop_nothing_is_asked_of_the_database(database_url: str) -> None:
    async with HotMesh.init("arguments", connection=database_url, name="gone") as mesh:
        await mesh.deploy(one_worker("arguments"))
    calls: list[Call] = [
        *(
            lambda mesh, ask=ask: ask(mesh, "j")
            for ask in TAKE_A_JOB.values()
            if ask is not TAKE_A_JOB["forget"]
        ),
        lambda mesh: mesh.roll_call(),
        lambda mesh: mesh.pause(),
        lambda mesh: mesh.get_throttle(),
        lambda mesh: mesh.pub_quorum({"type": "ping"}),
        lambda mesh: mesh.sub_quorum(print),
        lambda mesh: mesh.deploy(one_worker("arguments")),
        lambda mesh: mesh.activate("1"),
    ]
    for call in calls:
        with pytest.raises(ConnectionLostError, match="this instance of app arguments has stopped"):
            await call(mesh)
    with pytest.raises(ConnectionLostError, match="has stopped"):
        mesh.add_worker(Worker("w", double))
    client = await connect_client(database_url)
    try:
        left = "select count(*) from pg_stat_activity where application_name = 'gone'"
        assert await client.fetchval(left) == 0
    finally:
        await client.close()


@pytest.mark.anyio
async def test_search_fields_are_what_sql_makes_of_the_same_json(database_url: str) -> None:
    search = {"none": None, "yes": True, "list": [1, {"a": None}], "moment": datetime(2026, 1, 1, tzinfo=UTC)}
    async with HotMesh.init("arguments", connection=database_url) as mesh:
        await mesh.deploy(one_worker("arguments"))
        await mesh.activate("1")
        job_id = await mesh.pub("one", {}, None, {"search": search, "pending": 60})
        found = await mesh.get_query_state(job_id, list(search))
        client = await connect_client(database_url)
        try:
            statement = "select hotmesh.start_job('arguments', 'one', job_id => 'sql', search => $1)"
            await client.fetchval(
                statement,
                '{"none": null, "yes": true, "list": [1, {"a": null}], "moment": "2026-01-01T00:00:00Z"}',
            )
        finally:
            await client.close()
        by_sql = await mesh.get_query_state("sql", list(search))

    assert found == {
        "none": None,
        "yes": "true",
        "list": '[1,{"a":null}]',
        "moment": "2026-01-01T00:00:00Z",
    }
    assert {name: (value or "").replace(" ", "") for name, value in by_sql.items()} == {
        name: value or "" for name, value in found.items()
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 5}, "workers= takes workers and dicts of their options, not 5"),
        ({"workers": [Worker("w", double)], "settings": 5}, "settings must be a dict, not 5"),
        ({"engine": "no"}, "engine= takes True, False or a dict"),
        ({"readonly": "no"}, "readonly must be True or False, not 'no'"),
        ({"engine": {"readonly": 0}}, "engine's readonly must be True or False, not 0"),
        ({"pin_versions": None}, "pin_versions must be True or False"),
        ({"secured": "yes"}, "secured must be True or False"),
        (
            {"workers": [{"topic": "w", "callback": double, "readonly": 1}]},
            "readonly of worker w must be True",
        ),
        ({"migrate": "never"}, "migrate= must be 'auto' or 'verify', not 'never'"),
        ({"guid": HALF}, r"config\.guid is a text"),
        ({"namespace": "x" * 64}, r"config\.namespace .* at most 63 characters"),
        ({"max_concurrency": 0}, "setting max_concurrency must be more than 0"),
        ({"settings": {"batch": 1.5}}, "setting batch must be a whole number, not 1.5"),
        ({"lease": 1e300}, "setting lease must be at most"),
        ({"lease": BIG}, "lease must be a finite duration"),
        ({"tracer_provider": 5}, "tracer_provider= takes a tracer provider"),
        ({"workers": [{"topic": HALF, "callback": double}]}, "a worker's topic has a NUL"),
        (
            {"workers": [{"topic": "w", "callback": double, "retry": 5}]},
            "worker w: retry is a RetryPolicy or a",
        ),
        ({"workers": [{"topic": "w", "callback": double, "retry": {"x": 5}}]}, "retry has no key 'x'"),
        (
            {"workers": [{"topic": "w", "callback": double, "retry": {"backoff_coefficient": "2"}}]},
            "backoff_coefficient must be a number of at least 1",
        ),
        (
            {"workers": [{"topic": "w", "callback": double, "timeout": -1}]},
            "worker w: timeout must be a finite",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HotMesh.init("arguments", **options)


def test_a_variable_that_cannot_be_used_is_named() -> None:
    for variable, text in (
        ("HMSH_OTT_WAIT_TIME", "-1"),
        ("HMSH_MAX_CONCURRENCY", "0"),
        ("HMSH_MAX_CYCLES", "1.5"),
    ):
        with pytest.raises(ConfigError, match=f"environment variable {variable} must be"):
            Settings.read(None, {variable: text})
    assert Settings.read({"expire": 0, "duress_interval": 0}, {"HMSH_OTT_WAIT_TIME": "0"}).pubsub_timeout == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("connection", "words"),
    [({"dsn": 5}, "a dsn that is no text: 5"), (lambda: 5, "a function that returned int")],
)
async def test_connections_that_cannot_be_are_refused_by_name(connection: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        await HotMesh.init("arguments", connection=connection)


@pytest.mark.anyio
async def test_a_workers_timeout_is_a_duration_as_any_other(database_url: str) -> None:
    slow = Worker("w", double, timeout="1 minute")
    async with HotMesh.init("arguments", connection=database_url) as mesh:
        await mesh.deploy(one_worker("arguments"))
        await mesh.activate("1")
        mesh.add_worker({"topic": "w", "callback": double, "timeout": timedelta(minutes=1)})
        assert (await mesh.pubsub("one", {"x": 1}, timeout=10)).data == {"y": 2}

    assert slow.timeout == "1 minute"


@pytest.mark.anyio
async def test_functions_and_housekeeping_refuse_by_name_too(database_url: str) -> None:
    place: dict[str, Any] = {"connection": database_url}
    callbacks: list[tuple[Any, dict[str, Any], str]] = [
        (5, {}, "the callback of f is not callable: 5"),
        (double, {"retry": 5}, "retry is a RetryPolicy or a dict"),
        (double, {"retry": {"x": 1}}, "retry has no key 'x'"),
    ]
    prunes: list[tuple[dict[str, Any], str]] = [
        ({"app_id": 5}, "app_id must be a text, not 5"),
        ({"app_id": "a", "jobs": "yes"}, "jobs must be True or False, not 'yes'"),
        ({"app_id": "a", "entities": [5]}, "each of entities must be a text, not 5"),
        ({"app_id": "a", "expire": BIG}, "expire must be a finite"),
    ]
    try:
        for callback, options, words in callbacks:
            with pytest.raises(ConfigError, match=words):
                await Virtual.connect("f", callback, **place, **options)
        await Virtual.connect("f", lambda: "served", **place)
        assert await Virtual.exec("f", **place) == "served"
        for id_ in ("a\0b", HALF):
            with pytest.raises(ConfigError, match="id must be a text"):
                await Virtual.flush("f", id=id_, **place)
        with pytest.raises(ConfigError, match="options must be a dict, not 5"):
            await Virtual.exec("f", options=5, **place)  # type: ignore[arg-type]
    finally:
        await Virtual.shutdown()
    for options, words in prunes:
        with pytest.raises(ConfigError, match=words):
            await DBA.prune(**options, **place)


# -- payloads ------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    value: Any


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Measured(float("nan")), r"the number nan at \$\.value"),
        ({"m": Measured(Measured(float("inf")))}, r"the number inf at \$\.m\.value\.value"),
        ({"m": {float("nan")}}, r"the number nan at \$\.m\[0\]"),
        ({"a": {True: 1}}, r"a key of type bool at \$\.a"),
        ({"a": {HALF: 1}}, r"a key with half of a surrogate pair at \$\.a"),
        ({"a": [10**5000]}, r"a number of thousands of digits at \$\.a\[0\]"),
        ({"a": Measured(HALF)}, r"half of a surrogate pair at \$\.a\.value"),
        ({"a": Measured(object())}, r"a value of type object at \$\.a\.value"),
    ],
)
def test_what_json_cannot_hold_is_found_wherever_it_is(value: Any, words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        normalise(value, limit=10_000, what="data")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({1.5: None, 2: None}, {"1.5": None, "2": None}),
        ({date(2026, 1, 1): None, Color.RED: None}, {"2026-01-01": None, "red": None}),
        ({"ä": [None, Color.RED, Decimal("1.10")]}, {"ä": [None, "red", "1.10"]}),
        (Measured(None), {"value": None}),
    ],
)
def test_what_json_can_hold_is_stored_with_a_null_beside_it_too(value: Any, stored: Any) -> None:
    assert normalise(value, limit=10_000, what="data") == stored


def test_no_duration_is_too_long_to_be_refused() -> None:
    for value in (BIG, "9" * 400, f"{BIG} years"):
        with pytest.raises(
            ConfigError, match=r"wait (must be a finite duration|is a text of \d+ characters)"
        ):
            seconds(value, name="wait")

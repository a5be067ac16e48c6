"""Options: other names and forms that they may have, and what is refused with the way out."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hotmesh import ConfigError, HotMesh, NotAuthorizedError, StreamData, Worker
from hotmesh.compat import normal_form
from hotmesh.postgres.logins.login import WorkerLogin
from hotmesh.runtime import options
from hotmesh.runtime.options import DURATIONS, NUMBERS, Options
from hotmesh.runtime.settings import Settings

APP = "options"


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


@pytest.mark.anyio
async def test_an_engine_takes_the_names_that_other_engines_have(database_url: str) -> None:
    engine = {
        "connection": {"options": {"dsn": database_url}},
        "reclaim_delay": "1 minute",
        "reclaim_count": 3,
    }
    async with HotMesh.init(APP, engine=engine, workers=[{"topic": "w", "callback": double}]) as mesh:
        assert (mesh.settings.lease, mesh.settings.poison_threshold) == (60, 3)
        profiles = await mesh.roll_call(5)
    assert {(profile["reclaimDelay"], profile["reclaimCount"]) for profile in profiles} == {(60_000, 3)}
    assert len(profiles) == 2


def test_durations_among_the_settings_are_those_of_arguments() -> None:
    found = Settings.read({"lease": "2 minutes", "grace": timedelta(seconds=3), "expire": 5})

    assert (found.lease, found.grace, found.expire) == (120, 3, 5)
    for name, value in (("lease", "soon"), ("max_cycles", "5 minutes"), ("duress_alpha", "1s")):
        with pytest.raises(ConfigError, match=name):
            Settings.read({name: value})


def refused(words: str, **options: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        HotMesh.init(APP, **options)


def test_what_is_refused_names_the_way_out() -> None:
    refused(r"retry is an option of workers: Worker\(", engine={"retry": {"maximum_attempts": 3}})
    refused("reclaim_delay and lease are two names of one setting", lease=3, engine={"reclaim_delay": 5})
    refused(
        "reclaim_delay must be a finite duration",
        engine={"reclaim_delay": "-1"} | {"reclaim_delay": timedelta(-1)},
    )
    refused("there is no setting 'stats'", engine={"stats": 1})
    refused("a worker has no option 'conection'; known are topic, callback", workers=[_worker(conection="x")])
    refused(
        "reclaim_count is no option of a worker: .*settings={'reclaim_count'",
        workers=[_worker(reclaim_count=3)],
    )
    refused("worker must include a callback function and topic; it has topic", workers=[{"topic": "w"}])
    refused("workers= takes workers and dicts of their options, not 7", workers=[7])
    with pytest.raises(ConfigError, match="the callback of worker w is not callable"):
        Worker("w", "x")  # type: ignore[arg-type]


def _worker(**options: Any) -> dict[str, Any]:
    return {"topic": "w", "callback": double, **options}


def written(**given: Any) -> dict[str, Any]:
    """What `init` passes on: every option, as given or by default."""
    signature = inspect.signature(HotMesh.init).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in signature}
    return defaults | {"app_id": APP} | given


def test_every_option_is_a_field_with_the_same_default_and_says_what_it_means() -> None:
    signature = inspect.signature(HotMesh.init).parameters
    known = {field.name: field for field in fields(Options)}
    source = Path(options.__file__).read_text(encoding="utf-8")

    assert signature.keys() == known.keys() | {*DURATIONS, *NUMBERS}
    assert {*DURATIONS, *NUMBERS} <= {field.name for field in fields(Settings)}
    for name, field in known.items():
        assert re.search(rf'^    {name}: .*\n    """', source, re.MULTILINE), name
        if name not in ("guid", "settings"):  # of which there is one in the end, even if none is given
            assert signature[name].default in (field.default, inspect.Parameter.empty), name


def test_options_that_are_read_have_one_form() -> None:
    found = Options.read(**written(lease="1 minute", log_level="silly", settings={"lease": 5, "batch": 7}))

    assert (found.settings.lease, found.settings.batch, found.log_level) == (60, 7, 1)
    assert (found.log_context.app_id, found.log_context.guid) == (APP, found.guid)
    assert Options.read(**written()).guid != found.guid
    login = {"user": "u", "password": "secret"}
    secured = Options.read(
        **written(engine=False, worker_credentials=login, connection="postgresql://u:secret@h")
    )
    assert secured.secured
    assert "secret'" not in repr(secured)
    assert ":secret" not in repr(secured)


def test_options_of_an_engine_are_those_of_its_instance_but_for_its_workers() -> None:
    engine = {"connection": "postgresql://other", "task_queue": "q", "readonly": True, "reclaim_count": 3}
    worker = Worker("w", double)

    found = normal_form(
        written(engine=engine, connection="postgresql://h", workers=[worker], settings={"batch": 7})
    )
    assert (found["engine"], found["connection"]) == (True, "postgresql://other")
    assert (found["task_queue"], found["readonly"]) == ("q", True)
    assert found["settings"] == {"batch": 7, "reclaim_count": 3}
    assert found["workers"] == [worker]
    assert normal_form(written(engine=engine, task_queue="mine"))["task_queue"] == "mine"
    for connection in ({"dsn": "postgresql://h", "readonly": True}, {"store": {"readonly": True}}):
        found = normal_form(written(connection=connection, workers=[worker]))
        assert (found["readonly"], found["workers"]) == (True, [worker])
    found = normal_form(written(readonly=True, workers=[worker]))
    assert [worker.readonly for worker in found["workers"]] == [True]


def test_a_worker_login_bounds_the_settings_and_the_topics() -> None:
    login = WorkerLogin(APP, frozenset({"w"}), "c", 10, 20, 30, 1000)
    found = Options.read(**written(engine=False, workers=[Worker("w", double)]))

    bounded = found.within(login).settings
    assert (bounded.lease, bounded.longest_callback, bounded.max_payload) == (10, 20, 1000)
    assert bounded.batch == found.settings.batch
    with pytest.raises(NotAuthorizedError, match="may not serve v; it may serve w"):
        Options.read(**written(workers=[Worker("v", double)])).within(login)
    with pytest.raises(NotAuthorizedError, match="is for app options, not for another"):
        Options.read(**written(app_id="another")).within(login)

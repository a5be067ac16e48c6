"""Options: other names and forms that they may have, and what is refused with the way out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from hotmesh import ConfigError, HotMesh, StreamData, Worker
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

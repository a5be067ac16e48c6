"""The public modules: what they offer is what the code means by it."""

from __future__ import annotations

import importlib
import inspect
import json
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest

import hotmesh
from harness import one_worker
from hotmesh import HotMesh, StreamData, Worker, enums, errors, types, utils
from hotmesh.core.definition import grammar
from hotmesh.core.state import job
from hotmesh.enums import Code, JobStatus, MessageStatus
from hotmesh.observe import jobs
from hotmesh.runtime.engine import duress
from hotmesh.runtime.members import messages
from hotmesh.runtime.messages import StreamMetadata
from hotmesh.runtime.results.output import JobMetadata
from hotmesh.runtime.settings import Settings


@pytest.mark.parametrize("name", ["hotmesh", "hotmesh.types", "hotmesh.utils"])
def test_what_a_module_names_is_there_and_in_order(name: str) -> None:
    module = importlib.import_module(name)

    assert all(hasattr(module, public) for public in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


def test_every_error_can_be_imported_from_the_package() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.HotMeshError) and name != "LocalServerError"
    }

    assert found <= set(hotmesh.__all__)


def test_the_words_are_those_of_the_code() -> None:
    for enum, words in (
        (enums.ActivityType, grammar.TYPES),
        (enums.Gate, grammar.GATES),
        (enums.Measure, grammar.MEASURES),
        (enums.Granularity, grammar.GRANULARITIES),
        (enums.SignalSubtype, grammar.SUBTYPES),
        (enums.MessageStatus, grammar.STATUSES),
        (enums.DuressLevel, get_args(duress.Level)),
        (enums.ThrottleScope, get_args(messages.Scope)),
        (enums.JobState, get_args(jobs.State)),
    ):
        assert [member.value for member in enum] == list(words)
    assert (job.PENDING_STATUS, job.INTERRUPTED) == (JobStatus.PENDING, JobStatus.INTERRUPTED)


def test_codes_are_those_of_the_errors() -> None:
    assert errors.JobTimeoutError("x").code == Code.TIMEOUT
    assert errors.DuplicateJobError("x").code == Code.DUPLICATE
    assert errors.JobCompletedError("x").code == Code.INTERRUPTED
    assert errors.GetStateError("x").code == errors.SignalNotFoundError.code == Code.NOT_FOUND
    assert errors.LeaseExpiredError.code == Code.LOST
    # A plain number, wherever it goes.
    assert all(type(error.code) is int for error in (errors.JobTimeoutError("x"), errors.LeaseExpiredError()))
    assert {status: hotmesh.Response(status=status).code for status in MessageStatus} == enums.STATUS_CODES


def test_a_member_stands_for_its_value() -> None:
    response = hotmesh.Response({}, status=MessageStatus.PENDING, code=Code.PENDING)

    assert (response.status, response.code) == ("pending", 202)
    assert json.dumps([MessageStatus.ERROR, Code.LOST]) == '["error", 598]'


def test_the_page_names_every_module_and_every_word() -> None:
    page = (Path(__file__).parent.parent / "docs" / "modules.md").read_text(encoding="utf-8")

    for name, enum in vars(enums).items():
        if inspect.isclass(enum) and issubclass(enum, Enum) and enum.__module__ == enums.__name__:
            assert f"`{name}`" in page, name
            for member in enum:
                word = f"`{member.value}`" if isinstance(member.value, str) else f"`{member.name}`"
                assert word in page, member
    for module in ("hotmesh", "hotmesh.errors", "hotmesh.enums", "hotmesh.types", "hotmesh.utils"):
        assert f"`{module}`" in page


def test_settings_tell_their_defaults_and_variables() -> None:
    assert types.Settings is Settings
    assert Settings().lease == 30.0
    assert Settings.variables()["lease"] == "HMSH_RESERVATION_TIMEOUT_S"


def test_utilities() -> None:
    assert utils.guid() != utils.guid()
    assert len(utils.guid()) == 23
    assert utils.seconds("5 minutes") == 300
    assert (utils.is_cron("*/5 * * * *"), utils.is_cron("soon")) == (True, False)


@pytest.mark.anyio
async def test_metadata_have_the_fields_that_their_types_name(database_url: str) -> None:
    seen: list[StreamData] = []

    async def call(message: StreamData) -> dict[str, Any]:
        seen.append(message)
        if not message.metadata.get("try"):
            raise RuntimeError("once more")
        return {"y": 1}

    worker = Worker("w", call, retry={"maximum_attempts": 2, "initial_interval": 0.001})
    async with HotMesh.init("public", connection=database_url, workers=[worker]) as mesh:
        await mesh.deploy(one_worker("public"))
        await mesh.activate("1")
        context = {"metadata": {"trc": "0" * 31 + "1", "spn": "0" * 15 + "1"}}
        output = await mesh.pubsub("one", {"x": 1}, context, timeout=10)
    always = {"jid", "gid", "tpc", "app", "vrs", "aid", "jc", "ju", "ts", "js"}
    assert isinstance(output.metadata, JobMetadata)
    assert always | {"trc", "spn", "ngn"} <= set(output.metadata) <= set(JobMetadata.__annotations__)
    assert output.metadata.js == JobStatus.COMPLETE
    assert datetime.strptime(output.metadata.jc, "%Y%m%d%H%M%S.%f").replace(tzinfo=UTC) <= datetime.now(UTC)
    assert set(seen[-1].metadata) == {*StreamMetadata.__annotations__, "try"}

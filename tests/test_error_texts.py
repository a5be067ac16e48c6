"""What errors say to somebody who sees them for the first time: the facts, and the way out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import one_worker
from hotmesh import (
    AppNotFoundError,
    CompileError,
    ConfigError,
    ConnectionFailedError,
    HotMesh,
    SchemaError,
    VersionNotFoundError,
)
from hotmesh.cli import main
from hotmesh.core.schedule import read_rhythm
from hotmesh.errors import JobCompletedError, JobNotFoundError, TopicNotFoundError
from hotmesh.postgres.connect.address import address

pytestmark = pytest.mark.anyio


def says(error: BaseException, *facts: str) -> None:
    text = str(error)
    assert [fact for fact in facts if fact not in text] == [], text


async def test_no_connection_says_where_it_led_as_whom_and_who_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConnectionFailedError) as caught:
        await HotMesh.init("shop", connection="postgresql://x:secret@127.0.0.1:1/db")
    says(caught.value, "127.0.0.1:1", "as x", "connection=", "connection refused", "is it running")
    assert "secret" not in str(caught.value)

    monkeypatch.setenv("HOTMESH_DATABASE_URL", "postgresql://x@nohost.invalid/db")
    with pytest.raises(ConnectionFailedError) as caught:
        await HotMesh.init("shop")
    says(caught.value, "nohost.invalid", "HOTMESH_DATABASE_URL", "no such host")

    monkeypatch.delenv("HOTMESH_DATABASE_URL")
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    with pytest.raises(ConnectionFailedError) as caught:
        await HotMesh.init("shop")
    says(caught.value, "127.0.0.1:1", "PGHOST")


@pytest.mark.parametrize(
    "command",
    [
        "jobs", "status j", "timeline j", "explain j --app a", "doctor", "members", "pause", "dead-letters list --app a",
        "dead-letters requeue 1 --app a", "prune --app a", "migrate", "migrate --dry-run", "role list", "role revoke r",
        "demo",
    ],
)  # fmt: skip
def test_commands_say_that_their_option_led_there(command: str) -> None:
    refused = CliRunner().invoke(main, [*command.split(), "--connection", "postgresql://x@127.0.0.1:1/db"])

    assert refused.exit_code
    assert "(from --connection)" in refused.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dsn": "postgresql://u:p@h:1/db"}, "h:1 as u"),
        ({"dsn": "postgresql://u%40x@[::1]:1/db"}, "[::1]:1 as u@x"),
        ({"dsn": "postgresql://a:1,b:2/db"}, "a:1 or b:2"),
        ({"dsn": "postgresql://u@/db?host=/tmp/s"}, "/tmp/s (a socket) as u"),
        ({"dsn": "postgresql://u:p@h/db", "user": "w", "password": "q"}, "h:5432 as w"),
        ({"host": "h", "port": 7, "user": "u", "password": "p"}, "h:7 as u"),
        ({}, "localhost:5432"),
    ],
)
async def test_an_address_in_words(options: dict[str, Any], expected: str) -> None:
    assert address(options) == expected


def test_a_namespace_without_tables_names_those_that_have_them(database_url: str) -> None:
    for command in (["jobs"], ["status", "j"], ["members", "--app", "shop"], ["pause", "--app", "shop"]):
        refused = CliRunner().invoke(main, [*command, "--namespace", "other", "--connection", database_url])
        assert refused.exit_code == 1
        for fact in ("namespace other", "test_", "namespaces that have: hotmesh", "hotmesh migrate"):
            assert fact in refused.stderr, refused.stderr


async def test_an_instance_without_tables_names_those_that_there_are(database_url: str) -> None:
    with pytest.raises(SchemaError) as caught:
        await HotMesh.init("shop", connection=database_url, namespace="other", migrate="verify")
    says(caught.value, "namespace other", "hotmesh")


async def test_a_name_that_cannot_be_used_is_told_with_one_that_can() -> None:
    for option, name, better in (("app_id", "my_shop", "my-shop"), ("namespace", "a b", "a-b")):
        options: dict[str, Any] = {"app_id": "shop", option: name}
        with pytest.raises(ConfigError) as caught:
            HotMesh.init(**options)
        says(caught.value, option, repr(name), repr(better), "letters, digits and hyphens")


async def test_the_name_of_an_app_in_a_graph_is_told_likewise(database_url: str) -> None:
    async with HotMesh.init("shop", connection=database_url) as mesh:
        with pytest.raises(CompileError) as caught:
            await mesh.plan(one_worker("my_shop"))
    says(
        caught.value,
        "V16: app.id 'my_shop' cannot be used, letters, digits and hyphens only; how about 'my-shop'?",
    )


async def test_a_file_without_anything_is_named(database_url: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    for content in ("", "\n", "# nothing\n", "---\n"):
        empty.write_text(content)
        told = CliRunner().invoke(main, ["check", str(empty)])
        assert told.exit_code == 1
        assert re.match(rf"{empty}(:\d:1)?: error shape: the file is empty: ", told.output)
        async with HotMesh.init("shop", connection=database_url) as mesh:
            for call in (mesh.plan, mesh.deploy):
                with pytest.raises(CompileError) as caught:
                    await call(str(empty))
                says(caught.value, str(empty), "the file is empty")


async def test_what_there_is_is_named_once(database_url: str) -> None:
    assert str(AppNotFoundError("rne", ["rone"], deployed=False)) == "there is no app rne; did you mean rone?"
    text = str(AppNotFoundError("rne", ["rone", "shop"], deployed=False))
    assert text == "there is no app rne; did you mean rone? (other apps here: shop)"
    assert str(AppNotFoundError("rne", [], deployed=False)) == "there is no app rne; there is none here"

    async with HotMesh.init("shop", connection=database_url) as mesh:
        with pytest.raises(VersionNotFoundError) as none:
            await mesh.activate("9")
        for version in ("10", "2", "1"):
            await mesh.deploy(one_worker("shop").replace("version: '1'", f"version: '{version}'"))
        with pytest.raises(VersionNotFoundError) as some:
            await mesh.activate("9")
        with pytest.raises(JobNotFoundError) as job:
            await mesh.get_state("one", "nope")
        with pytest.raises(CompileError) as path:
            await mesh.plan(
                one_worker("shop")
                .replace("x1", "x1")
                .replace("{type: trigger}", "{type: trigger, entity: '{zz.y}'}")
            )
    assert str(none.value) == "Version 9 does not exist for app shop; none was deployed"
    assert str(some.value) == "Version 9 does not exist for app shop; there are: 1, 2, 10"
    assert str(job.value) == "Job nope not found in app shop"
    says(path.value, "{zz.y}", "a path begins with one of $self, $job, ")


async def test_an_app_without_a_version_names_the_others(database_url: str) -> None:
    async with HotMesh.init("shop", connection=database_url) as mesh:
        await mesh.deploy(one_worker("shop"))
        await mesh.activate("1")
        with pytest.raises(TopicNotFoundError) as topic:
            await mesh.pub("oen", {})
        with pytest.raises(CompileError) as mismatch:
            await mesh.deploy(one_worker("webshop"))
    says(topic.value, "oen", "app shop", "version 1", "did you mean one")
    says(mismatch.value, "of app webshop", "of app shop")
    async with HotMesh.init("newapp", connection=database_url) as mesh:
        with pytest.raises(AppNotFoundError) as caught:
            await mesh.pub("one", {})
    says(caught.value, "app newapp", "deploy and activate", "apps here: shop")
    assert caught.value.apps == ("shop",)


async def test_documents_that_are_no_graphs(database_url: str) -> None:
    async with HotMesh.init("shop", connection=database_url) as mesh:
        with pytest.raises(CompileError) as empty:
            await mesh.plan("")
        with pytest.raises(CompileError) as headless:
            await mesh.plan(
                "app: {id: shop, version: '1', graphs: [{subscribes: s, activities: {a: {type: hook}}}]}"
            )
    says(empty.value, "empty")
    says(headless.value, "no trigger", "type: trigger")


@pytest.mark.parametrize(
    ("interval", "facts"),
    [
        ("0 9 * * MON", ("field 5 (weekday)", "'MON'", "0–7", "no names")),
        ("0 25 * * *", ("field 2 (hour)", "'25'", "0–23")),
        ("0 0 30 2 *", ("no day is like that",)),
        ("now and then", ("five fields", "5 minutes")),
    ],
)
async def test_a_schedule_that_cannot_be_read(interval: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_rhythm(interval)
    says(caught.value, interval, *facts)


async def test_what_init_returns_is_no_instance_yet() -> None:
    starting: Any = HotMesh.init("shop")
    with pytest.raises(AttributeError) as caught:
        starting.pub("one", {})
    says(caught.value, "await HotMesh.init", "async with", "pub")


async def test_a_wrapper_of_django_names_what_it_wraps(database_url: str) -> None:
    proxy = type("ConnectionProxy", (), {"__module__": "django.utils.connection"})
    async with HotMesh.init("shop", connection=database_url) as mesh:
        await mesh.deploy(one_worker("shop"))
        await mesh.activate("1")
        with pytest.raises(ConfigError) as caught:
            await mesh.pub("one", {}, connection=proxy())
    says(caught.value, "django.utils.connection.ConnectionProxy", "connection.connection")


async def test_a_job_that_has_ended_or_expired_says_when(database_url: str) -> None:
    async with HotMesh.init("shop", connection=database_url) as mesh:
        await mesh.deploy(one_worker("shop"))
        await mesh.activate("1")
        await mesh.pub("one", {}, extended={"id": "A1"})
        await mesh.interrupt("one", "A1")
        with pytest.raises(JobCompletedError) as completed:
            await mesh.interrupt("one", "A1")
        await mesh.pub("one", {}, extended={"id": "A2"})
        await mesh.interrupt("one", "A2", expire=0.001)
        reads = (
            lambda: mesh.get_state("one", "A2"),
            lambda: mesh.get_status("A2"),
            lambda: mesh.get_raw("A2"),
            lambda: mesh.export("A2"),
            lambda: mesh.explain("A2"),
            lambda: mesh.interrupt("one", "A2"),
            lambda: mesh.resume("A2"),
        )
        for read in reads:
            with pytest.raises(JobNotFoundError) as expired:
                await read()
            says(expired.value, "A2", "ended at", "has expired", "kept 0.001 s")
            assert expired.value.ended_at is not None
        with pytest.raises(JobNotFoundError) as unknown:
            await mesh.get_state("one", "nope")
    says(completed.value, "A1", "was interrupted at")
    assert re.search(r"at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", str(completed.value))
    says(unknown.value, "nope", "app shop")

"""`hotmesh members`, `throttle`, `pause` and `resume`."""

from __future__ import annotations

import asyncio
import json

from click.testing import CliRunner, Result

from harness import one_worker
from hotmesh import HotMesh, StreamData, Worker
from hotmesh.cli import main


def hotmesh(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--connection", url])


def test_the_members_of_a_mesh_and_their_rates(database_url: str) -> None:
    async def nothing(_: StreamData) -> None:
        """Never called."""

    async def look(*arguments: str) -> Result:
        result = await asyncio.to_thread(hotmesh, database_url, *arguments)
        assert result.exit_code == 0, result.output
        return result

    async def drive() -> None:
        async with HotMesh.init(
            "shop", connection=database_url, guid="m1", workers=[Worker("mail", nothing)]
        ) as mesh:
            await mesh.deploy(one_worker("shop", topic="mail"))
            await mesh.activate("1")

            for_people = (await look("members")).output
            assert "m1" in for_people
            assert "worker mail" in for_people
            found = json.loads((await look("members", "--json", "--app", "shop")).output)
            assert [profile["stream"] for profile in found] == ["hotmesh:shop:x:", "hotmesh:shop:x:mail"]

            assert (await look("pause")).output == "engines and workers: paused\n"
            assert await mesh.get_throttle() == -1
            assert "paused" in (await look("members")).output
            assert (await look("resume")).output == "engines and workers: no limit\n"
            assert await mesh.get_throttle() == 0
            said = (await look("throttle", "250", "--topic", "mail", "--app", "shop")).output
            assert said == "workers of mail: one message per 250 ms\n"
            assert await mesh.get_throttle("mail") == 250
            assert (await look("throttle", "-1", "--scope", "engines")).output == "engines: paused\n"
            assert await mesh.get_throttle(scope="engines") == -1
            nobody = await asyncio.to_thread(hotmesh, database_url, "throttle", "5", "--guid", "m2")
            assert (nobody.exit_code, "no member answers to the guid m2" in nobody.output) == (1, True)
            assert (await look("throttle", "5", "--guid", "m1")).output == (
                "engines and workers of m1: one message per 5 ms\n"
            )

    asyncio.run(drive())
    assert hotmesh(database_url, "members", "--delay", "0").output == "no members\n"
    refused = hotmesh(database_url, "throttle", "-7")
    assert (refused.exit_code, "Throttle must be -1 (pause)" in refused.stderr) == (1, True)


def test_without_an_app_there_has_to_be_one(database_url: str) -> None:
    assert "nothing was ever deployed" in hotmesh(database_url, "members").stderr

    async def deploy() -> None:
        for app in ("one", "two"):
            async with HotMesh.init(app, connection=database_url) as mesh:
                await mesh.deploy(one_worker(app))

    asyncio.run(deploy())
    assert "say which with --app (one, two)" in hotmesh(database_url, "pause").stderr

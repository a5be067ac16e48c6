"""`hotmesh role`: making and ending worker logins from the command line."""

from __future__ import annotations

import asyncio
import json

from click.testing import CliRunner

from harness import one_worker
from hotmesh import HotMesh
from hotmesh.cli import main


def test_a_login_is_made_rotated_listed_and_revoked(database_url: str) -> None:
    def hotmesh(*arguments: str, stdin: str | None = None) -> str:
        done = CliRunner().invoke(main, ["role", *arguments, "--connection", database_url], input=stdin)
        assert done.exit_code == 0, done.output
        return done.output

    async def deploy() -> None:
        async with HotMesh.init("shop", connection=database_url) as mesh:
            await mesh.deploy(one_worker("shop", "payments"))

    asyncio.run(deploy())
    made = json.loads(
        hotmesh("provision", "payments", "refunds", "--app", "shop", "--json").split("\n", 1)[1]
    )
    name = made["role_name"]
    assert "payments__refunds" in name
    assert len(made["password"]) >= 32

    assert "secret" not in hotmesh("rotate", name, "--password-stdin", stdin="secret\n")
    [listed] = json.loads(hotmesh("list", "--json"))
    assert (listed["stream_names"], listed["revoked_at"]) == (["payments", "refunds"], None)

    assert hotmesh("revoke", name) == f"{name} is revoked\n"
    assert "revoked" in hotmesh("list", "--app", "shop")
    refused = CliRunner().invoke(main, ["role", "revoke", "nobody", "--connection", database_url])
    assert refused.exit_code == 1
    assert "nobody" in refused.output

"""Worker logins: provisioning, rotating, revoking, listing, and workers that have nothing but such a login."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from guarded import login, provision

from harness import connected, eventually, one_worker, owed, settled
from hotmesh import (
    ConfigError,
    ConnectionFailedError,
    EngineRequiredError,
    HotMesh,
    JobCompletedError,
    JobError,
    JobNotFoundError,
    NotAuthorizedError,
    Response,
    SchemaError,
    StreamData,
    Worker,
    WorkerCredential,
    WorkerRoleNotFoundError,
    list_worker_roles,
    provision_worker_role,
    revoke_worker_role,
    rotate_worker_password,
)
from hotmesh.postgres.connect.failures import DRIVER_ERRORS
from hotmesh.postgres.logins.credentials import default_role_name

pytestmark = pytest.mark.anyio

APP = "shop"


def database_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


async def double(message: StreamData) -> dict[str, Any]:
    return {"y": message.data["x"] * 2}


async def deployed(mesh: HotMesh, topic: str = "w", activity: str = "") -> None:
    await mesh.deploy(one_worker(mesh.app_id, topic, activity=activity))
    await mesh.activate("1")


@pytest.mark.row(299, 300, 301, 303)
async def test_a_login_is_made_recorded_and_listed(guarded_url: str) -> None:
    made = await provision(guarded_url, ["payments"])

    assert made.role_name.startswith("hmsh_wrk_hotmesh_shop_payments_")
    assert len(made.password) >= 32
    assert made.password not in repr(made)
    async with connected(login(guarded_url, made)) as worker:
        assert await worker.fetchval("select session_user") == made.role_name
        [listed] = await list_worker_roles(guarded_url)
    assert (listed.role_name, listed.app_id, listed.stream_names) == (made.role_name, APP, ("payments",))
    assert listed.created_at is not None
    assert (listed.revoked_at, listed.can_login, listed.sessions) == (None, True, 1)


@pytest.mark.row(302)
async def test_provisioning_again_sets_the_password_and_brings_a_login_back(guarded_url: str) -> None:
    first = await provision(guarded_url, ["payments"])
    await revoke_worker_role(guarded_url, first.role_name)

    again = await provision(guarded_url, ["payments"], password="another one")

    assert again == WorkerCredential(first.role_name, "another one")
    async with connected(login(guarded_url, again)) as worker:
        assert await worker.fetchval("select app_id from hotmesh.worker_hello()") == APP
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(login(guarded_url, first))
    [listed] = await list_worker_roles(guarded_url, app_id=APP)
    assert listed.revoked_at is None
    assert listed.last_rotated_at is not None


@pytest.mark.row(304)
async def test_a_password_is_rotated(guarded_url: str) -> None:
    first = await provision(guarded_url, ["payments"])
    async with connected(login(guarded_url, first)) as leaked:
        second = await rotate_worker_password(guarded_url, first.role_name, end_sessions=True)
        assert leaked.is_closed() or await eventually(leaked.is_closed)
    third = await rotate_worker_password(guarded_url, first.role_name, new_password="given £ ♥")

    assert len({first.password, second.password, third.password}) == 3
    for old in (first, second):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(login(guarded_url, old))
    async with connected(login(guarded_url, third)):
        [listed] = await list_worker_roles(guarded_url)
    assert listed.last_rotated_at is not None


@pytest.mark.row(305, 316)
async def test_a_login_is_revoked_while_it_is_connected(guarded_url: str) -> None:
    made = await provision(guarded_url, ["payments"])
    async with connected(login(guarded_url, made)) as worker:
        assert (
            await worker.fetchval("select hotmesh.worker_next_at('{payments}', '{null}', '{\"{}\"}')") is None
        )

        await revoke_worker_role(guarded_url, made.role_name)

        with pytest.raises((OSError, *DRIVER_ERRORS)):
            await worker.fetch(
                "select * from hotmesh.worker_claim('m', '{payments}', '{null}', '{\"{}\"}', '{1}', 30)"
            )
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(login(guarded_url, made))
    [listed] = await list_worker_roles(guarded_url)
    assert (listed.can_login, listed.sessions) == (False, 0)
    assert listed.revoked_at is not None
    async with connected(guarded_url) as owner:
        actions = await owner.fetch(
            "select action, done_by from hotmesh.worker_credential_audit order by id desc limit 2"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await owner.execute("delete from hotmesh.worker_credential_audit")
    assert [tuple(row) for row in actions] == [("revoked", "hotmesh"), ("provisioned", "hotmesh")]


async def test_a_login_that_keeps_a_transaction_open_cannot_prevent_its_end(guarded_url: str) -> None:
    made = await provision(guarded_url, ["payments"])
    async with connected(login(guarded_url, made)) as worker:
        await worker.execute("begin")
        await worker.fetch(
            "select * from hotmesh.worker_claim('m', '{payments}', '{null}', '{\"{}\"}', '{1}', 30)"
        )

        await revoke_worker_role(guarded_url, made.role_name)

        await eventually(worker.is_closed)


@pytest.mark.row(306, 315)
async def test_names_of_logins(guarded_url: str) -> None:
    two = await provision(guarded_url, ["stream-b", "stream-a"])
    upper = await provision(guarded_url, ["Upper"])
    comma = await provision(guarded_url, ["a,b", 'quo"te', "it's", "wor%s"])
    long = [await provision(guarded_url, ["x" * 80 + end]) for end in "ab"]
    quoted = await provision(guarded_url, ["payments"], password='it\'s "quoted" $1 %s \\')

    assert "stream_a__stream_b" in two.role_name
    assert len({two.role_name, upper.role_name, comma.role_name, *(one.role_name for one in long)}) == 5
    assert all(len(one.role_name) <= 63 for one in long)
    for made in (two, upper, comma, *long, quoted):
        async with connected(login(guarded_url, made)) as worker:
            topics = await worker.fetchval("select topics from hotmesh.worker_hello()")
            assert await worker.fetchval("select hotmesh.worker_next_at($1, $2, $3)", topics, [None] * len(topics), ["{}"] * len(topics)) is None  # fmt: skip
    assert {role.stream_names for role in await list_worker_roles(guarded_url)} >= {
        ("stream-a", "stream-b"),
        ("a,b", "it's", 'quo"te', "wor%s"),
    }


@pytest.mark.row(315)
@pytest.mark.parametrize("topics", [[], "payments", [""], ["a\0b"], [None], ["\ud800"], 5])
async def test_lists_of_topics_that_make_no_sense_are_refused(guarded_url: str, topics: Any) -> None:
    with pytest.raises(ConfigError):
        await provision_worker_role(guarded_url, topics, app_id=APP)


def test_names_differ_by_database_namespace_app_and_topics() -> None:
    names = {
        default_role_name(*case)
        for case in (
            ("one", "hotmesh", "shop", ["a"]),
            ("two", "hotmesh", "shop", ["a"]),
            ("one", "hotmesh-shop", "a", ["a"]),
            ("one", "hotmesh", "shop-a", ["a"]),
            ("one", "hotmesh", "shop", ["a", "b"]),
            ("one", "hotmesh", "shop", ["a__b"]),
            ("one", "hotmesh", "shop", ["a-b"]),
        )
    }
    assert len(names) == 7


async def test_other_topics_for_a_named_login_are_refused_unless_asked_for(guarded_url: str) -> None:
    name = f"own {database_of(guarded_url)}"
    await provision(guarded_url, ["a"], role_name=name)

    with pytest.raises(ConfigError, match="replace=True"):
        await provision(guarded_url, ["a", "b"], role_name=name)
    changed = await provision(guarded_url, ["b"], role_name=name, replace=True)

    async with connected(login(guarded_url, changed)) as worker:
        assert await worker.fetchval("select topics from hotmesh.worker_hello()") == ["b"]
        with pytest.raises(
            asyncpg.InsufficientPrivilegeError, match='stream_name "a" not in allowed streams'
        ):
            await worker.fetchval("select hotmesh.worker_next_at('{a}', '{null}', '{\"{}\"}')")


async def test_a_role_that_was_not_made_here_is_left_alone(guarded_url: str) -> None:
    for name in ("", 5, "\ud800"):
        with pytest.raises(ConfigError, match="a role name has 1 to 63 bytes"):
            await provision_worker_role(guarded_url, ["a"], app_id=APP, role_name=name)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="role_name must be a text, not 5"):
        await revoke_worker_role(guarded_url, 5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not made by provisioning"):
        await provision_worker_role(guarded_url, ["a"], app_id=APP, role_name="hotmesh")
    with pytest.raises(ConfigError, match="pg_"):
        await provision_worker_role(guarded_url, ["a"], app_id=APP, role_name="pg_read_all_data")


async def test_unknown_logins_and_missing_tables(any_empty_database_url: str, guarded_url: str) -> None:
    with pytest.raises(WorkerRoleNotFoundError) as raised:
        await revoke_worker_role(guarded_url, "nobody")
    assert raised.value.sqlstate == "42704"
    with pytest.raises(WorkerRoleNotFoundError):
        await rotate_worker_password(guarded_url, "nobody")
    with pytest.raises(SchemaError, match="hotmesh migrate"):
        await provision_worker_role(any_empty_database_url, ["a"], app_id=APP)


async def test_only_who_may_create_roles_and_owns_the_schema_may_provision(guarded_url: str) -> None:
    """Also an owner that is no superuser, from end to end."""
    suffix = database_of(guarded_url)
    async with connected(guarded_url) as owner:
        for name, rights in (("plain", ""), ("creator", "createrole"), ("owner", "createrole")):
            await owner.execute(f"create role {name}_{suffix} login {rights}")
        await owner.execute(f"grant create on database {suffix} to owner_{suffix}")
    try:

        def of(name: str) -> str:
            return guarded_url.replace("://hotmesh@", f"://{name}_{suffix}@")

        with pytest.raises(NotAuthorizedError, match="CREATEROLE"):
            await provision_worker_role(of("plain"), ["w"], app_id=APP)
        with pytest.raises(NotAuthorizedError, match="does not own schema"):
            await provision_worker_role(of("creator"), ["w"], app_id=APP)

        async with HotMesh.init(APP, connection=of("owner"), namespace="own") as mesh:
            await deployed(mesh)
            made = await provision_worker_role(of("owner"), ["w"], app_id=APP, namespace="own")
            worker = HotMesh.init(
                APP, connection=guarded_url, namespace="own", engine=False, worker_credentials=made,
                workers=[Worker("w", double)],
            )  # fmt: skip
            async with worker:
                assert (await mesh.pubsub("one", {"x": 21}, timeout=10)).data == {"y": 42}
                await revoke_worker_role(of("owner"), made.role_name, namespace="own")
            [listed] = await list_worker_roles(of("owner"), namespace="own")
            assert (listed.can_login, listed.sessions) == (False, 0)
    finally:
        async with connected(guarded_url) as owner:
            await owner.execute("drop schema own cascade")
            await owner.execute(f'drop owned by "{made.role_name}"; drop role "{made.role_name}"')
            for name in ("plain", "creator", "owner"):
                await owner.execute(f"drop owned by {name}_{suffix} cascade; drop role {name}_{suffix}")


@pytest.mark.row(309, 313, 314)
async def test_a_worker_with_nothing_but_its_login(guarded_url: str) -> None:
    app_id = "shop-with-hyphens"
    async with HotMesh.init(app_id, connection=guarded_url) as mesh:
        await deployed(mesh, "pay,ments-1")
        made = await provision(guarded_url, ["pay,ments-1"], app_id)
        async with HotMesh.init(
            app_id, connection=login(guarded_url, made), engine=False, workers=[Worker("pay,ments-1", double)]
        ) as worker:
            results = await asyncio.gather(*(mesh.pubsub("one", {"x": x}, timeout=20) for x in range(50)))
            with pytest.raises(EngineRequiredError):
                await worker.pub("one", {"x": 1})
            with pytest.raises(NotAuthorizedError, match=r"this is a worker login, .* the app's own login"):
                await worker.get_state("one", "any")
            with pytest.raises(NotAuthorizedError, match="may not serve other; it may serve pay,ments-1"):
                worker.add_worker(Worker("other", double))
            assert (await mesh.pubsub("one", {"x": 4}, timeout=20)).data == {"y": 8}
        assert [result.data["y"] for result in results] == [x * 2 for x in range(50)]
        async with connected(guarded_url) as owner:
            assert await owed(owner, app_id) == {}


async def test_credentials_replace_the_login_of_the_connection(guarded_url: str) -> None:
    async with HotMesh.init(APP, connection=guarded_url) as mesh:
        await deployed(mesh)
        made = await provision(guarded_url, ["w"])
        given = {"user": made.role_name, "password": made.password}
        async with HotMesh.init(
            APP, connection=guarded_url, engine=False, worker_credentials=given, workers=[Worker("w", double)]
        ):
            assert (await mesh.pubsub("one", {"x": 4}, timeout=10)).data == {"y": 8}


async def test_a_worker_beside_an_engine_has_a_login_of_its_own(guarded_url: str) -> None:
    async with HotMesh.init(APP, connection=guarded_url) as mesh:
        await deployed(mesh)
    made = await provision(guarded_url, ["w"])
    worker = Worker("w", double, worker_credentials={"user": made.role_name, "password": made.password})
    async with HotMesh.init(APP, connection=guarded_url, workers=[worker], settings={"poll": 30}) as mesh:
        [outpost] = mesh.outposts
        assert (await mesh.pubsub("one", {"x": 4}, timeout=10)).data == {"y": 8}
        with pytest.raises(NotAuthorizedError):
            await outpost.get_state("one", "any")
        async with connected(guarded_url) as owner:
            logins = await owner.fetch("select from pg_stat_activity where usename = $1", made.role_name)
        assert logins
        # A worker login is no member; its instance passes on what is meant for the whole of it.
        assert {profile.engine_id for profile in await mesh.roll_call(5)} == {mesh.guid_}
        await mesh.pause(guid=mesh.guid_)
        await eventually(lambda: outpost._member.workers.figures()[0].rate == -1)
        await mesh.throttle(300, topic="w")
        await eventually(lambda: outpost._member.quorum.throttles.stored.topics == {"w": 300})
    beyond = Worker("v", double, worker_credentials=made)
    with pytest.raises(
        NotAuthorizedError, match="worker v: this worker login may not serve v; it may serve w"
    ):
        await HotMesh.init(APP, connection=guarded_url, workers=[beyond])


async def test_workers_with_logins_of_their_own_need_no_other(guarded_url: str) -> None:
    async with HotMesh.init(APP, connection=guarded_url) as mesh:
        await deployed(mesh)
        credentials = [await provision(guarded_url, [topic]) for topic in ("w", "v")]
        workers = [
            Worker(topic, double, worker_credentials=made)
            for topic, made in zip(("w", "v"), credentials, strict=True)
        ]
        nobody = guarded_url.replace("://hotmesh@", "://nobody-here@")
        async with HotMesh.init(APP, connection=nobody, engine=False, workers=workers) as serving:
            assert serving._member.secured
            assert [outpost._member.secured for outpost in serving.outposts] == [True]
            assert (await mesh.pubsub("one", {"x": 4}, timeout=10)).data == {"y": 8}


async def test_what_a_worker_login_cannot_be_used_for_is_said_at_the_start(guarded_url: str) -> None:
    made = await provision(guarded_url, ["w"])
    url = login(guarded_url, made)

    with pytest.raises(ConfigError, match="engine=False"):
        HotMesh.init(APP, connection=guarded_url, worker_credentials=made)
    with pytest.raises(NotAuthorizedError):
        await HotMesh.init(APP, connection=url)
    with pytest.raises(NotAuthorizedError, match="for app shop, not for other"):
        await HotMesh.init("other", connection=url, engine=False)
    with pytest.raises(NotAuthorizedError, match="may not serve v; it may serve w"):
        await HotMesh.init(APP, connection=url, engine=False, workers=[Worker("v", double)])
    with pytest.raises(NotAuthorizedError, match="no worker login"):
        await HotMesh.init(APP, connection=guarded_url, engine=False, secured=True)
    with pytest.raises(ConnectionFailedError):
        await HotMesh.init(APP, connection=url.replace(quote(made.password, safe=""), "wrong"), engine=False)


@pytest.mark.row(312)
async def test_a_failure_of_a_secured_worker_is_tried_again(guarded_url: str) -> None:
    tries: list[int] = []

    async def second_time(message: StreamData) -> dict[str, Any]:
        tries.append(message.metadata.get("try", 0))
        if len(tries) < 2:
            raise ValueError("not yet")
        return {"y": 1}

    worker = Worker("w", second_time, retry={"maximum_attempts": 3, "initial_interval": 0.01})
    async with HotMesh.init(APP, connection=guarded_url) as mesh:
        await deployed(mesh)
        made = await provision(guarded_url, ["w"])
        async with HotMesh.init(APP, connection=login(guarded_url, made), engine=False, workers=[worker]):
            assert (await mesh.pubsub("one", {"x": 1}, timeout=10)).data == {"y": 1}
    assert tries == [0, 1]


@pytest.mark.row(317)
async def test_a_long_callback_runs_once(guarded_url: str) -> None:
    """Longer than its lease, which is renewed meanwhile."""
    calls: list[str] = []

    async def slow(message: StreamData) -> dict[str, Any]:
        calls.append(message.metadata.jid)
        await asyncio.sleep(2.5)
        return {"y": 1}

    async with HotMesh.init(APP, connection=guarded_url) as mesh:
        await deployed(mesh)
        made = await provision(guarded_url, ["w"])
        url = login(guarded_url, made)
        both = [
            HotMesh.init(APP, connection=url, engine=False, lease=1, workers=[Worker("w", slow)])
            for _ in range(2)
        ]
        async with both[0], both[1]:
            assert (await mesh.pubsub("one", {"x": 1}, timeout=20)).data == {"y": 1}
    assert len(calls) == 1


async def test_errors_statuses_and_dead_letters_of_secured_workers(guarded_url: str) -> None:
    async def answers(message: StreamData) -> Any:
        match message.data["x"]:
            case "raise":
                raise ValueError("no \0 such thing ♥")
            case "code":
                return Response({"message": "declined", "error": {"a": None}}, status="error", code=402)
            case "nul":
                return {"y": "a\0b \ufffd ♥"}
            case "other":
                return Response({"y": "other"}, code=201)

    async with HotMesh.init(APP, connection=guarded_url) as mesh:
        await deployed(mesh)
        made = await provision(guarded_url, ["w"])
        url = login(guarded_url, made)
        async with HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", answers)]):
            with pytest.raises(Exception, match="no \0 such thing ♥") as raised:
                await mesh.pubsub("one", {"x": "raise"}, timeout=10)
            assert raised.value.code == 500  # type: ignore[attr-defined]
            with pytest.raises(Exception, match="declined") as raised:
                await mesh.pubsub("one", {"x": "code"}, timeout=10)
            error = {"message": "declined", "code": 402, "error": {"a": None}}
            assert raised.value.error.items() >= error.items()  # type: ignore[attr-defined]
            assert (await mesh.pubsub("one", {"x": "nul"}, timeout=10)).data == {"y": "a\0b \ufffd ♥"}
            assert (await mesh.pubsub("one", {"x": "other"}, timeout=10)).data == {"y": "other"}
        async with connected(guarded_url) as owner:
            job_id = await mesh.pub("one", {"x": "other"})
            await owner.execute("update hotmesh.worker_stream set delivery = 5")
            async with HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", answers)]):
                [letter] = await eventually(mesh.list_dead_letters)
            assert letter.job_id == job_id
            await settled(owner, APP)


async def test_work_by_name_and_what_a_stopping_worker_gives_back(guarded_url: str) -> None:
    async def never(message: StreamData) -> None:
        await asyncio.sleep(60)

    async with HotMesh.init(APP, connection=guarded_url) as mesh:
        await deployed(mesh)
        made = await provision(guarded_url, ["w"])
        url = login(guarded_url, made)
        caller = asyncio.create_task(mesh.pubsub("one", {"x": 5}, timeout=20))
        async with HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", never)]) as first:
            async with connected(guarded_url) as owner:
                holder = await eventually(
                    lambda: owner.fetchval(
                        "select reserved_by from hotmesh.worker_stream where reserved_by is not null"
                    )
                )
                assert holder == f"{made.role_name}/{first.guid_}"
            await first.stop(grace=0)
        named = Worker("w", double, workflow_name="one")
        async with HotMesh.init(APP, connection=url, engine=False, workers=[named]):
            assert (await caller).data == {"y": 10}


class Pending:
    """A worker that answers `pending`; whoever has its messages may add to them."""

    def __init__(self) -> None:
        self.messages: list[StreamData] = []

    async def __call__(self, message: StreamData) -> Response:
        self.messages.append(message)
        return Response({"y": 0}, status="pending")

    async def message(self) -> StreamData:
        found: StreamData = await eventually(lambda: self.messages and self.messages.pop())
        return found


def further(message: StreamData, y: int, guid: str, status: str = "success") -> dict[str, Any]:
    return {"metadata": {**message.metadata, "guid": guid}, "data": {"y": y}, "status": status}


async def answered_pending(owner: asyncpg.Connection, job_id: str) -> None:
    """Wait until an engine has applied the pending answer of a job."""
    state = "select state = 'pending' from hotmesh.activity where generation = $1 and activity_id = 'call'"
    generation = await owner.fetchval("select generation from hotmesh.job where job_id = $1", job_id)
    await eventually(lambda: owner.fetchval(state, generation))


async def passes(owner: asyncpg.Connection, job_id: str) -> int:
    """How many answers the worker's activity has had."""
    count = "select count(*) from hotmesh.activity join hotmesh.job using (generation) where job_id = $1 and activity_id = 'call'"
    return int(await owner.fetchval(count, job_id))


async def kept_of(owner: asyncpg.Connection, job_id: str) -> int:
    """Activities of a job of which it is known which login answered pending."""
    count = "select count(*) from hotmesh.worker_pending where job_id = $1"
    return int(await owner.fetchval(count, job_id))


async def test_who_answered_pending_adds_the_later_answers(guarded_url: str) -> None:
    """Also another process with the same login; and nobody with another one."""
    callback = Pending()
    async with HotMesh.init(APP, connection=guarded_url) as mesh, connected(guarded_url) as owner:
        await deployed(mesh)
        url = login(guarded_url, await provision(guarded_url, ["w"]))
        foreign = login(guarded_url, await provision(guarded_url, ["w", "v"]))
        async with (
            HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", callback)]) as worker,
            HotMesh.init(APP, connection=url, engine=False) as other,
            HotMesh.init(APP, connection=foreign, engine=False) as stranger,
        ):
            job_id = await mesh.pub("one", {"x": 1})
            message = await callback.message()
            await answered_pending(owner, job_id)
            with pytest.raises(JobCompletedError):
                await stranger.add(further(message, 666, "a"))
            for _ in range(2):
                assert await other.add(further(message, 50, "half", "pending")) == "half"
            assert await worker.add(further(message, 100, "last")) == "last"
            await settled(owner, APP)
            with pytest.raises(JobCompletedError):
                await worker.add(further(message, 666, "more"))

            assert (await mesh.get_state("one", job_id)).data == {"y": 100}
            assert await passes(owner, job_id) == 3
            assert await kept_of(owner, job_id) == 0


async def test_an_answer_that_is_added_before_the_pending_one_has_arrived_comes_after_it(
    guarded_url: str,
) -> None:
    """Before it is written, too: the callback has hardly returned."""
    adding: list[asyncio.Task[str]] = []

    async def callback(message: StreamData) -> Response:
        adding.append(asyncio.create_task(worker.add(further(message, 100, message.metadata.guid))))
        await asyncio.sleep(0.1)
        return Response({"y": 0}, status="pending")

    async with HotMesh.init(APP, connection=guarded_url) as mesh, connected(guarded_url) as owner:
        await deployed(mesh)
        url = login(guarded_url, await provision(guarded_url, ["w"]))
        worker = await HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", callback)])
        async with worker:
            job_id = await mesh.pub("one", {"x": 1})
            async with owner.transaction():
                # No engine applies anything meanwhile, and what it is told by notification is over.
                await owner.execute("select from hotmesh.job where job_id = $1 for update", job_id)
                await eventually(lambda: adding and adding[0].done())
                due = "update hotmesh.engine_stream set visible_at = visible_at - interval '1 minute'"
                assert await owner.execute(due) == "UPDATE 2"
            await settled(owner, APP)
            assert (await mesh.get_state("one", job_id)).data == {"y": 100}
            assert await passes(owner, job_id) == 2


async def test_an_owner_adds_to_what_a_secured_worker_has_answered(guarded_url: str) -> None:
    callback = Pending()
    async with HotMesh.init(APP, connection=guarded_url) as mesh, connected(guarded_url) as owner:
        await deployed(mesh)
        url = login(guarded_url, await provision(guarded_url, ["w"]))
        async with HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", callback)]) as worker:
            caller = asyncio.create_task(mesh.pubsub("one", {"x": 1}, timeout=20))
            message = await callback.message()
            await answered_pending(owner, message.metadata.jid)
            await mesh.add(further(message, 50, "half", "pending"))
            await worker.add(further(message, 60, "more", "pending"))
            await mesh.add(further(message, 100, "last"))

            assert (await caller).data == {"y": 100}
            with pytest.raises(JobCompletedError):
                await worker.add(further(message, 666, "after"))
            assert await kept_of(owner, message.metadata.jid) == 0


@pytest.mark.parametrize("end", ["interrupt", "scrub"])
async def test_nothing_is_kept_of_a_pending_answer_once_its_job_is_over(guarded_url: str, end: str) -> None:
    callback = Pending()
    async with HotMesh.init(APP, connection=guarded_url) as mesh, connected(guarded_url) as owner:
        await deployed(mesh)
        url = login(guarded_url, await provision(guarded_url, ["w"]))
        async with HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", callback)]):
            job_id = await mesh.pub("one", {"x": 1})
            await answered_pending(owner, job_id)
            assert await kept_of(owner, job_id) == 1
            await (mesh.interrupt("one", job_id) if end == "interrupt" else mesh.scrub(job_id))
            assert await kept_of(owner, job_id) == 0
            with pytest.raises(JobCompletedError if end == "interrupt" else JobNotFoundError):
                await mesh.add(further(await callback.message(), 1, "late"))


async def test_nothing_is_kept_of_a_pending_answer_that_cannot_be_mapped(guarded_url: str) -> None:
    emit = "emit: {'@pipe': [['{$self.output.data.y}'], ['{@math.add}'], ['{@array.join}']]}"
    async with HotMesh.init(APP, connection=guarded_url) as mesh, connected(guarded_url) as owner:
        await deployed(mesh, activity=emit)
        url = login(guarded_url, await provision(guarded_url, ["w"]))
        async with HotMesh.init(APP, connection=url, engine=False, workers=[Worker("w", Pending())]):
            with pytest.raises(JobError) as raised:
                await mesh.pubsub("one", {"x": 1}, timeout=20)
            assert raised.value.job_id is not None
            assert await kept_of(owner, raised.value.job_id) == 0

"""The options of one instance: what each means, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from hotmesh.core.arguments import (
    RESERVED_APP,
    checked_flag,
    checked_mapping,
    checked_text,
    is_storable,
    unusable_name,
)
from hotmesh.core.codec import Codec
from hotmesh.core.duration import seconds
from hotmesh.core.lengths import LONGEST_APP, LONGEST_MEMBER
from hotmesh.errors import ConfigError, NotAuthorizedError
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.logins.credentials import Credentials, login_of
from hotmesh.postgres.logins.login import WorkerLogin
from hotmesh.runtime import ids
from hotmesh.runtime.registry import check_codec
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry import prometheus
from hotmesh.runtime.telemetry.events import EventSink, publisher
from hotmesh.runtime.telemetry.logs import LogContext, checked_logger, level_number
from hotmesh.runtime.telemetry.tracing import Telemetry, find_telemetry
from hotmesh.runtime.work.worker import Worker, check_task_queue

Migrate = Literal["auto", "verify"]

LONGEST_NAMESPACE: Final = 63

DURATIONS: Final = ("lease", "retention")
NUMBERS: Final = ("max_concurrency", "max_payload")
"""Settings that are options of `HotMesh.init` by themselves; what they mean is said at `Settings`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an instance is to be: the options of `HotMesh.init`, checked and in one form each; `read` makes them.

    `lease`, `retention`, `max_concurrency` and `max_payload` are among the settings.
    """

    app_id: str
    """The app: letters, digits and hyphens."""
    namespace: str = "hotmesh"
    """The Postgres schema of the tables: letters, digits and hyphens, at most 63."""
    connection: ConnectionLike = field(default=None, repr=False)
    """A DSN, a dict of asyncpg options, an asyncpg pool, or a function that connects; None: `HOTMESH_DATABASE_URL`, else
    libpq's variables, else the embedded Postgres. See `docs/connections.md`."""
    direct_connection: ConnectionLike | Literal[False] = field(default=None, repr=False)
    """A way past a pooler that keeps no sessions; None: `connection` keeps them; False: there is no way."""
    task_queue: str | None = None
    """The name by which instances of one process share a connection."""
    guid: str = field(default_factory=ids.guid)
    """Id of this instance, 1 to 512 characters; generated. One that a live instance has is refused."""
    name: str | None = None
    """Its label in `pg_stat_activity` and in logs; None: `hotmesh <app id>`, and none in logs."""
    engine: bool = True
    """Whether it advances jobs; False: workers only."""
    workers: tuple[Worker, ...] = ()
    """What it serves from the beginning; more by `add_worker`."""
    readonly: bool = False
    """Whether its engine only creates and reads jobs, and processes none. (Whether a worker takes none, it says itself.)"""
    pin_versions: bool = True
    """Whether jobs stay on the version they started on; False: they follow the active one."""
    migrate: Migrate = "auto"
    """`verify`: run no DDL, and refuse to start if the tables are not up to date."""
    secured: bool | None = None
    """Whether this is a worker with a worker login; None: that is found out. It goes with `engine=False`."""
    worker_credentials: Credentials | None = field(default=None, repr=False)
    """`user` and `password`, or what `provision_worker_role` returned: replace the login of `connection`. See
    `docs/secured-workers.md`."""
    logger: logging.Logger | None = None
    """Where its records go; None: to the loggers `hotmesh.*`."""
    log_level: int | None = None
    """The least level that is logged, by name or number; None: that of the logger."""
    events: EventSink | None = None
    """A function, or an object with `publish`, that is told of what this process has committed."""
    telemetry: Telemetry | None = None
    """Records spans with OpenTelemetry: `info`, `debug` or False; None: `HMSH_TELEMETRY`, else `info` if the program has
    registered a tracer provider by now."""
    tracer_provider: Any = None
    """The one to record with; None: that of the program."""
    metrics: int | str | None = None
    """The port, or `host:port`, where Prometheus finds the metrics of this process; None: the setting `metrics_port`."""
    codec: Codec | None = None
    """Encodes what is stored; None: that of `register_codec`. See `docs/encryption.md`."""
    settings: Settings = field(default_factory=Settings)
    """How long, how many, how large; a dict of what differs from the defaults. See `docs/settings.md`."""

    @classmethod
    def read(cls, **given: Any) -> Options:
        """The options as somebody has written them, but for the forms that only `compat` knows. Raises ConfigError."""
        shortcuts = {name: given.pop(name, None) for name in (*DURATIONS, *NUMBERS)}
        wanted: Any = cls(**{"guid": None, "settings": None, **given})
        _check_identity(wanted)
        _check_role(wanted)
        settings = Settings.read(checked_mapping(wanted.settings, "settings") | _settings(shortcuts))
        _check_login(wanted)
        if wanted.events is not None:
            publisher(wanted.events)
        check_codec(wanted.codec)
        found: Options = replace(
            wanted,
            guid=wanted.guid or ids.guid(),
            workers=tuple(wanted.workers),
            secured=True if wanted.worker_credentials is not None else wanted.secured,
            logger=None if wanted.logger is None else checked_logger(wanted.logger),
            log_level=None if wanted.log_level is None else level_number(wanted.log_level, "log_level="),
            telemetry=find_telemetry(wanted.app_id, wanted.telemetry, wanted.tracer_provider),
            metrics=wanted.metrics if wanted.metrics is not None else settings.metrics_port or None,
            settings=settings,
        )
        if found.metrics is not None:
            prometheus.address(found.metrics)
        return found

    @property
    def log_context(self) -> LogContext:
        """How the instance logs."""
        return LogContext(self.app_id, self.guid, self.name, self.logger, self.log_level)

    def within(self, login: WorkerLogin) -> Options:
        """Inside of the bounds of a worker login. Raises NotAuthorizedError for what it may not serve."""
        if login.app_id != self.app_id:
            raise NotAuthorizedError(f"this worker login is for app {login.app_id}, not for {self.app_id}")
        check_topics(login, *self.workers)
        settings = replace(
            self.settings,
            lease=max(1.0, min(self.settings.lease, login.longest_lease)),
            longest_callback=min(self.settings.longest_callback, login.longest_hold),
            max_payload=min(self.settings.max_payload, login.max_payload),
        )
        return replace(self, settings=settings)


def check_topics(login: WorkerLogin, *workers: Worker) -> None:
    """Raise NotAuthorizedError for topics that a worker login may not serve: it would get no work of any other, either."""
    beyond = sorted({worker.topic for worker in workers} - login.topics)
    if beyond:
        raise NotAuthorizedError(
            f"this worker login may not serve {', '.join(beyond)}; it may serve {', '.join(sorted(login.topics))}"
        )


def _check_identity(wanted: Any) -> None:
    _check_name("appId", wanted.app_id)
    if wanted.app_id == RESERVED_APP:
        raise ConfigError("config.appId [a] is reserved")
    _check_name("namespace", wanted.namespace)
    if len(wanted.namespace) > LONGEST_NAMESPACE:
        raise ConfigError(
            f"config.namespace [{wanted.namespace}] is invalid: a schema's name has at most {LONGEST_NAMESPACE} characters"
        )
    checked_text(wanted.app_id, "config.appId", LONGEST_APP)
    guid = wanted.guid
    if guid is not None and (not isinstance(guid, str) or not 0 < len(guid) <= 512 or not is_storable(guid)):
        raise ConfigError(f"config.guid is a text of 1 to 512 characters, not {guid!r}")
    if guid is not None:
        checked_text(guid, "config.guid", LONGEST_MEMBER)
    if guid is not None and "/" in guid:  # what worker logins hold bears their name, and a / after it
        raise ConfigError(f"config.guid has no /, unlike {guid!r}")


def _check_name(option: str, value: Any) -> None:
    why = unusable_name("app_id" if option == "appId" else option, value)
    if why is not None:
        raise ConfigError(f"config.{option} [{value}] is invalid: {why}")


def _check_role(wanted: Any) -> None:
    checked_flag(wanted.readonly, "readonly")
    checked_flag(wanted.pin_versions, "pin_versions")
    if not isinstance(wanted.engine, bool):
        raise ConfigError(
            f"engine= takes True, False or a dict of the engine's options, not {wanted.engine!r}"
        )
    if wanted.migrate not in ("auto", "verify"):
        raise ConfigError(f"migrate= must be 'auto' or 'verify', not {wanted.migrate!r}")
    if wanted.secured is not None:
        checked_flag(wanted.secured, "secured")
    check_task_queue(wanted.task_queue)


def _settings(shortcuts: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given as options."""
    return {
        name: seconds(value, name=name) if name in DURATIONS else value
        for name, value in shortcuts.items()
        if value is not None
    }


def _check_login(wanted: Any) -> None:
    if wanted.engine and (wanted.secured or wanted.worker_credentials is not None):
        raise ConfigError(
            "a worker login cannot run an engine: pass engine=False, and run engines with the app's own login"
        )
    if wanted.worker_credentials is not None:
        login_of(wanted.worker_credentials)

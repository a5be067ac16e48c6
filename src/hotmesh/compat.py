"""Other forms in which options may be written, as engines of other languages have them: turned into ours, once.

Where a message of ours has to name what was written (an alias of a setting, a level of a log), or is known only with a
message beside it (a full answer of a callback), the form is known where that is read: `Settings`, `telemetry/logs`,
`postgres/connect/options`, `runtime/messages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from hotmesh.core.arguments import checked_flag, checked_mapping
from hotmesh.errors import ConfigError
from hotmesh.postgres.connect.options import is_readonly
from hotmesh.runtime.work.worker import Worker


def normal_form(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `HotMesh.init` was given, as `Options.read` takes it. Raises ConfigError.

    Workers may be dicts. An engine may be a dict of its options: `connection`, `direct_connection`, `task_queue`, `readonly`,
    and settings. A connection may be marked as `readonly`. `readonly` of the instance is that of its workers, too; that of
    its engine, or of its connection, is not.
    """
    found = dict(given)
    readonly = checked_flag(found["readonly"], "readonly")
    found["workers"] = _workers(found["workers"], readonly=readonly)
    if isinstance(found["engine"], Mapping):
        found |= _from_engine(dict(found["engine"]), found)
    found["readonly"] = found["readonly"] or is_readonly(found["connection"])
    return found


def worker_from(given: Worker | Mapping[str, Any]) -> Worker:
    """A worker, also from a dict of its options. Raises ConfigError."""
    if isinstance(given, Worker):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"workers= takes workers and dicts of their options, not {given!r}")
    known = [option.name for option in fields(Worker)]
    for option in given:
        if option in ("reclaim_delay", "reclaim_count", "lease", "poison_threshold"):
            raise ConfigError(
                f"{option} is no option of a worker: it is that of its instance, settings={{{option!r}: …}}"
            )
        if option not in known:
            raise ConfigError(f"a worker has no option {option!r}; known are {', '.join(known)}")
    if not {"topic", "callback"} <= given.keys():
        raise ConfigError(
            f"worker must include a callback function and topic; it has {', '.join(given) or 'nothing'}"
        )
    return Worker(**given)


def _workers(given: Any, *, readonly: bool) -> list[Worker]:
    if not isinstance(given, Iterable):
        raise ConfigError(f"workers= takes workers and dicts of their options, not {given!r}")
    workers = [worker_from(worker) for worker in given]
    return [replace(worker, readonly=True) for worker in workers] if readonly else workers


def _from_engine(options: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an engine in place of those of its instance; what else there is among them are settings."""
    found = {name: options.pop(name, given[name]) for name in ("connection", "direct_connection")}
    readonly = checked_flag(options.pop("readonly", False), "engine's readonly")
    task_queue = options.pop("task_queue", None)
    return found | {
        "engine": True,
        "readonly": readonly or given["readonly"],
        "task_queue": given["task_queue"] or task_queue,
        "settings": checked_mapping(given["settings"], "settings") | options,
    }

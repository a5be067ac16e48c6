"""Settings of one instance: arguments of `HotMesh.init`, else environment variables, else defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, get_type_hints

from hotmesh.core.duration import seconds
from hotmesh.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations in seconds."""

    lease: float = 30.0
    """How long a reservation of work holds without a sign of life (`HMSH_RESERVATION_TIMEOUT_S`)."""
    longest_callback: float = 1800.0
    """After this a callback is cut off and its answer does not count (`HMSH_RESERVATION_TIMEOUT_MAX_S`)."""
    poison_threshold: int = 5
    """Deliveries without an answer, or failures of a step, after which a message is given up."""
    max_cycles: int = 10_000
    max_concurrency: int = 100
    """Callbacks of one worker that run at once, unless the worker says otherwise; of plain functions, which need a
    thread each, at most 10 of these."""
    max_payload: int = 1_048_576
    """Bytes of JSON that one payload may have."""
    expire: float = 1.0
    """How long a finished job is kept if its graph does not say."""
    pubsub_timeout: float = 1.0
    notify_limit: int = 7_500
    poll: float = 1.0
    """Longest time between two looks for work of other processes, when no notification arrives."""
    grace: float = 10.0
    """How long `stop` waits for running callbacks."""
    cleaning_up: float = 5.0
    """How long a callback that was cut off may take to end; then nobody waits for it."""
    reconnect_max: float = 5.0
    connect_timeout: float = 30.0
    batch: int = 100
    """Steps in one commit."""
    cache_jobs: int = 10_000
    cache_bytes: int = 64 * 1024 * 1024
    duress_interval: int = 10
    """Messages of an engine between two looks at how long they take; 0: it never looks."""
    duress_alpha: float = 0.3
    """Weight of the newest message in the average."""
    duress_healthy: float = 0.2
    """Below this average an engine is healthy; at or above each of the next two it is a level worse."""
    duress_mild: float = 1.0
    duress_moderate: float = 5.0
    duress_broadcast: float = 5.0
    """Least time between two messages to the other engines about it."""
    duress_patience: int = 3
    """Better looks in a row before an engine believes that it is better."""
    metrics_port: int = 0
    """Where Prometheus finds the metrics of this process, on 127.0.0.1; 0: nowhere."""
    retention: float | None = None
    """How long expired jobs and dead letters stay in the tables before an instance of the mesh deletes them; None: they
    are left to `DBA.prune` (`HMSH_RETENTION_S`)."""
    retention_interval: float = 60.0
    """Time between two looks for them, by whichever instance is first (`HMSH_RETENTION_INTERVAL_S`)."""

    @staticmethod
    def variables() -> dict[str, str]:
        """The environment variable of each setting that has one."""
        return {name: variable for name, (variable, _) in VARIABLES.items()}

    @classmethod
    def read(cls, given: Mapping[str, Any] | None, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises ConfigError that names the argument or variable whose value cannot be used."""
        values: dict[str, Any] = {}
        labels: dict[str, str] = {}
        for name, (variable, scale) in VARIABLES.items():
            text = environ.get(variable)
            if text is not None:
                values[name] = _number(text, variable) * scale
                labels[name] = f"environment variable {variable}"
        known = [field.name for field in fields(cls)]
        for option, value in (given or {}).items():
            name = _ALIASES.get(option, option)
            if name != option and given is not None and given.get(name) is not None:
                raise ConfigError(f"{option} and {name} are two names of one setting: give one of them")
            if name == "retry":
                raise ConfigError(
                    "retry is an option of workers: Worker(…, retry=…); an engine tries again by itself"
                )
            if name not in known:
                raise ConfigError(f"there is no setting {name!r}; known are {', '.join(known)}")
            if isinstance(value, str | timedelta) and name in _DURATIONS:
                value = seconds(value, name=option)
            if value is not None:
                values[name] = value
                labels[name] = f"setting {option}"
        for name, value in values.items():
            values[name] = _checked(name, value, labels[name], whole=name not in _FRACTIONS)
        return cls(**values)


VARIABLES = {
    "lease": ("HMSH_RESERVATION_TIMEOUT_S", 1),
    "longest_callback": ("HMSH_RESERVATION_TIMEOUT_MAX_S", 1),
    "poison_threshold": ("HMSH_POISON_MESSAGE_THRESHOLD", 1),
    "max_cycles": ("HMSH_MAX_CYCLES", 1),
    "max_concurrency": ("HMSH_MAX_CONCURRENCY", 1),
    "expire": ("HMSH_EXPIRE_DURATION", 1),
    "pubsub_timeout": ("HMSH_OTT_WAIT_TIME", 0.001),
    "notify_limit": ("HMSH_NOTIFY_PAYLOAD_LIMIT", 1),
    "poll": ("HOTMESH_POSTGRES_FALLBACK_INTERVAL", 0.001),
    "grace": ("HMSH_STOP_GRACE_MS", 0.001),
    "metrics_port": ("HOTMESH_METRICS_PORT", 1),
    "reconnect_max": ("HMSH_RECONNECT_MAX_MS", 0.001),
    "duress_interval": ("HMSH_DURESS_EVAL_INTERVAL", 1),
    "duress_alpha": ("HMSH_DURESS_ALPHA", 1),
    "duress_healthy": ("HMSH_DURESS_HEALTHY_CEILING_MS", 0.001),
    "duress_mild": ("HMSH_DURESS_MILD_CEILING_MS", 0.001),
    "duress_moderate": ("HMSH_DURESS_MODERATE_CEILING_MS", 0.001),
    "duress_broadcast": ("HMSH_DURESS_BROADCAST_INTERVAL_MS", 0.001),
    "duress_patience": ("HMSH_DURESS_HYSTERESIS_COUNT", 1),
    "retention": ("HMSH_RETENTION_S", 1),
    "retention_interval": ("HMSH_RETENTION_INTERVAL_S", 1),
}
"""The environment variable of a setting, and how many seconds (or what there is of it) one of its unit is."""


_MORE_THAN_NONE = frozenset(
    {
        "lease",
        "longest_callback",
        "poison_threshold",
        "max_cycles",
        "max_concurrency",
        "max_payload",
        "poll",
        "batch",
    }
    | {"connect_timeout", "retention_interval"}
)
"""With 0 of these an instance would do nothing, or nothing but look."""

LARGEST_VALUE = 10_000_000_000
"""Of any setting: as seconds three centuries, as bytes more than a row holds."""

_ALIASES = {"reclaim_delay": "lease", "reclaim_count": "poison_threshold"}
"""Names that other engines have for settings."""

_FRACTIONS = frozenset(name for name, kind in get_type_hints(Settings).items() if kind is not int)

_DURATIONS = _FRACTIONS - {"duress_alpha"}


def _checked(name: str, value: Any, label: str, *, whole: bool) -> float:
    """The value of a setting. Raises ConfigError, which says where it was given."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(f"{label} must be a number of at least 0, not {value!r}")
    if value == 0 and name in _MORE_THAN_NONE:
        raise ConfigError(f"{label} must be more than 0")
    if value > LARGEST_VALUE:
        raise ConfigError(f"{label} must be at most {LARGEST_VALUE:,}, not {value!r}")
    if whole and value != int(value):
        raise ConfigError(f"{label} must be a whole number, not {value!r}")
    return int(value) if whole else float(value)


def _number(text: str, variable: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"environment variable {variable} must be a number, not {text!r}") from None

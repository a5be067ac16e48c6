"""The endpoint for Prometheus: one per address and process, shared by the instances that name it.

Needs `prometheus-client` (extra `metrics`), imported only when an endpoint is asked for. It serves from a thread of its
own; what has to be read from Postgres is asked of the event loop of one instance of each app.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import TimeoutError as TooLate
from typing import TYPE_CHECKING, Any, Final, Protocol

from hotmesh.errors import ConfigError, HotMeshError
from hotmesh.runtime.telemetry.metrics import Family, Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

logger = logging.getLogger("hotmesh.metrics")

SCRAPE_TIMEOUT: Final = 3.0
"""Seconds that a scrape waits for the figures of one app's queues; then it does without."""


class MetricsSource(Protocol):
    """What an endpoint asks."""

    app_id: str
    namespace: str

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def database(self) -> Any: ...

    def counted(self) -> list[Family]: ...

    def measured(self) -> list[Family]: ...

    async def queued(self) -> list[Family]: ...


class Endpoint:
    """Counts of instances that have ended stay in the sums, so that counters never go down."""

    def __init__(self, host: str, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ModuleNotFoundError as error:
            raise ConfigError("metrics= needs prometheus-client: pip install 'hotmesh[metrics]'") from error
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(f"metrics= cannot listen on {host}:{port}: {error}") from error
        self.address: str = f"{host}:{self._server.server_port}"
        self._lock = threading.Lock()
        self._instances: list[MetricsSource] = []
        self._ended: dict[tuple[str, str], dict[str, Family]] = {}

    def join(self, instance: MetricsSource) -> None:
        with self._lock:
            self._instances.append(instance)

    def leave(self, instance: MetricsSource) -> bool:
        """The instance ends; whether it was the last one."""
        with self._lock:
            self._instances.remove(instance)
            _merge(self._ended, instance, instance.counted())
            return not self._instances

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def describe(self) -> list[Metric]:
        """Nothing beforehand: what there is to say is found out by each scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus-client, in its thread, at each scrape."""
        with self._lock:
            instances = list(self._instances)
            found = {app: dict(families) for app, families in self._ended.items()}
        asked = set()
        for instance in instances:
            _merge(found, instance, [*instance.counted(), *instance.measured()])
            place = instance.database, instance.namespace, instance.app_id
            if place not in asked:
                asked.add(place)
                _merge(found, instance, _queued(instance))
        yield from _metrics(found)


def _queued(instance: MetricsSource) -> list[Family]:
    try:
        asking = asyncio.run_coroutine_threadsafe(instance.queued(), instance.loop)
    except RuntimeError:  # the loop has been closed meanwhile
        return []
    try:
        return asking.result(SCRAPE_TIMEOUT)
    except TooLate:
        asking.cancel()
        logger.warning("queues not measured in time", extra={"app_id": instance.app_id})
    except HotMeshError as error:
        logger.warning("queues could not be measured", extra={"app_id": instance.app_id, "error": str(error)})
    return []


def _merge(
    found: dict[tuple[str, str], dict[str, Family]], instance: MetricsSource, families: list[Family]
) -> None:
    known = found.setdefault((instance.namespace, instance.app_id), {})
    for family in families:
        known[family.name] = known[family.name].plus(family) if family.name in known else family


def _metrics(found: dict[tuple[str, str], dict[str, Family]]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    made: dict[str, Any] = {}
    for (namespace, app_id), families in found.items():
        for name, family in families.items():
            metric = made.get(name)
            if metric is None:
                labels = ("namespace", "app", *family.labels)
                metric = made[name] = kinds[family.kind](f"hotmesh_{name}", family.help, labels=labels)
            for label, value in family.values.items():
                if isinstance(value, Histogram):
                    metric.add_metric((namespace, app_id, *label), value.cumulative, value.total)
                else:
                    metric.add_metric((namespace, app_id, *label), value)
    yield from made.values()


_endpoints: dict[tuple[str, int], Endpoint] = {}
"""Those of this process: an address belongs to the process, and so its endpoint does."""

_lock = threading.Lock()


def join(where: tuple[str, int], instance: MetricsSource) -> Endpoint:
    """The endpoint of this process at the address, with the instance. Raises ConfigError."""
    with _lock:
        found = _endpoints.get(where)
        if found is None:
            found = _endpoints[where] = Endpoint(*where)
        found.join(instance)
        return found


def leave(endpoint: Endpoint, instance: MetricsSource) -> None:
    """The instance ends; the last one closes the endpoint, once it has answered whoever asks just now."""
    with _lock:
        if not endpoint.leave(instance):
            return
        for where, known in list(_endpoints.items()):
            if known is endpoint:
                del _endpoints[where]
    endpoint.close()


def address(given: int | str) -> tuple[str, int]:
    """Host and port of `9464`, `"9464"` or `"0.0.0.0:9464"`; 127.0.0.1 unless it is said. Raises ConfigError."""
    host, _, port = str(given).rpartition(":")
    if isinstance(given, bool) or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"metrics= takes a port or 'host:port', not {given!r}")
    return host.strip("[]") or "127.0.0.1", int(port)

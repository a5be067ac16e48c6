"""Checks what is to be deployed, and stores it as a version."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from hotmesh.core.definition.manifest import app_to_json, manifest
from hotmesh.postgres import definitions, sql
from hotmesh.runtime.definitions.graph_files import load
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.telemetry.logs import LogContext, logging_as
from hotmesh.runtime.wake import DEFINITIONS

logger = logging.getLogger("hotmesh")

GraphLike = str | Path | Mapping[str, Any]
"""YAML text, a path, or a dict."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A version as it is stored, and its manifest."""

    version: str
    stored: str
    checksum: str
    manifest: dict[str, Any]


class Deployment:
    """Versions of one app on their way to the tables."""

    def __init__(self, surroundings: Surroundings, log_context: LogContext) -> None:
        self._database = surroundings.database
        self._plans = surroundings.plans
        self._events = surroundings.events
        self._log_context = log_context

    async def plan(self, source: GraphLike, base_path: str | Path | None) -> dict[str, Any]:
        """The manifest of a version; nothing is stored. Raises CompileError."""
        return (await self._load(source, base_path)).manifest

    async def deploy(self, source: GraphLike, base_path: str | Path | None) -> dict[str, Any]:
        """Store a version; its manifest. Raises CompileError."""
        read = await self._load(source, base_path)
        await definitions.deploy(self._database, read.version, read.stored, read.checksum, DEFINITIONS)
        await self._plans.refresh()
        if self._events is not None:
            self._events.engine("deployed", version=read.version)
        return read.manifest

    async def _load(self, source: GraphLike, base_path: str | Path | None) -> _Read:
        """All that takes long with a large document is done in a thread: nothing of it holds the event loop."""

        def read() -> _Read:
            loaded = load(source, base_path=base_path, expected_app_id=self._database.app_id)
            for warning in loaded.warnings:
                logger.warning("graph: %s", warning)
            app = loaded.app
            stored = json.dumps(app_to_json(app), separators=(",", ":"), ensure_ascii=False)
            return _Read(app.version, stored, sql.checksum(stored), manifest(app))

        with logging_as(self._log_context):
            return await anyio.to_thread.run_sync(read)

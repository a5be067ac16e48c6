"""The versions of an app as programs with their plans, one per process and version, never older than the database's."""

from __future__ import annotations

import json
from collections.abc import Callable

import anyio

from hotmesh.core.definition.manifest import app_from_json
from hotmesh.core.mapping import compile_expression
from hotmesh.core.plan.compile import HookPlan, Plan, compile_app
from hotmesh.core.state.job import Job
from hotmesh.errors import AppNotFoundError, VersionNotFoundError
from hotmesh.postgres import definitions
from hotmesh.postgres.database import Database
from hotmesh.runtime.definitions.program import GraphProgram, Program


class Plans:
    """What is deployed, as last read. Absence is never cached.

    Every commit names the epoch under which its steps were computed; a commit under an older one is refused, and
    `refresh` then reads what has changed. So no process can run a superseded definition, whoever it missed.
    """

    def __init__(self, database: Database, *, pinned: bool = True) -> None:
        self._database = database
        self._pinned = pinned
        self._rules: dict[str, list[HookPlan]] = {}
        self._lock = anyio.Lock()
        self._programs: dict[str, tuple[str, GraphProgram]] = {}
        """Version → checksum of its definition, and the program."""
        self.make_program: Callable[[Plan], GraphProgram] = GraphProgram
        """Who decides the steps of a version."""
        self.durable: Program | None = None
        """Who decides the steps of durable functions, which belong to no version."""
        self.epoch = -1
        self._active: str | None = None

    async def refresh(self) -> None:
        """Read epoch and active version, and forget versions whose definition was replaced."""
        async with self._lock:
            state = await definitions.app_state(self._database)
            if state is None:
                self.epoch, self._active = -1, None
                self._programs.clear()
                return
            if state[0] != self.epoch:
                self._rules.clear()
                checksums = await definitions.checksums(self._database)
                self._programs = {
                    version: (checksum, program)
                    for version, (checksum, program) in self._programs.items()
                    if checksums.get(version) == checksum
                }
            self.epoch, self._active = state

    # -- programs ----------------------------------------------------------------------------------------

    async def active_program(self) -> GraphProgram:
        """The program that new jobs start on. Raises AppNotFoundError if no version is active."""
        while True:
            version = self._active
            if version is None:
                await self.refresh()
                version = self._active
                if version is None:
                    raise AppNotFoundError(self._database.app_id, await definitions.apps(self._database))
            known = self._programs.get(version)
            if known is not None:
                return known[1]
            program = await self._load(version)
            # Loading waits: by now the epoch may be that of another version.
            if version == self._active:
                return program

    def known_program(self, job: Job) -> Program | None:
        """The program of a job, if this process has it already.

        That of the version it started on; or, if jobs are not pinned, of the active one, as long as that serves the
        job's topic.
        """
        if job.queue is not None:
            return self.durable
        if not self._pinned and self._active is not None:
            active = self._programs.get(self._active)
            if active is None:
                return None
            if active[1].serves(job.topic):
                return active[1]
        found = self._programs.get(job.version)
        return None if found is None else found[1]

    async def program(self, job: Job) -> Program:
        """The program of a job, loaded if need be. Raises VersionNotFoundError."""
        if job.queue is not None:
            return self.of_functions()
        if not self._pinned:
            active = await self.active_program()
            if active.serves(job.topic):
                return active
        return await self._load(job.version)

    def of_functions(self) -> Program:
        """The program of durable functions; every engine has one."""
        if self.durable is None:
            raise AssertionError("a process without an engine advances nothing")
        return self.durable

    # -- plans -------------------------------------------------------------------------------------------

    async def active(self) -> Plan:
        """The plan that new jobs start on. Raises AppNotFoundError if no version is active."""
        return (await self.active_program()).plan

    async def version(self, version: str) -> Plan:
        """The plan of a version, loaded if need be. Raises VersionNotFoundError."""
        return (await self._load(version)).plan

    def known(self, version: str) -> Plan | None:
        """The plan of a version if this process has it already."""
        found = self._programs.get(version)
        return None if found is None else found[1].plan

    async def prepare(self, version: str) -> str:
        """Load and compile a version as it is deployed now; returns the checksum of its definition.

        Raises VersionNotFoundError, and whatever is wrong with a definition that cannot be compiled.
        """
        await self.refresh()
        await self._load(version)
        return self._programs[version][0]

    async def rules(self, topic: str) -> list[HookPlan]:
        """How a signal on the topic computes its key: by the active version, then by others that differ from it.

        Jobs wait under keys of the version they started on. Empty if no deployed version has a rule on the topic.
        """
        plan = await self.active()
        found = list(plan.hooks.get(topic, ())[:1])
        if topic not in self._rules:
            self._rules[topic] = [
                HookPlan(topic, rule["to"], compile_expression(None), compile_expression(rule["actual"]))
                for rule in await definitions.hook_rules(self._database, topic)
            ]
        known = {(rule.to, repr(rule.actual.source)) for rule in found}
        return found + [
            rule for rule in self._rules[topic] if (rule.to, repr(rule.actual.source)) not in known
        ]

    async def _load(self, version: str) -> GraphProgram:
        async with self._lock:
            known = self._programs.get(version)
            if known is not None:
                return known[1]
            stored = await definitions.graph(self._database, version)
            if stored is None:
                there = await definitions.checksums(self._database)
                raise VersionNotFoundError(self._database.app_id, version, there)
            text, checksum = stored
            program = self.make_program(compile_app(app_from_json(json.loads(text))))
            self._programs[version] = (checksum, program)
            return program

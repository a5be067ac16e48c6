"""Postgres and the engine in miniature, for tests of the pure step: what commits, what is loaded, what is still to come.

`World` keeps what `commit_steps` writes, as JSON, and nothing else: a job that is `forgotten` is read back from its row
and the records that `load_records` finds, restricted to what the plan says that a step needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from textwrap import dedent, indent
from typing import Any

from msgspec.structs import replace

from hotmesh.core.advance.activities.signal import make_signal
from hotmesh.core.advance.advance import advance, start
from hotmesh.core.advance.limits import DEFAULT_LIMITS, Limits
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import Plan, compile_app
from hotmesh.core.state.job import (
    ActivityRecord,
    Dimension,
    Event,
    Job,
    MessageReceipt,
    StartRequest,
    TimerReceipt,
    WorkReceipt,
)
from hotmesh.core.state.step import Message, Notice, Signal, Step, Timer, Wait, Work
from hotmesh.core.values import UNDEFINED
from hotmesh.core.wire import dumps, loads
from hotmesh.runtime.definitions.graph_files import load

NOW = datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=UTC)

Place = tuple[str, str, Dimension]
"""Generation, activity, address."""


def plan_of(text: str) -> Plan:
    """The plan of a graph document; a document that is not checked clean fails the test."""
    return compile_app(load(text).app)


def one_graph(*graphs: str) -> Plan:
    """The plan of an app of these graphs; the first one subscribes to the topic `go`."""
    first, *others = map(dedent, graphs)
    items = ["subscribes: go\n" + first.lstrip("\n"), *(other.lstrip("\n") for other in others)]
    listed = "".join(indent("- " + indent(item, "  ").lstrip(), "    ") for item in items)
    return plan_of(f"app:\n  id: model\n  version: '1'\n  graphs:\n{listed}")


@dataclass
class World:
    """All jobs of an app, and what is on its way to them."""

    plan: Plan
    limits: Limits = DEFAULT_LIMITS
    in_memory: bool = True
    """Whether jobs stay in memory between their steps, with all their records."""
    now: datetime = NOW
    jobs: dict[str, Job] = field(default_factory=dict)
    """By generation, without records."""
    records: dict[Place, bytes] = field(default_factory=dict)
    work: dict[Place, Work] = field(default_factory=dict)
    begun: dict[Place, datetime] = field(default_factory=dict)
    messages: dict[tuple[str, str], Message] = field(default_factory=dict)
    timers: dict[Place, Timer] = field(default_factory=dict)
    waits: dict[Place, Wait] = field(default_factory=dict)
    early: dict[tuple[str, str], Signal] = field(default_factory=dict)
    search: dict[str, dict[str, Any]] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    cells: dict[str, Job] = field(default_factory=dict)
    numbers: int = 0

    # -- what a caller does ------------------------------------------------------------------------------

    def start(self, data: Any = None, topic: str = "go", **request: Any) -> str:
        """Create a job; its generation."""
        self.numbers += 1
        generation = f"00000000-0000-7000-8000-{self.numbers:012x}"
        given = {
            "topic": topic,
            "data": data,
            "generation": generation,
            "default_id": f"J{self.numbers}",
            **request,
        }
        self._commit_start(StartRequest(**given))
        return generation

    def _commit_start(self, request: StartRequest) -> None:
        ids = self._ids()
        step = start(self.plan, request, self.now, ENVIRONMENT, taken=ids, limits=self.limits)
        self.commit(step)

    def happen(self, generation: str, *events: Event) -> Step:
        """Advance a job by some events, in one step, and commit it."""
        job = self.job_for(generation, events)
        step = advance(
            self.plan,
            job,
            events,
            self.now,
            ENVIRONMENT,
            taken=self._ids() - {job.job_id},
            limits=self.limits,
        )
        self.commit(step)
        return step

    def answer(
        self, activity: str, data: Any = None, *, status: str = "success", code: int | None = None,
        dimension: Dimension | None = None,
    ) -> Step:  # fmt: skip
        """Answer the work that waits for an activity's worker."""
        place = next(p for p in sorted(self.work) if p[1] == activity and dimension in (None, p[2]))
        return self.happen(place[0], self.answer_event(place, data, status=status, code=code))

    def answer_event(
        self, place: Place, data: Any = None, *, status: str = "success", code: int | None = None
    ) -> Event:
        default = {"success": 200, "pending": 202, "error": 500}[status]
        answer = {} if data is None else data
        return Event(
            "answer", place[1], place[2], status, default if code is None else code, answer,
            receipt=WorkReceipt(place[1], place[2]), started_at=self.begun.get(place),
        )  # fmt: skip

    def add(
        self, generation: str, activity: str, dimension: Dimension, data: Any, *, guid: str, status: str = "success",
        code: int = 200,
    ) -> Step:  # fmt: skip
        """A further answer, as `HotMesh.add` sends it."""
        message = Message("enter", self.jobs[generation].job_id, guid, generation)
        self.messages[generation, guid] = message
        event = Event(
            "added", activity, dimension, status, code, data, message_id=guid, receipt=MessageReceipt(guid)
        )
        return self.happen(generation, event)

    def fire(self, activity: str) -> Step:
        """The timer of a hook is due."""
        place = next(p for p in sorted(self.timers) if p[1] == activity)
        return self.happen(place[0], self.timer_event(place))

    def timer_event(self, place: Place) -> Event:
        data = {"timestamp": int(self.now.timestamp() * 1000)}
        receipt = TimerReceipt(place[1], place[2])
        return Event("timer", place[1], place[2], data=data, receipt=receipt, started_at=self.now)

    def signal(self, topic: str, data: Any, status: str = "success", code: int = 200) -> bool:
        """Send a signal from outside and handle it; whether somebody waited."""
        signal = make_signal(self.plan, topic, data, status, code, ENVIRONMENT)
        met = self._hand_over(signal)
        self.settle()
        return met

    def send_signal(self, topic: str, data: Any) -> bool:
        """Send a signal from outside; what it causes is a message."""
        return self._hand_over(make_signal(self.plan, topic, data, "success", 200, ENVIRONMENT))

    def interrupt(self, generation: str, **options: Any) -> Step:
        return self.happen(generation, Event("interrupt", data=options))

    # -- what an engine does -----------------------------------------------------------------------------

    def settle(self) -> None:
        """Handle the messages for engines until there are none."""
        while self.messages:
            self.handle(next(iter(self.messages)))

    def handle(self, key: tuple[str, str]) -> None:
        """Handle one message."""
        generation, event = self.message_event(key)
        self.happen(generation, event)

    def message_event(self, key: tuple[str, str]) -> tuple[str, Event]:
        message = self.messages[key]
        event = Event(
            message.kind, message.activity_id, message.dimension, message.status, message.code, message.data,
            message.message_id if message.kind == "result" else "", MessageReceipt(message.message_id),
        )  # fmt: skip
        return key[0], event

    def forget(self) -> None:
        """The process dies: everything in memory is lost."""
        self.cells.clear()

    def job_for(self, generation: str, events: Iterable[Event]) -> Job:
        """The job from memory if it is there, else as it is loaded for these events."""
        cell = self.cells.get(generation)
        if cell is not None and all(map(cell.covers, events)):
            return cell
        return self.load(generation, events)

    def load(self, generation: str, events: Iterable[Event]) -> Job:
        job = self.jobs[generation]
        found: dict[str, dict[Dimension, ActivityRecord]] = {}
        for event in events:
            activity = self.plan.activities.get(event.activity_id)
            for need in () if activity is None else activity.needs:
                for address, record in self._find(generation, need, event.dimension).items():
                    found.setdefault(need, {})[address] = record
        stored = None if job.open is None else loads(dumps(job.open))
        covered = frozenset((event.activity_id, event.dimension) for event in events)
        return replace(job, data=loads(dumps(job.data)), open=stored, records=found, covered=covered)

    def _find(self, generation: str, activity: str, dimension: Dimension) -> dict[Dimension, ActivityRecord]:
        """As `load_records` does."""
        addresses = sorted(place[2] for place in self.records if place[:2] == (generation, activity))
        wanted = addresses[-1:]
        for depth in range(1, len(dimension) + 1):
            below = [address for address in addresses if address[:depth] == dimension[:depth]]
            wanted += [address for address in below if address == dimension[:depth]] + below[-1:]
        below = [a for a in addresses if a > dimension and a[: len(dimension)] == dimension]
        wanted += below[-100:]
        return {address: decode(self.records[generation, activity, address]) for address in wanted}

    def commit(self, step: Step) -> None:
        """Write a step as `commit_steps` does."""
        self.steps.append(step)
        for change in step.jobs:
            job, stored = change.job, self.jobs.get(change.job.generation)
            assert change.created == (stored is None)
            assert job.seq == change.expected_seq + 1
            assert stored is None or stored.seq == change.expected_seq, "the job is at another version"
            assert stored is None or stored.status > 0 or stored.status == -1 or not change.ended, (
                "a job ends once"
            )
            data = job.data if change.created or change.data_changed or stored is None else stored.data
            self.jobs[job.generation] = replace(
                job, records={}, covered=frozenset(), data=loads(dumps(data)), input=loads(dumps(job.input))
            )
            if change.search:
                self.search.setdefault(job.generation, {}).update(change.search)
        for item in step.consumed:
            match item.receipt:
                case WorkReceipt(activity_id, dimension):
                    self.work.pop((item.generation, activity_id, dimension))
                case TimerReceipt(activity_id, dimension):
                    self.timers.pop((item.generation, activity_id, dimension))
                case MessageReceipt(message_id):
                    self.messages.pop((item.generation, message_id))
        for place in step.released:
            key = (place.generation, place.activity_id, place.dimension)
            tables: tuple[dict[Place, Any], ...] = (self.timers, self.waits, self.work)
            for table in tables:
                table.pop(key, None)
        for record in step.records:
            self.records[record.generation, record.activity_id, record.dimension] = encode(record.record)
        for work in step.work:
            self._insert(self.work, (work.generation, work.activity_id, work.dimension), work)
            self.begun[work.generation, work.activity_id, work.dimension] = self.now
        for message in step.messages:
            self._send(message)
        for timer in step.timers:
            self._insert(self.timers, (timer.generation, timer.activity_id, timer.dimension), timer)
        for wait in step.waits:
            self._insert(self.waits, (wait.generation, wait.activity_id, wait.dimension), wait)
            early = self.early.pop((wait.topic, wait.key), None)
            if early is not None:
                self._hand_over(early)
        for signal in step.signals:
            self._hand_over(signal)
        for change in step.jobs:
            if change.dropped:
                self._drop(change.job.generation, descend=change.descend)
            if self.in_memory and change.job.live:
                self.cells[change.job.generation] = change.job
            else:
                self.cells.pop(change.job.generation, None)
        self.notices += step.notices
        self.check()

    def _insert(self, table: dict[Place, Any], key: Place, row: Any) -> None:
        assert key not in table, f"{key} exists"
        table[key] = row

    def _send(self, message: Message) -> None:
        for generation, job in self.jobs.items():
            if job.job_id == message.job_id and job.status > 0 and message.generation in (None, generation):
                self.messages.setdefault((generation, message.message_id), message)

    def _drop(self, generation: str, *, descend: bool) -> None:
        tables: tuple[dict[Any, Any], ...] = (self.work, self.timers, self.waits, self.messages)
        for table in tables:
            for key in [key for key in table if key[0] == generation]:
                del table[key]
        if descend:
            for job in list(self.jobs.values()):
                parent = job.parent
                if (
                    parent is not None
                    and parent.generation == generation
                    and not parent.severed
                    and job.status > 0
                ):
                    self._send(
                        Message("interrupt", job.job_id, f"interrupt:{generation}", data={"descend": True})
                    )

    def _hand_over(self, signal: Signal) -> bool:
        for key, wait in self.waits.items():
            if (wait.topic, wait.key) == (signal.topic, signal.key):
                if signal.status != "pending":
                    del self.waits[key]
                self.numbers += 1
                job = self.jobs[key[0]]
                message = Message(
                    "signal", job.job_id, f"signal:{self.numbers}", key[0], key[1], key[2], signal.status,
                    signal.code, signal.data,
                )  # fmt: skip
                self.messages[key[0], message.message_id] = message
                return True
        if signal.keep is not None:
            self.early[signal.topic, signal.key] = signal
        return False

    # -- what must always hold ---------------------------------------------------------------------------

    def check(self) -> None:
        """No job waits for nothing, and what is open is counted."""
        for generation, job in self.jobs.items():
            if job.status <= 0:
                rows = [*self.work, *self.messages, *self.timers, *self.waits]
                left = [key for key in rows if key[0] == generation and key not in self.messages]
                assert not left, f"{job.job_id} has ended, and {left} is left of it"
            else:
                assert self._owed(generation), f"{job.job_id} has status {job.status} and waits for nothing"
            if job.open is not None and job.status > 0:
                from hotmesh.core.advance.join_state import JoinState

                assert JoinState(job.open).size() == job.status

    def _owed(self, generation: str) -> bool:
        """Whether something will come for a job."""
        tables: tuple[dict[Any, Any], ...] = (self.work, self.messages, self.timers, self.waits)
        if any(key[0] == generation for table in tables for key in table):
            return True
        for child in self.jobs.values():
            parent = child.parent
            if (
                parent is not None
                and parent.generation == generation
                and not parent.severed
                and child.status > 0
            ):
                return True
        records = (record for key, record in self.records.items() if key[0] == generation)
        return any(decode(record).state == "pending" for record in records)

    # -- looking -----------------------------------------------------------------------------------------

    def status(self, generation: str) -> int:
        return self.jobs[generation].status

    def data(self, generation: str) -> dict[str, Any]:
        return self.jobs[generation].data

    def error(self, generation: str) -> Any:
        return self.jobs[generation].error

    def passes(self, generation: str, activity: str) -> dict[Dimension, ActivityRecord]:
        """The records of an activity, by address."""
        return {
            place[2]: decode(record)
            for place, record in sorted(self.records.items())
            if place[:2] == (generation, activity)
        }

    def told(self, generation: str) -> list[Notice]:
        """What the caller of a job was told."""
        return [notice for notice in self.notices if notice.metadata["gid"] == generation]

    def _ids(self) -> frozenset[str]:
        return frozenset(job.job_id for job in self.jobs.values())


def encode(record: ActivityRecord) -> bytes:
    """A record as the database keeps it."""
    return dumps(
        [
            record.state,
            None if record.output is UNDEFINED else [record.output],
            None if record.hook is UNDEFINED else [record.hook],
            record.error, record.code, record.type, list(record.seen),
        ]
    )  # fmt: skip


def decode(text: bytes) -> ActivityRecord:
    state, output, hook, error, code, type_, seen = loads(text)
    return ActivityRecord(
        state, output[0] if output else UNDEFINED, hook[0] if hook else UNDEFINED, error, code, type_, NOW, NOW,
        tuple(seen),
    )  # fmt: skip


def environment(now: Callable[[], float] | None = None) -> Environment:
    return Environment(now=now or (lambda: NOW.timestamp() * 1000), random=lambda: 0.5, tz=UTC)


ENVIRONMENT = environment()


def later(world: World, seconds: float) -> None:
    world.now += timedelta(seconds=seconds)

"""Writes steps: one call of `commit_steps` for any number of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from hotmesh.core.codec import CLEAR, Payload
from hotmesh.core.state.job import Dimension, MessageReceipt, TimerReceipt, WorkReceipt
from hotmesh.core.state.step import JobChange, Step
from hotmesh.core.values import UNDEFINED
from hotmesh.core.wire import dumps_text

Text = str | None

_WIDTHS: Final = {
    "create": 14, "update": 10, "record": 14, "work": 10, "instance": 5, "message": 3, "send": 11, "timer": 6,
    "wait": 7, "signal": 7, "drop": 4,
}  # fmt: skip
"""Array parameters of each section of commit_steps, in its order."""

_PARAMETERS: Final = ", ".join(f"${number}" for number in range(1, 5 + sum(_WIDTHS.values()) + 4 + 1))

COMMIT: Final = f"select * from mesh.commit_steps({_PARAMETERS})"  # noqa: S608 - only numbers are put in


_CONCEALED: Final = {"ends": ("payload",), "broadcasts": ("query", "data")}
"""Members of the extras that are user values."""

INVENTED_ID: Final = 23
"""Length of a job id that nobody chose: `H` and 22 characters."""

RECORD_BYTES: Final = 500
"""What a record without data takes in memory, roughly."""


NOBODY: Final[Mapping[str, Collection[str]]] = {}


class Committed(Struct, frozen=True):
    """What became of a batch. `refused` maps the number of a step to (reason, taken id)."""

    refused: dict[int, tuple[str, str]]
    epoch: int | None
    woken: bool
    listeners: Mapping[str, Collection[str]]
    """Topic (or topic and job id: `topic.id`) → the members elsewhere that want what is announced there."""
    committed_at: datetime | None
    held: frozenset[int] = frozenset()
    """Of the rows that were to be reserved (`Batch.reserve`), the positions of those that now are."""
    escalations: dict[str, list[dict[str, Any]]] = {}
    """Work items that were written, by job, if the caller asked for them."""


class Batch:
    """The arguments of one call. `local` says whether a step's work is reserved for this process at once.

    `reply_channel`: where the engine of this process hears of answers by others. `payload`: how values are encoded.
    """

    def __init__(self, reply_channel: str | None = None, payload: Payload = CLEAR) -> None:
        self._reply_channel = reply_channel
        self._payload = payload
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _WIDTHS}
        self._extras: dict[str, list[dict[str, Any]]] = {}
        self._published: set[str] = set()
        self.sizes: dict[str, int] = {}
        """Bytes of input and data of each job, by generation."""
        self.record_sizes: dict[str, int] = {}
        """Bytes of the records of each job, likewise, with what the objects take in memory."""

    def add(
        self, number: int, step: Step, *, local: Sequence[bool], send_delay: Callable[[str | None], float]
    ) -> None:
        """Put a step into the batch. `send_delay` answers, by generation, how long others must leave a message."""
        rows = self._rows
        dumps = self._payload.dumps
        for change in step.jobs:
            if change.created:
                rows["create"].append(self._created(number, change))
            else:
                rows["update"].append(self._changed(number, change))
            if change.dropped:
                rows["drop"].append((number, change.job.generation, change.descend, change.job.job_id))
        sizes = self.record_sizes
        for item in step.records:
            record = item.record
            output = None if record.output is UNDEFINED else dumps(record.output)
            hook = None if record.hook is UNDEFINED else dumps(record.hook)
            size = RECORD_BYTES + len(output or "") + len(hook or "")
            sizes[item.generation] = sizes.get(item.generation, 0) + size
            rows["record"].append(
                (
                    number,
                    item.generation,
                    item.activity_id,
                    array(item.dimension),
                    record.type,
                    record.state,
                    record.code,
                    output,
                    hook,
                    None if record.error is None else dumps(record.error),
                    text_array(record.seen) if record.seen else None,
                    record.started_at,
                    record.ended_at,
                    record.attempt,
                )
            )
        for index, work in enumerate(step.work):
            extra = None
            if work.retry is not None or work.retry_policy is not None or work.trace_id is not None:
                extra = dumps_text(
                    {
                        "retry": work.retry,
                        "retry_policy": work.retry_policy,
                        "trace_id": work.trace_id,
                        "span_id": work.span_id,
                    }
                )
            rows["work"].append(
                (
                    number,
                    work.job_id,
                    work.generation,
                    work.activity_id,
                    array(work.dimension),
                    work.topic,
                    dumps(work.data),
                    work.workflow_name,
                    local[index],
                    extra,
                )
            )
        for consumed in step.consumed:
            match consumed.receipt:
                case WorkReceipt(activity_id, dimension):
                    rows["instance"].append(
                        (number, "answered", consumed.generation, activity_id, array(dimension))
                    )
                case MessageReceipt(message_id):
                    rows["message"].append((number, consumed.generation, message_id))
                case TimerReceipt(activity_id, dimension):
                    rows["instance"].append(
                        (number, "timer", consumed.generation, activity_id, array(dimension))
                    )
        for message in step.messages:
            rows["send"].append(
                (
                    number,
                    message.job_id,
                    message.generation,
                    message.message_id,
                    message.kind,
                    message.activity_id,
                    array(message.dimension),
                    message.status,
                    message.code,
                    dumps(message.data),
                    send_delay(message.generation),
                )
            )
        for timer in step.timers:
            rows["timer"].append(
                (
                    number,
                    timer.job_id,
                    timer.generation,
                    timer.activity_id,
                    array(timer.dimension),
                    timer.delay,
                )
            )
        for wait in step.waits:
            rows["wait"].append(
                (
                    number,
                    wait.job_id,
                    wait.generation,
                    wait.activity_id,
                    array(wait.dimension),
                    wait.topic,
                    wait.key,
                )
            )
        for place in step.released:
            rows["instance"].append(
                (number, "release", place.generation, place.activity_id, array(place.dimension))
            )
        for signal in step.signals:
            rows["signal"].append(
                (
                    number,
                    signal.topic,
                    signal.key,
                    dumps(signal.data),
                    signal.status,
                    signal.code,
                    signal.keep,
                )
            )
        if step.escalations or step.escalation_ends or step.measures or step.broadcasts:
            self._add_extras(number, step)
        for change in step.jobs:
            if change.search is not None and not change.created:
                job = change.job
                found = {
                    "step": number,
                    "job_id": job.job_id,
                    "generation": job.generation,
                    "search": change.search,
                }
                self._extras.setdefault("searches", []).append(found)
            if change.started:
                self._extras.setdefault("starts", []).append(_start(number, change, self._payload))
        for notice in step.notices:
            if notice.topic is not None:
                self._published.add(notice.topic)
                self._published.add(f"{notice.topic}.{notice.job_id}")

    def reserve(self, generation: str, activity_id: str, dimension: Dimension) -> None:
        """Also reserve a row of the worker stream, if nobody has."""
        self._rows["instance"].append((-1, "reserve", generation, activity_id, array(dimension)))

    def arguments(
        self,
        app_id: str,
        member: str,
        epoch: int,
        token: int,
        lease: float,
        wake: str | None,
    ) -> list[Any]:
        """The arguments of `COMMIT`, in order."""
        found: list[Any] = [app_id, member, epoch, token, lease]
        for name, rows in self._rows.items():
            if rows:
                # A column that nobody uses goes as null, not as an array of nulls: the driver looks at each element.
                count = len(rows)
                found += [
                    None if column[0] is None and column.count(None) == count else column
                    for column in zip(*rows, strict=True)
                ]
            else:
                found += (None,) * _WIDTHS[name]
        found += (
            dumps_text(self._extras) if self._extras else None,
            wake,
            list(self._published) or None,
            self._reply_channel,
        )
        return found

    def _add_extras(self, number: int, step: Step) -> None:
        """What few steps have goes as JSON: an array of objects by kind."""
        kinds: dict[str, Sequence[Struct]] = {
            "escalations": step.escalations,
            "ends": step.escalation_ends,
            "measures": step.measures,
            "broadcasts": step.broadcasts,
        }
        for kind, items in kinds.items():
            for item in items:
                plain = msgspec.structs.asdict(item)
                if "dimension" in plain:
                    plain["dimension"] = array(plain["dimension"])
                for name in _CONCEALED.get(kind, ()):
                    plain[name] = self._payload.conceal(plain[name])
                if "envelope" in plain.get("fields", ()):
                    plain["fields"] = {
                        **plain["fields"],
                        "envelope": self._payload.conceal(plain["fields"]["envelope"]),
                    }
                self._extras.setdefault(kind, []).append({"step": number, **plain})

    def _created(self, number: int, change: JobChange) -> tuple[Any, ...]:
        job = change.job
        payload = self._payload.dumps(job.input)
        data = self._payload.dumps(job.data) if job.data else None
        self.sizes[job.generation] = len(payload) + len(data or "")
        return (
            number,
            job.job_id,
            job.generation,
            job.version,
            job.topic,
            job.status,
            payload,
            data,
            None if job.error is None else self._payload.dumps(job.error),
            change.ended,
            job.expire,
            job.created_at,
            _extra(change),
            None if len(job.job_id) == INVENTED_ID and job.job_id[0] == "H" else True,
        )

    def _changed(self, number: int, change: JobChange) -> tuple[Any, ...]:
        job = change.job
        data = self._payload.dumps(job.data) if change.data_changed else None
        self.sizes[job.generation] = len(data or "")
        return (
            number,
            job.job_id,
            job.generation,
            change.expected_seq,
            job.status,
            data,
            None if job.error is None else self._payload.dumps(job.error),
            None if job.open is None else dumps_text(job.open),
            change.ended,
            job.expire,
        )


def _extra(change: JobChange) -> Text:
    """The columns that few jobs have, as one JSON object."""
    job = change.job
    payload = job.input if isinstance(job.input, dict) else {}
    found: dict[str, Any] = {
        "job_key": job.key,
        "entity": job.entity,
        "open": job.open,
        "reply_to": job.reply_to,
        "trace_id": job.trace_id,
        "span_id": job.span_id,
        "search": change.search,
        "origin_id": _text(payload.get("originJobId")),
        "parent_id": _text(payload.get("parentWorkflowId")),
    }
    if job.parent is not None:
        found["parent_job_id"] = job.parent.job_id
        found["parent_generation"] = job.parent.generation
        found["parent_activity"] = job.parent.activity_id
        found["parent_dimension"] = array(job.parent.dimension)
        found["severed"] = job.parent.severed
    given = {name: value for name, value in found.items() if value is not None}
    return dumps_text(given) if given else None


def _start(number: int, change: JobChange, payload: Payload) -> dict[str, Any]:
    """What is settled when a job that was there before is started."""
    job = change.job
    given = job.input if isinstance(job.input, dict) else {}
    return {
        "step": number,
        # From SQL it may have come in clear.
        "input": None if payload.codec is None else payload.conceal(job.input),
        "job_id": job.job_id,
        "generation": job.generation,
        "version": job.version,
        "job_key": job.key,
        "entity": job.entity,
        "origin_id": _text(given.get("originJobId")),
        "parent_id": _text(given.get("parentWorkflowId")),
    }


def _text(value: Any) -> Text:
    return value if isinstance(value, str) and "\0" not in value else None


def array(dimension: Dimension) -> str:
    """An address as the text of an integer[]: arrays of arrays cannot be unnested by row."""
    return "{" + ",".join(map(str, dimension)) + "}"


def text_array(values: Sequence[str]) -> str:
    """Texts as the text of a text[]."""
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"

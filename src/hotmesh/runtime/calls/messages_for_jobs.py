"""Sends what happens to jobs from outside: signals, further answers, interrupts, the end of a pending start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

import anyio

from hotmesh.core.advance.activities.signal import key_by, lifetime
from hotmesh.core.arguments import checked_mapping, checked_text, is_generation
from hotmesh.core.lengths import LONGEST_ID
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import HookPlan
from hotmesh.core.state.job import dimension_of
from hotmesh.core.values import Json
from hotmesh.core.wire import normalise
from hotmesh.enums import STATUS_CODES
from hotmesh.errors import (
    ConfigError,
    JobCompletedError,
    JobNotFoundError,
    MappingError,
    SignalNotDeliveredError,
    SignalNotFoundError,
)
from hotmesh.observe.fate import completed, not_found
from hotmesh.observe.observer import Observer
from hotmesh.postgres import loading
from hotmesh.postgres.calls import MessageCall, SignalCall
from hotmesh.postgres.logins.work import LoginWork
from hotmesh.postgres.work import WorkQueue
from hotmesh.runtime import ids
from hotmesh.runtime.calls.outbox import Outbox
from hotmesh.runtime.definitions.plans import Plans
from hotmesh.runtime.messages import checked_code, checked_status
from hotmesh.runtime.settings import Settings

SignalOutcome = Literal["delivered", "kept", "dropped"]
"""What became of a signal: a job that waited has it, it is kept for one to come, or nobody will ever have it."""


class JobMessages:
    """Messages for jobs. They go out by the `outbox`; those of a worker login by what it may call."""

    def __init__(
        self,
        work: WorkQueue,
        plans: Plans,
        environment: Environment,
        settings: Settings,
        outbox: Outbox,
    ) -> None:
        self._work = work
        self._database = work.database
        self._plans = plans
        self._environment = environment
        self._max_payload = settings.max_payload
        self._outbox = outbox

    async def signal(
        self, topic: str, data: Any, status: str, code: int, *, pending: bool, required: bool = False
    ) -> SignalOutcome:
        """Send a signal under each key that its topic's rules find in the data; what became of it.

        `pending`: it may come before anybody waits; `required`: it may not. Raises ConfigError, PayloadError,
        MappingError, SignalNotFoundError, SignalNotDeliveredError.
        """
        payload = normalise(data, limit=self._max_payload, what=f"data for signal {topic}")
        status, code = checked_status(status), checked_code(code)
        rules = await self._plans.rules(topic)
        if not rules:
            raise SignalNotFoundError(topic, self._database.app_id, (await self._plans.active()).hooks)
        keys = _keys(rules, payload, self._environment)
        kept = pending and not required
        keep = lifetime(topic, payload) if kept else None
        text = self._database.payload.dumps(payload)
        outcome = await self._outbox.send(SignalCall(topic, keys, payload, text, status, code, keep))
        if required and outcome != "delivered":
            raise SignalNotDeliveredError(topic, keys)
        return cast("SignalOutcome", outcome)

    async def add(self, message: Mapping[str, Any]) -> str:
        """Add an answer to one with status pending; its guid.

        Raises ConfigError, PayloadError, JobNotFoundError, JobCompletedError.
        """
        message = checked_mapping(message, "message")
        metadata = _checked_metadata(message)
        status = checked_status(message.get("status", "success"))
        guid = checked_text(
            str(metadata.get("guid") or ids.guid()), "metadata.guid of an added message", LONGEST_ID
        )
        code = checked_code(message.get("code", STATUS_CODES[status]))
        data = normalise(
            message.get("data", {}), limit=self._max_payload, what=f"an answer for {metadata['aid']}"
        )
        if not is_generation(metadata["gid"]):
            raise await self._not_found(metadata["jid"])
        match await self._try_to_add(metadata, guid, status, code, data):
            case "missing":
                raise await self._not_found(metadata["jid"])
            case "closed":
                raise JobCompletedError(
                    metadata["jid"],
                    fate=f"activity {metadata['aid']} at {metadata['dad']} takes no more answers",
                )
            case "held":
                raise ConfigError(
                    f"activity {metadata['aid']} of job {metadata['jid']} has not been answered yet: its worker answers "
                    "with status pending first, and adds what follows then"
                )
        return guid

    async def _try_to_add(
        self, metadata: Mapping[str, Any], guid: str, status: str, code: int, data: Json
    ) -> str:
        """What came of it; "held" if the pending answer before it has not come for `UNANSWERED_RETRY` seconds."""
        job_id, generation, activity_id = metadata["jid"], metadata["gid"], metadata["aid"]
        dimension, text = dimension_of(metadata["dad"]), self._database.payload.dumps(data)
        work = self._work
        if not isinstance(work, LoginWork):
            return await self._outbox.send(
                MessageCall(
                    "added",
                    job_id,
                    f"{LATER}{guid}",
                    data,
                    text,
                    generation,
                    activity_id,
                    dimension,
                    status,
                    code,
                )
            )
        arguments = (job_id, generation, activity_id, dimension, guid, status, code, text)
        outcome = await work.add_answer(*arguments)
        with anyio.move_on_after(UNANSWERED_RETRY):
            # The callback has returned, or is about to; what it answered is still on its way.
            while outcome == "held":
                await anyio.sleep(0.02)
                outcome = await work.add_answer(*arguments)
        return outcome

    async def interrupt(
        self, job_id: str, options: dict[str, Any], *, suppress: bool, generation: str | None = None
    ) -> str | None:
        """Stop a job, and wait until an engine has carried it out; None if there is nothing to stop and `suppress`.

        Of several at the same time one succeeds: the others find its message, or the job ended.
        """
        options = normalise(options, limit=self._max_payload, what=f"the interrupt of job {job_id}")
        text = self._database.payload.dumps(options)
        outcome = await self._outbox.send(
            MessageCall("interrupt", job_id, "interrupt", options, text, generation)
        )
        if outcome == "missing":
            if suppress:
                return None
            raise await self._not_found(job_id)
        status: int | None = 0
        if outcome != "closed":
            status = await self._until_ended(job_id, generation)
        # 0: it has come to its own end. Its row may be gone already, if it was to be kept for no time.
        if status == 0 or (outcome == "duplicate" and (status is None or status < 0)):
            if suppress:
                return None
            raise await completed(Observer(self._database), self._database.app_id, job_id)
        return ids.guid()

    async def _until_ended(self, job_id: str, generation: str | None) -> int | None:
        """Wait until an engine has carried out the interrupt; the job's status then, None if it is gone."""
        delay = 0.005
        status: int | None = None
        with anyio.move_on_after(30):
            while True:
                status = await loading.load_status(self._database, job_id, generation)
                if status is None or status <= 0:
                    return status
                await anyio.sleep(delay)
                delay = min(delay * 2, 0.2)
        return status

    async def resume(self, job_id: str) -> None:
        """Start a job that was created in pending mode."""
        outcome = await self._outbox.send(MessageCall("resume", job_id, f"resume:{job_id}", {}, "{}"))
        if outcome == "missing":
            raise await self._not_found(job_id)

    async def _not_found(self, job_id: str) -> JobNotFoundError:
        return await not_found(Observer(self._database), self._database.app_id, job_id)


_ADDRESS: Final = re.compile(r"(,\d{1,9})*\Z", re.ASCII)
"""As `dad`: numbers that a column holds."""

LATER: Final = "later:"
"""How the message with an added answer is named. Of two that are due at once it comes after the first, `answer:…`."""

UNANSWERED_RETRY: Final = 5.0
"""Seconds for which an answer that is added waits for the pending one before it, which its worker has still to give."""


def _checked_metadata(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata of an added message, which say what it is an answer to. Raises ConfigError."""
    metadata = checked_mapping(message.get("metadata"), "metadata of an added message")
    names = ("jid", "gid", "dad", "aid")
    missing = [name for name in names if not metadata.get(name)]
    if missing:
        raise ConfigError(f"metadata of an added message lacks {', '.join(missing)}")
    for name in names:
        checked_text(metadata[name], f"metadata.{name} of an added message")
    if not _ADDRESS.match(metadata["dad"]):
        raise ConfigError(
            f"metadata.dad of an added message is an address such as ',0,0', not {metadata['dad']!r}"
        )
    return metadata


def _keys(rules: Sequence[HookPlan], payload: Any, environment: Environment) -> list[str]:
    """The keys a payload has by these rules, each once; raises the MappingError of the first if it has none."""
    found: dict[str, None] = {}
    failure: MappingError | None = None
    for rule in rules:
        try:
            found[key_by(rule, payload, environment)] = None
        except MappingError as error:
            failure = failure or error
    if not found and failure is not None:
        raise failure
    return list(found)

"""What callers say about a job to be started or stopped, checked and as the core wants it; and what they get for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hotmesh.core.arguments import checked_flag, checked_mapping, checked_text, is_storable
from hotmesh.core.column import has_nul
from hotmesh.core.duration import LONGEST_TIME, Duration, seconds
from hotmesh.core.lengths import LONGEST_NAME
from hotmesh.core.state.job import StartRequest
from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_text, normalise
from hotmesh.errors import ConfigError, JobError
from hotmesh.runtime import ids
from hotmesh.runtime.messages import checked_code
from hotmesh.runtime.results.output import JobOutput


def start_request(
    topic: str,
    data: Any,
    context: Mapping[str, Any] | None,
    extended: Mapping[str, Any] | None,
    *,
    reply_to: str | None,
    max_payload: int,
) -> StartRequest:
    """A request for a new job. Raises ConfigError, PayloadError."""
    payload = {} if data is None else normalise(data, limit=max_payload, what=f"data for {topic}")
    trace = checked_mapping(checked_mapping(context, "context").get("metadata"), "context.metadata")
    more = checked_mapping(extended, "extended")
    unknown = more.keys() - {"id", "entity", "search", "marker", "pending"}
    if unknown:
        raise ConfigError(
            f"extended has no key {min(unknown)!r}; known are id, entity, search, marker, pending"
        )
    pending = more.get("pending")
    generation, default_id = ids.of_a_job()
    return StartRequest(
        topic=checked_text(topic, "topic"),
        data=payload,
        generation=generation,
        default_id=default_id,
        job_id=_job_id(more.get("id")),
        reply_to=reply_to,
        trace_id=_trace(trace, "trc"),
        span_id=_trace(trace, "spn"),
        entity=_entity(more.get("entity")),
        search=_search(more, max_payload),
        pending=None if pending is None else min(seconds(pending, name="pending"), LONGEST_TIME),
    )


def interrupt_options(
    reason: str | None,
    expire: Duration | None,
    code: int,
    stack: str | None,
    *,
    throw: bool,
    descend: bool,
) -> dict[str, Any]:
    """What is to be said with an interrupt. Raises ConfigError."""
    options: dict[str, Any] = {"code": checked_code(code)}
    options |= {"throw": checked_flag(throw, "throw"), "descend": checked_flag(descend, "descend")}
    for name, text in (("reason", reason), ("stack", stack)):
        if text is not None and not isinstance(text, str):
            raise ConfigError(f"{name} must be a text, not {text!r}")
        if text is not None:
            options[name] = text
    if expire is not None:
        options["expire"] = seconds(expire, name="expire")
    return options


def answer(output: JobOutput) -> JobOutput:
    """What a caller gets who waits for the job. Raises JobError if it has ended with an error."""
    error = output.metadata.get("err")
    if error is not None:
        raise JobError(json.loads(error), output.metadata.get("jid"))
    return output


def _job_id(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not is_storable(value):
        raise ConfigError(f"a job id is a text of 1 to 512 characters, not {value!r}")
    return value


def _entity(value: Any) -> Any:
    return checked_text(value, "extended.entity", LONGEST_NAME) if isinstance(value, str) else value


def _search(extended: Mapping[str, Any], limit: int) -> dict[str, Any] | None:
    search = checked_mapping(extended.get("search"), "extended.search")
    marker = checked_mapping(extended.get("marker"), "extended.marker")
    found = {f"_{key}": value for key, value in search.items()}
    found |= {key: value for key, value in marker.items() if key.startswith("-")}
    if not found:
        return None
    fields: dict[str, Any] = normalise(found, limit=limit, what="extended search fields and markers")
    for name, value in fields.items():
        if name.startswith("_"):
            fields[name] = _as_text(value)
        if has_nul([name, value]):
            raise ConfigError(
                f"search field or marker {name[1:]!r} has a NUL character, which Postgres cannot query"
            )
    return fields


def _trace(context: Mapping[str, Any], name: str) -> str | None:
    value = context.get(name)
    if value is not None and (not isinstance(value, str) or not is_storable(value)):
        raise ConfigError(f"context.metadata.{name} is a text without NUL characters, not {value!r}")
    return value


def _as_text(value: Json) -> str | None:
    """A search field, as `start_job` in SQL makes it of the same JSON."""
    return value if value is None or isinstance(value, str) else dumps_text(value)

"""Why a job does not move: what each of its open branches waits for, since when, and what would unblock it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from hotmesh.core.codec import CONCEALED, Payload
from hotmesh.core.plan.compile import Plan
from hotmesh.core.wire import loads
from hotmesh.errors import CodecError, VersionNotFoundError
from hotmesh.observe.apps import PlanOf
from hotmesh.observe.explain.branches import Branches
from hotmesh.observe.explain.model import Buried, Explanation
from hotmesh.observe.explain.notes import notes
from hotmesh.observe.explain.reasons import Reasons, Serves
from hotmesh.observe.explain.situation import OpenRecord, ServedTopic, Situation, StoredRate
from hotmesh.observe.fate import not_found
from hotmesh.observe.obligations import Obligation, error_text
from hotmesh.observe.observer import Observer

CHILDREN: Final = 20
"""Awaited jobs that an explanation looks into."""

MOST_OF_A_KIND: Final = 200
"""Rows of one kind that a situation holds; a job may have any number."""

_KINDS: Final[dict[str, Any]] = {
    "obligations": list[Obligation],
    "topics": list[ServedTopic],
    "records": list[OpenRecord],
    "dead_letters": list[Buried],
    "rates": list[StoredRate],
}
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()}


def _serves_nothing(_topic: str, _workflow_name: str) -> bool:
    return False


async def explain(
    observer: Observer, app_id: str, job_id: str, plan_of: PlanOf, serves: Serves = _serves_nothing
) -> Explanation:
    """What a job waits for, and what the jobs that it awaits wait for. Raises JobNotFoundError.

    `serves` says what workers this process has.
    """
    found = (await read_situations(observer, app_id, [job_id])).get(job_id)
    if found is None:
        raise await not_found(observer, app_id, job_id)
    awaited = [one.name for one in found.obligations if one.kind == "child"][:CHILDREN]
    children = await read_situations(observer, app_id, awaited) if awaited else {}
    plans = {
        version: await _known_plan(plan_of, version)
        for version in {found.version, *(child.version for child in children.values())}
    }
    explained = {
        name: explanation(app_id, child, plans[child.version], serves, {}) for name, child in children.items()
    }
    return explanation(app_id, found, plans[found.version], serves, explained)


def explanation(
    app_id: str,
    situation: Situation,
    plan: Plan | None,
    serves: Serves,
    children: Mapping[str, Explanation],
) -> Explanation:
    """What a situation means. `plan`: None if the version is not deployed; `children`: what is known of awaited jobs."""
    graph = None if plan is None else plan.graphs.get(situation.topic)
    branches = Branches(situation, graph, Reasons(situation, serves, children))
    running = situation.state == "running"
    if running:
        branches.find()
        branches.held()
    elif situation.state == "pending":
        branches.pending()
    return Explanation(
        app_id=app_id,
        job_id=situation.job_id,
        topic=situation.topic,
        version=situation.version,
        state=situation.state,
        status=situation.status,
        error=situation.error,
        created_at=situation.created_at,
        updated_at=situation.updated_at,
        ended_at=situation.ended_at,
        queue=situation.queue,
        now=situation.now,
        branches=branches.all(),
        dead_letters=tuple(situation.dead_letters),
        notes=tuple(notes(situation, deployed=plan is not None)),
        unaccounted=branches.unaccounted() if running else 0,
        omitted=situation.omitted if running else 0,
    )


async def read_situations(observer: Observer, app_id: str, job_ids: Collection[str]) -> dict[str, Situation]:
    """By id, the situations of those jobs that exist."""
    rows = await observer.rows("explain_jobs", app_id, list(job_ids), MOST_OF_A_KIND)
    return {row["job_id"]: _situation(row, observer.payload) for row in rows}


def _situation(row: Any, payload: Payload) -> Situation:
    values = dict(row)
    for name, decoder in _DECODERS.items():
        values[name] = [] if values[name] is None else decoder.decode(values[name])
    values["obligations"] = [
        one if one.error is None else replace(one, error=error_text(one.error, payload))
        for one in values["obligations"]
    ]
    for name in ("error", "open"):
        values[name] = None if values[name] is None else loads(values[name])
    try:
        error = payload.reveal(values["error"])
    except CodecError:
        error = CONCEALED
    values["error"] = {"message": CONCEALED, "code": None} if error == CONCEALED else error
    return Situation(**values)


async def _known_plan(plan_of: PlanOf, version: str) -> Plan | None:
    try:
        return await plan_of(version)
    except VersionNotFoundError:
        return None

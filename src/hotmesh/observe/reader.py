"""What can be read of the jobs of one app, in one place: for `HotMesh`, and for whoever has an app's plans at hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hotmesh.core.arguments import checked_text
from hotmesh.core.mapping import Environment
from hotmesh.observe import jobs
from hotmesh.observe.apps import PlanOf
from hotmesh.observe.dead_letters import DeadLetter, list_dead_letters
from hotmesh.observe.explain.explain import explain
from hotmesh.observe.explain.model import Explanation
from hotmesh.observe.explain.reasons import Serves
from hotmesh.observe.export import export
from hotmesh.observe.observer import Observer


class JobReader:
    """Reads the jobs of one app. `serves` says what workers this process has."""

    def __init__(
        self, observer: Observer, app_id: str, plan_of: PlanOf, environment: Environment, serves: Serves
    ) -> None:
        self._observer = observer
        self._app_id = app_id
        self._plan_of = plan_of
        self._environment = environment
        self._serves = serves

    async def get_raw(self, job_id: str) -> dict[str, Any]:
        """All stored fields of a job as one flat dict. Raises JobNotFoundError."""
        return await jobs.raw_job(self._observer, self._app_id, job_id)

    async def get_query_state(self, job_id: str, fields: Sequence[str]) -> dict[str, str | None]:
        """Search fields as text, by name; None for those that the job does not have."""
        return await jobs.search_fields(self._observer, self._app_id, job_id, fields)

    async def export(
        self,
        job_id: str,
        *,
        enrich_inputs: bool = False,
        allow: Collection[str] | None = None,
        block: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """A job as one nested document. Raises JobNotFoundError."""
        return await export(
            self._observer,
            self._app_id,
            job_id,
            self._plan_of,
            self._environment,
            enrich_inputs=enrich_inputs,
            allow=allow,
            block=block,
        )

    async def explain(self, job_id: str) -> Explanation:
        """What a job waits for. Raises JobNotFoundError."""
        return await explain(self._observer, self._app_id, job_id, self._plan_of, self._serves)

    async def list_dead_letters(
        self, topic: str | None = None, job_id: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """The newest dead letters first."""
        for name, value in (("topic", topic), ("job_id", job_id)):
            if value is not None:
                checked_text(value, name)
        return await list_dead_letters(self._observer, self._app_id, topic, job_id, limit)

"""One module per activity type: what it does when it is entered. Answers are alike for all; see `outcomes.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hotmesh.core.advance.activities import await_, cycle, hook, interrupt, signal, worker
from hotmesh.core.advance.builder import StepBuilder
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.plan.compile import ActivityPlan
from hotmesh.core.state.job import Dimension

ENTER: Final[Mapping[str, Callable[[StepBuilder, JobDraft, ActivityPlan, Dimension], None]]] = {
    "await": await_.enter,
    "cycle": cycle.enter,
    "hook": hook.enter,
    "interrupt": interrupt.enter,
    "signal": signal.enter,
    "worker": worker.enter,
}
"""Activity type → its first leg."""

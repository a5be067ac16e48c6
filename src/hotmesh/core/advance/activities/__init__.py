"""One module per activity type: what it does when it is entered. Answers are alike for all; see `outcomes.py`.

worker        sends work to a topic and waits for the answer
await_        starts another graph and waits for its result
hook          waits for a signal or a timer, or passes
escalation    the work item that a hook adds to its wait
signal        sends a signal and goes on
cycle         begins an ancestor again
interrupt     stops its own job, or another one
"""

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

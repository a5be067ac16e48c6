"""What workflow code uses: `from hotmesh.durable import workflow`.

`defn`, `run` and `signal` decorate, see `decorators`; the rest is called in workflows, see `calls`, `waits`, `cancellation`.
"""

from __future__ import annotations

from hotmesh.durable.activities import execute_activity, proxy_activities, start_activity
from hotmesh.durable.calls import (
    in_workflow,
    info,
    is_replaying,
    local_activity,
    logger,
    now,
    random,
    random_generator,
    step,
    uuid4,
)
from hotmesh.durable.cancellation import (
    CancellationScope,
    CancelledFailure,
    cancellation_scope,
    is_cancellation,
    is_cancelled,
)
from hotmesh.durable.decorators import workflow_defn as defn
from hotmesh.durable.decorators import workflow_run as run
from hotmesh.durable.escalations import Escalation
from hotmesh.durable.patches import deprecate_patch, patched, version
from hotmesh.durable.strands import WorkflowInfo
from hotmesh.durable.waits import (
    SignalResult,
    condition,
    recv,
    set_signal_handler,
    signal,
    signal_workflow,
    sleep,
    sleep_until,
    wait_condition,
    wait_for_signal,
    wait_signal,
)
from hotmesh.durable_errors import ApplicationError

__all__ = [
    "ApplicationError",
    "CancellationScope",
    "CancelledFailure",
    "Escalation",
    "SignalResult",
    "WorkflowInfo",
    "cancellation_scope",
    "condition",
    "defn",
    "deprecate_patch",
    "execute_activity",
    "in_workflow",
    "info",
    "is_cancellation",
    "is_cancelled",
    "is_replaying",
    "local_activity",
    "logger",
    "now",
    "patched",
    "proxy_activities",
    "random",
    "random_generator",
    "recv",
    "run",
    "set_signal_handler",
    "signal",
    "signal_workflow",
    "sleep",
    "sleep_until",
    "start_activity",
    "step",
    "uuid4",
    "version",
    "wait_condition",
    "wait_for_signal",
    "wait_signal",
]

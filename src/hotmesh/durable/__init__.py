"""Durable functions: plain async Python that survives every crash.

    from hotmesh.durable import Client, RetryPolicy, Worker, activity, errors, workflow

What stands in here, in reading order:

`worker`       `Worker`, which hosts workflows; `client`, `handle`: `Client`, which starts and finds them, and what it returns
`meshes`       the instances of `HotMesh` behind both
`strands`      executions of workflow functions, and their steps; `calls`: what workflow code calls; `context`: of a step
`workflow`     what workflow code uses
`activity`     what the code of activities and steps uses
`decorators`   `@workflow.defn`, `@workflow.run`, `@activity.defn`, `@activity.step`
`definition`   what a decorated function or class is: name, parameters, options, how its values are stored
`clocks`       clocks and random numbers in the code of a workflow, refused when it is decorated
`options`      what a workflow, a start, an activity or a step may be given
`typed`        the types by which checkers see through a call to the function that it names
`signature`    the parameters of a function, and its arguments as a payload
`convert`      Python values to payloads and back, by annotations; `kinds` and `faults` say what cannot be, and where

The errors are `hotmesh.durable_errors`; how they are stored is `hotmesh.core.durable.failure`.
"""

from hotmesh import durable_errors as errors
from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.durable import activity, workflow
from hotmesh.durable.client import Client
from hotmesh.durable.convert import Converter, Custom
from hotmesh.durable.handle import WorkflowDescription, WorkflowHandle, WorkflowStatus
from hotmesh.durable.worker import Worker

__all__ = [
    "Client",
    "Converter",
    "Custom",
    "RetryPolicy",
    "Worker",
    "WorkflowDescription",
    "WorkflowHandle",
    "WorkflowStatus",
    "activity",
    "errors",
    "workflow",
]

"""Durable functions: plain async Python that survives every crash. Nothing runs them yet: there is no worker and no client.

    from hotmesh.durable import RetryPolicy, activity, errors, workflow

What stands in here, in reading order:

`workflow`     what workflow code uses
`activity`     what the code of activities and steps uses
`decorators`   `@workflow.defn`, `@workflow.run`, `@activity.defn`, `@activity.step`
`definition`   what a decorated function or class is: name, parameters, options, how its values are stored
`options`      what a workflow, a start, an activity or a step may be given
`typed`        the types by which checkers see through a call to the function that it names
`signature`    the parameters of a function, and its arguments as a payload
`convert`      Python values to payloads and back, by annotations; `kinds` and `faults` say what cannot be, and where

The errors are `hotmesh.durable_errors`; how they are stored is `hotmesh.core.durable.failure`.
"""

from hotmesh import durable_errors as errors
from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.durable import activity, workflow
from hotmesh.durable.convert import Converter, Custom

__all__ = ["Converter", "Custom", "RetryPolicy", "activity", "errors", "workflow"]

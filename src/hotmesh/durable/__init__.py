"""Durable functions: plain async Python that survives every crash.

In reading order:

`definition`   what a decorated function or class is: name, parameters, options, how its values are stored
`signature`    the parameters of a function, and its arguments as a payload
`convert`      Python values to payloads and back, by annotations
`options`      what a start, an activity or a step may be given
`decorators`   `@workflow.defn`, `@workflow.run`, `@activity.defn`, `@activity.step`
"""

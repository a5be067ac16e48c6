"""What can be seen of a process from outside: figures, spans, events, log records.

In reading order:

    metrics      what an instance counts
    prometheus   shows that to Prometheus, on request
    tracing      whether spans are recorded, and what records them
    spans        records them by OpenTelemetry, an optional package
    events       tells a sink of the user's what has committed
    logs         which instance a log record is about, and JSON lines
"""

"""What can be seen of a process: metrics, spans, events, log records."""

"""The vocabulary of deciding and remembering: jobs, records, events, steps."""

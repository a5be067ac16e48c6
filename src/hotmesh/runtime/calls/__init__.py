"""What callers ask of an app: starting jobs, messages for them, statistics."""

"""Waits. The long-lived services of one process: engine, workers, listener, upkeep."""

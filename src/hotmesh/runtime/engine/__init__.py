"""Advances jobs: the group commit, the jobs in memory, the engine stream."""

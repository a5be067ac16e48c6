"""Graphs as the engine runs them: compiled once per version."""

"""Connections: where they come from, how they are kept, shared and replaced."""

"""Graphs as the engine runs them: compiled once per version.

compile    an app to a `Plan`: every expression a closure, every name looked up
reach      who can follow whom, and how far their addresses must agree
"""

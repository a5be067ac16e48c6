"""Graphs as their authors write them: from YAML to checked, frozen definitions."""

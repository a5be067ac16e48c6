"""`Virtual`: functions that other processes call, and schedules, without writing a graph.

Each call and each schedule is a job of one app, which is deployed by itself; see `docs/virtual.md`.
"""

from hotmesh.virtual.context import VirtualContext
from hotmesh.virtual.virtual import Virtual

__all__ = ["Virtual", "VirtualContext"]

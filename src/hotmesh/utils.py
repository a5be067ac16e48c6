"""Functions that hotmesh itself uses, for programs that want to mean the same by an id, a duration, a schedule."""

from hotmesh.core.duration import seconds
from hotmesh.runtime.ids import guid
from hotmesh.virtual.schedule import is_cron

__all__ = ["guid", "is_cron", "seconds"]

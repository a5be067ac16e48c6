"""Functions that hotmesh itself uses, for programs that want to mean the same by an id, a duration, a schedule."""

from hotmesh.core.duration import seconds
from hotmesh.core.schedule import is_cron
from hotmesh.runtime.ids import guid

__all__ = ["guid", "is_cron", "seconds"]

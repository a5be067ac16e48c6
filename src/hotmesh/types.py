"""The types of what hotmesh takes and gives, for annotations."""

from hotmesh.core.codec import Codec
from hotmesh.core.duration import Duration
from hotmesh.core.graph import RetryPolicy
from hotmesh.core.values import Json
from hotmesh.errors import Problem
from hotmesh.postgres.options import ConnectionLike, Factory
from hotmesh.postgres.reading import DeadLetter
from hotmesh.postgres.roles import Credentials, WorkerCredential, WorkerRole
from hotmesh.postgres.sharing import ConnectionStatistics
from hotmesh.runtime.announce import JobMetadata, JobOutput
from hotmesh.runtime.callback import Response, StreamData, StreamMetadata
from hotmesh.runtime.dba import PruneResult
from hotmesh.runtime.events import EventSink, SystemEvent
from hotmesh.runtime.explain import Branch, Explanation, Reason
from hotmesh.runtime.mesh import Migrate
from hotmesh.runtime.profile import QuorumProfile
from hotmesh.runtime.quorum import QuorumSubscriber
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.subscribers import Subscriber
from hotmesh.runtime.throttle import Scope
from hotmesh.runtime.tracing import TelemetryOption
from hotmesh.runtime.worker import Callback, Worker
from hotmesh.virtual.context import VirtualContext

__all__ = [
    "Branch",
    "Callback",
    "Codec",
    "ConnectionLike",
    "ConnectionStatistics",
    "Credentials",
    "DeadLetter",
    "Duration",
    "EventSink",
    "Explanation",
    "Factory",
    "JobMetadata",
    "JobOutput",
    "Json",
    "Migrate",
    "Problem",
    "PruneResult",
    "QuorumProfile",
    "QuorumSubscriber",
    "Reason",
    "Response",
    "RetryPolicy",
    "Scope",
    "Settings",
    "StreamData",
    "StreamMetadata",
    "Subscriber",
    "SystemEvent",
    "TelemetryOption",
    "VirtualContext",
    "Worker",
    "WorkerCredential",
    "WorkerRole",
]

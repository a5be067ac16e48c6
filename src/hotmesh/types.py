"""The types of what hotmesh takes and gives, for annotations."""

from hotmesh.core.codec import Codec
from hotmesh.core.duration import Duration
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.values import Json
from hotmesh.errors import Problem
from hotmesh.observe.dead_letters import DeadLetter
from hotmesh.observe.explain.model import Branch, Explanation, Reason
from hotmesh.postgres.connect.options import ConnectionLike, Factory
from hotmesh.postgres.connect.sharing import ConnectionStatistics
from hotmesh.postgres.logins.credentials import Credentials, WorkerCredential, WorkerRole
from hotmesh.runtime.members.bus import QuorumSubscriber
from hotmesh.runtime.members.messages import Scope
from hotmesh.runtime.members.profile import QuorumProfile
from hotmesh.runtime.messages import Response, StreamData, StreamMetadata
from hotmesh.runtime.options import Migrate, Options
from hotmesh.runtime.results.output import JobMetadata, JobOutput
from hotmesh.runtime.results.subscribers import Subscriber
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.events import EventSink, SystemEvent
from hotmesh.runtime.telemetry.tracing import TelemetryOption
from hotmesh.runtime.upkeep.dba import PruneResult
from hotmesh.runtime.work.worker import Callback, Worker
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
    "Options",
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

"""hotmesh: durable workflows that live inside Postgres."""

from hotmesh.core.codec import Codec
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import (
    ActivationError,
    AppNotFoundError,
    CallbackError,
    CodecError,
    CompileError,
    ConfigError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    DeadLetterNotFoundError,
    DuplicateJobError,
    EngineRequiredError,
    GetStateError,
    HotMeshError,
    InactiveJobError,
    InstanceFailedError,
    JobCompletedError,
    JobError,
    JobNotFoundError,
    JobTimeoutError,
    LeaseExpiredError,
    MappingError,
    MessageTooLargeError,
    NoConnectionError,
    NotAuthorizedError,
    PayloadError,
    Problem,
    SchemaError,
    SignalNotDeliveredError,
    SignalNotFoundError,
    TopicNotFoundError,
    VersionNotFoundError,
    WorkerRoleNotFoundError,
)
from hotmesh.evaluate import evaluate, evaluate_condition
from hotmesh.mesh import HotMesh
from hotmesh.observe.dead_letters import DeadLetter
from hotmesh.observe.explain.model import Explanation
from hotmesh.postgres.connect.native import PostgresConnection, connect_client
from hotmesh.postgres.logins.credentials import WorkerCredential, WorkerRole
from hotmesh.postgres.logins.roles import (
    list_worker_roles,
    provision_worker_role,
    revoke_worker_role,
    rotate_worker_password,
)
from hotmesh.runtime.aes import AesGcmCodec
from hotmesh.runtime.disconnect import disconnect_all
from hotmesh.runtime.members.profile import QuorumProfile
from hotmesh.runtime.messages import Response, StreamData
from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.telemetry.events import SystemEvent
from hotmesh.runtime.telemetry.logs import JsonFormatter, log_json
from hotmesh.runtime.upkeep.dba import DBA, PruneResult
from hotmesh.runtime.work.worker import Worker
from hotmesh.version import __version__
from hotmesh.virtual import Virtual, VirtualContext

__all__ = [
    "DBA",
    "UNDEFINED",
    "ActivationError",
    "AesGcmCodec",
    "AppNotFoundError",
    "CallbackError",
    "Codec",
    "CodecError",
    "CompileError",
    "ConfigError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "DatabaseError",
    "DeadLetter",
    "DeadLetterNotFoundError",
    "DuplicateJobError",
    "EngineRequiredError",
    "Explanation",
    "GetStateError",
    "HotMesh",
    "HotMeshError",
    "InactiveJobError",
    "InstanceFailedError",
    "JobCompletedError",
    "JobError",
    "JobNotFoundError",
    "JobOutput",
    "JobTimeoutError",
    "JsonFormatter",
    "LeaseExpiredError",
    "MappingError",
    "MessageTooLargeError",
    "NoConnectionError",
    "NotAuthorizedError",
    "PayloadError",
    "PostgresConnection",
    "Problem",
    "PruneResult",
    "QuorumProfile",
    "Response",
    "RetryPolicy",
    "SchemaError",
    "SignalNotDeliveredError",
    "SignalNotFoundError",
    "StreamData",
    "SystemEvent",
    "TopicNotFoundError",
    "VersionNotFoundError",
    "Virtual",
    "VirtualContext",
    "Worker",
    "WorkerCredential",
    "WorkerRole",
    "WorkerRoleNotFoundError",
    "__version__",
    "connect_client",
    "disconnect_all",
    "evaluate",
    "evaluate_condition",
    "list_worker_roles",
    "log_json",
    "provision_worker_role",
    "revoke_worker_role",
    "rotate_worker_password",
]

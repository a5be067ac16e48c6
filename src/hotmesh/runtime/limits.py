"""Bounds of what one member is made of; nobody has to set any of them, and `HotMesh.init` takes none."""

from __future__ import annotations

from dataclasses import dataclass, field

from hotmesh.runtime.durable.tenure import TenureLimits
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.frontier import FrontierLimits
from hotmesh.runtime.loop_watch import LoopLimits
from hotmesh.runtime.members.activation import ActivationLimits
from hotmesh.runtime.members.listener import ListenerLimits
from hotmesh.runtime.results.subscribers import SubscriberLimits
from hotmesh.runtime.upkeep.retention import RetentionLimits
from hotmesh.runtime.upkeep.stalled_logins import StalledLoginLimits
from hotmesh.runtime.work.alone import TrialLimits


@dataclass(frozen=True, slots=True)
class MemberLimits:
    """Those of each of its services."""

    frontier: FrontierLimits = field(default_factory=FrontierLimits)
    engine: EngineLimits = field(default_factory=EngineLimits)
    listener: ListenerLimits = field(default_factory=ListenerLimits)
    activations: ActivationLimits = field(default_factory=ActivationLimits)
    subscribers: SubscriberLimits = field(default_factory=SubscriberLimits)
    stalled_logins: StalledLoginLimits = field(default_factory=StalledLoginLimits)
    trials: TrialLimits = field(default_factory=TrialLimits)
    tenure: TenureLimits = field(default_factory=TenureLimits)
    retention: RetentionLimits = field(default_factory=RetentionLimits)
    loop: LoopLimits = field(default_factory=LoopLimits)


DEFAULT_LIMITS = MemberLimits()

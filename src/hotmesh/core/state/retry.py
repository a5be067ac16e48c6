"""How often work is tried, and how long to wait between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often work is tried and how long to wait between: min(initial * coefficient ** retry, maximum) seconds."""

    maximum_attempts: int = 3
    backoff_coefficient: float = 10.0
    maximum_interval: float = 120.0
    initial_interval: float = 1.0


RETRY_POLICY_KEYS: Final[Mapping[str, str]] = {
    "maximum_attempts": "maximum_attempts",
    "maximumAttempts": "maximum_attempts",
    "backoff_coefficient": "backoff_coefficient",
    "backoffCoefficient": "backoff_coefficient",
    "maximum_interval": "maximum_interval",
    "maximumInterval": "maximum_interval",
    "initial_interval": "initial_interval",
    "initialInterval": "initial_interval",
}
"""Both spellings of each key of a policy, in YAML and in Python, and the field it means."""

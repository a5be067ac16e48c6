"""How much an engine takes at once, and how long it waits for what; nobody has to set any of it."""

from __future__ import annotations

from dataclasses import dataclass

from hotmesh.core.advance.limits import SEEN_LIMIT


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds of an engine; times in seconds."""

    events_per_step: int = 500
    """Events of one job that one step handles, also of those that `lock_due_jobs` hands out: no step is unbounded."""
    seen_answers: int = SEEN_LIMIT
    """Further answers that an activity remembers by their ids."""
    due_jobs: int = 100
    """Jobs that one look at the engine stream takes."""
    cached_records: int = 256
    """Records kept in memory per job; a longer history is loaded in the parts that a step needs."""
    uncommitted_jobs: int = 300
    """Jobs whose events may wait for a commit before workers claim more: enough for the next commits."""
    commit_size: int = 64 * 2**20
    """Characters of values from which a commit takes no further step: a statement of 1 GiB is refused."""
    second_commit: int = 8
    """Ready tickets from which a second commit runs beside the first."""
    held_up_after: float = 1.0
    """From then on, a commit is held up by something."""
    company_known_for: float = 5.0
    """Between two looks, under load, whether the app has other engines."""
    long_step: float = 1.0
    """From then on a step is named in the log, and what it would still enter is left for later ones."""
    longest_step: float = 10.0
    """After which a step is cut off."""
    most_cuts: int = 2
    """How often a step is cut off before its events fail their activities."""
    id_held_retry: float = 0.5
    """Between two tries to create a job whose id is taken by a transaction that is still open."""
    local_steps: int = 100
    """Steps of durable functions that run at once in this process."""
    kept_functions: int = 1_000
    """Durable functions whose suspended code is kept in memory, beside those whose steps run here."""
    unreadable_retry: float = 1.0
    """For so long a process leaves alone what it cannot decode, so that one with the right codec gets it."""

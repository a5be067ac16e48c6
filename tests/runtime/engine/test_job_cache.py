"""The jobs in memory: which are kept, which go first, and what they count for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hotmesh.core.state.job import ActivityRecord, Dimension, Job
from hotmesh.core.state.step import JobChange, Step
from hotmesh.postgres.steps import Batch
from hotmesh.runtime.engine.in_flight import InFlight
from hotmesh.runtime.engine.job_cache import JobCache
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.settings import Settings

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def cache_of(*, jobs: int = 10, size: int = 1_000, records: int = 3, readonly: bool = False) -> JobCache:
    settings = Settings(cache_jobs=jobs, cache_bytes=size)
    return JobCache(settings, InFlight(), EngineLimits(cached_records=records), readonly=readonly)


def job(generation: str, *, seq: int = 1, status: int = 1, records: int = 0) -> Job:
    passes: dict[Dimension, ActivityRecord] = {(0, n): ActivityRecord("closed") for n in range(records)}
    known = {"turn": passes} if records else {}
    return Job("app", f"job-{generation}", generation, "1", "t", seq, status, {}, {}, NOW, NOW, records=known)


def keep(cache: JobCache, *jobs: Job, size: int = 0, ended: bool = False) -> None:
    """A step on these jobs has committed, each of which takes so many bytes."""
    batch = Batch()
    batch.sizes = {one.generation: size for one in jobs}
    cache.update(Step(tuple(JobChange(one, created=False, ended=ended) for one in jobs)), batch, None)


def kept(cache: JobCache) -> list[str]:
    return [cached.generation for cached in cache]


async def test_a_job_is_kept_from_its_first_step_to_its_last() -> None:
    cache = cache_of()
    keep(cache, job("a"), size=100)
    keep(cache, job("a", seq=2), size=300)
    assert (kept(cache), cache.bytes) == (["a"], 300)

    keep(cache, job("a", seq=3, status=0), ended=True)
    assert (kept(cache), cache.bytes) == ([], 0)


async def test_a_step_that_is_told_late_does_not_take_a_job_back() -> None:
    cache = cache_of()
    keep(cache, job("a", seq=5))
    keep(cache, job("a", seq=4))

    cached = cache.get("a")
    assert cached is not None
    assert cached.job is not None
    assert cached.job.seq == 5


async def test_of_too_many_jobs_those_go_that_have_been_idle_longest() -> None:
    cache = cache_of(jobs=10)
    keep(cache, *(job(str(number)) for number in range(11)))
    cache.get_or_add("job-0", "0")  # something happened to it

    cache.evict()

    assert kept(cache) == ["3", "4", "5", "6", "7", "8", "9", "10", "0"]


async def test_of_jobs_that_take_too_much_those_go_that_nothing_happens_to() -> None:
    cache = cache_of(size=1_000)
    keep(cache, *(job(str(number)) for number in range(4)), size=300)
    busy = cache.get("0")
    assert busy is not None
    cache.occupy(busy)

    cache.evict()

    assert (kept(cache), cache.bytes) == (["0", "2", "3"], 900)


async def test_a_long_history_is_not_kept() -> None:
    cache = cache_of(records=3)
    keep(cache, job("short", records=3), job("long", records=4), size=100)

    for cached in cache:
        cache.shorten(cached)

    assert [(cached.generation, cached.job is None) for cached in cache] == [("short", False), ("long", True)]
    assert cache.bytes == 100


async def test_one_that_processes_nothing_keeps_nothing() -> None:
    cache = cache_of(readonly=True)
    keep(cache, job("a"))

    assert kept(cache) == []


async def test_a_job_of_which_nothing_is_known_goes_with_its_last_event() -> None:
    cache = cache_of()
    cached = cache.get_or_add("job-a", "a")
    cache.occupy(cached)
    assert cache.holds(cached)

    cache.vacate(cached)

    assert not cache.holds(cached)

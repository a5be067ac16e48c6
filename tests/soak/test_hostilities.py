"""The short form of the hostile part of `make soak`: hostile code of users at random, beside honest work."""

from __future__ import annotations

import os

from hostilities import play


def test_hostile_code_at_random_ends_no_instance_and_harms_no_honest_job(database_url: str) -> None:
    """Its seed is in what it says when it fails: `make soak ARGS="--only hostile --seed …"`."""
    report = play(database_url, seconds=8, seed=int.from_bytes(os.urandom(3)))

    assert not report.problems, "\n".join([report.summary(), *report.problems])
    assert report.jobs > 10
    assert len(report.did) > 15, report.summary()

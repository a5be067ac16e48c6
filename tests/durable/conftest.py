"""Every test here proves replay beside what it is about, and in the processes it starts."""

from __future__ import annotations

import pytest

from hotmesh.runtime.durable.replay_check import VARIABLE


@pytest.fixture(autouse=True)
def replayed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each turn the code is let go of, read again from its history, and compared."""
    if request.node.get_closest_marker("live") is None:
        monkeypatch.setenv(VARIABLE, "1")

"""What an exception of users' code is and says, whatever it does when it is asked."""

from __future__ import annotations

import logging

import pytest

from hotmesh.foreign_errors import LONGEST_WORDS, kind_of
from hotmesh.runtime.tracebacks import in_short, loggable, stack_of, users_only
from odd_errors import ODD_ERRORS, FrozenError, odd


@pytest.mark.parametrize("name", ODD_ERRORS)
def test_it_can_be_asked_and_logged(name: str, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise odd(name) from odd("frozen")
    except BaseException as error:
        found = loggable(error)
        logging.getLogger("hotmesh.worker").error("it failed", exc_info=found)
        kind, words = kind_of(error), in_short(error)

    assert "in test_it_can_be_asked_and_logged" in stack_of(found)
    assert "in test_it_can_be_asked_and_logged" in caplog.text
    assert words.startswith(kind)
    assert len(words) <= LONGEST_WORDS + len(kind) + 2
    assert type(kind) is type(words) is str


def test_frames_of_ours_are_left_out_of_what_cannot_be_changed() -> None:
    def fails() -> None:
        try:
            loggable(None)  # type: ignore[arg-type]  # it raises, in a file of ours
        except Exception as error:
            raise odd("frozen") from error

    with pytest.raises(FrozenError) as raised:
        fails()
    assert "runtime/tracebacks.py" in stack_of(raised.value)
    assert "runtime/tracebacks.py" not in stack_of(users_only(raised.value))

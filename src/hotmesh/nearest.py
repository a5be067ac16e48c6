"""Which of the known words one may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that is most like this one, if one is at least so like it (0 to 1: the same)."""
    # Loaded once something is misspelt: an engine that runs well has no use for it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, 1, cutoff)), None)

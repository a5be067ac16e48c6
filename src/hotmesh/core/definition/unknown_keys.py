"""Rule V17: the keys that nobody knows. A warning, where one more key changes nothing; an error, where it was meant to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hotmesh.core.definition import grammar
from hotmesh.core.definition.report import Report, did_you_mean, meant
from hotmesh.core.definition.yaml_document import escape


def unknown_key(
    report: Report,
    members: Mapping[str, Any],
    name: str,
    known: frozenset[str],
    message: str,
    place: str,
    harmless: frozenset[str] = grammar.HARMLESS,
) -> None:
    """A warning; an error where a key is missing for it, without which the graph means something else, or a part of it is lost."""
    hint = did_you_mean(name, known)
    word = meant(name, known)
    lost = word is not None and word in members and word in grammar.FLOW and bool(members[name])
    if lost:
        message += f", beside {word}: what it says would be lost"
    if lost or (word is not None and word not in members and word not in harmless):
        report.error("V17", message, place, name=True, suggestion=hint)
    else:
        report.warning("V17", message, place, name=True, suggestion=hint)


def undecided_keys(
    report: Report, members: Mapping[str, Any], known: frozenset[str], pointer: str, what: str
) -> None:
    """Where something is decided, every key counts: what was meant by an unknown one would not be asked."""
    for name in members:
        if name in known or name.startswith(grammar.EXTENSION):
            continue
        hint = did_you_mean(name, known)
        message = f'unknown key "{name}" in {what}'
        if what == "a transition":
            hint = hint or "what a transition depends on goes under conditions:"
            if "conditions" not in members:
                message += ", which would be taken always"
        report.error("V17", message, f"{pointer}/{escape(name)}", name=True, suggestion=hint)

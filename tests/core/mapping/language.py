"""Helpers of the mapping tests: run rows or single functions, and the encoding of the golden results."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from hotmesh.core.mapping import ENVIRONMENT, Environment, compile_expression
from hotmesh.core.pipe.instant import Date, as_date, iso_text
from hotmesh.core.values import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GOLDEN = Path(__file__).parents[2] / "golden"

NOW = 1_709_210_096_789.0
"""2024-02-29T12:34:56.789Z"""


def load(name: str) -> list[dict[str, Any]]:
    lines = (GOLDEN / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def environment(tz: str | tzinfo = UTC, now: float = NOW, fidelity: float = 5.0) -> Environment:
    zone = ZoneInfo(tz) if isinstance(tz, str) else tz
    return Environment(now=lambda: now, random=lambda: 0.5, tz=zone, fidelity=fidelity)


def resolve(
    expression: Any, context: Mapping[str, Any] | None = None, tz: str | tzinfo = UTC, now: float = NOW
) -> Any:
    compiled = compile_expression(expression)
    return compiled.evaluate({**(context or {}), ENVIRONMENT: environment(tz, now)})


def pipe(
    *rows: Any, context: Mapping[str, Any] | None = None, tz: str | tzinfo = UTC, now: float = NOW
) -> Any:
    return resolve({"@pipe": list(rows)}, context, tz, now)


def call(function: str, arguments: Sequence[Any] = (), tz: str | tzinfo = UTC, now: float = NOW) -> Any:
    """One function, its arguments read from data so that undefined can be among them."""
    cells = [f"{{a.{index}}}" for index in range(len(arguments))]
    return pipe(cells, [f"{{@{function}}}"], context={"a": list(arguments)}, tz=tz, now=now)


def encoded(value: Any) -> Any:
    """The value as the golden files write it."""
    if value is UNDEFINED:
        return {"$undefined": True}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$nan": True} if math.isnan(value) else {"$infinity" if value > 0 else "$neg_infinity": True}
    if isinstance(value, (Date, datetime)):
        date = as_date(value)
        return {"$date": None if date is None or date.milliseconds is None else iso_text(date.milliseconds)}
    if isinstance(value, dict):
        return {key: encoded(member) for key, member in value.items()}
    return [encoded(item) for item in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Whether two encoded values are equal: numbers within 1e-12, a boolean is no number."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=0)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)

"""How long expressions take, next to the same work written by hand in Python: `python bench/mapping.py`.

The hand-written functions give the same results for the same data, and refuse what the expressions refuse; they do
not convert values as the language does. Each time is the best of many runs of a tight loop, in microseconds.
"""

from __future__ import annotations

import json
import platform
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hotmesh.core.mapping import check_expression, compile_expression
from hotmesh.core.values import UNDEFINED

Work = Callable[[dict[str, Any]], Any]

RESULTS = Path(__file__).parent / "results" / "mapping.json"

CONTEXT: dict[str, Any] = {
    "t1": {
        "output": {
            "data": {
                "name": "Iris Lee",
                "code": "Harbor",
                "site": "B7",
                "price": 9.99,
                "quantity": 3,
                "paid": True,
                "tags": ["red", "green"],
                "customer": {"email": " Iris@Example.com "},
            },
            "metadata": {"aid": "t1"},
        }
    },
    "$job": {"data": {"total": 9}, "metadata": {"jid": "j-1"}},
}

PATH = "{t1.output.data.name}"

MISSING_PATH = "{t1.output.data.none}"

TEXT_PIPE = {
    "@pipe": [
        ["{t1.output.data.code}", 1, 4],
        ["{@string.slice}", "/", "{t1.output.data.site}"],
        ["{@string.concat}"],
    ]
}

NUMBER_PIPE = {
    "@pipe": [
        ["{t1.output.data.price}", "{t1.output.data.quantity}"],
        ["{@math.multiply}", 100],
        ["{@number.gt}"],
    ]
}

TREE = {
    "name": "{t1.output.data.name}",
    "quantity": "{t1.output.data.quantity}",
    "first": "{t1.output.data.tags.0}",
    "job": "{$job.metadata.jid}",
    "kind": "order",
    "version": 5,
    "total": {"@pipe": [["{t1.output.data.price}", "{t1.output.data.quantity}"], ["{@math.multiply}"]]},
    "email": {"@pipe": [["{t1.output.data.customer.email}"], ["{@string.trim}"], ["{@string.toLowerCase}"]]},
    "state": {"paid": "{t1.output.data.paid}", "coupon": "{t1.output.data.coupon}"},
}
"""Ten leaves: six paths, of which one leads nowhere, two pipes and two literals."""


def path_by_hand(context: dict[str, Any]) -> Any:
    return context["t1"]["output"]["data"].get("name", UNDEFINED)


def missing_path_by_hand(context: dict[str, Any]) -> Any:
    return context["t1"]["output"]["data"].get("none", UNDEFINED)


def text_pipe_by_hand(context: dict[str, Any]) -> Any:
    data = context["t1"]["output"]["data"]
    code, site = data.get("code"), data.get("site")
    if not isinstance(code, str):
        raise TypeError("code must be text")
    return f"{code[1:4]}/{'' if site is None else site}"


def number_pipe_by_hand(context: dict[str, Any]) -> Any:
    data = context["t1"]["output"]["data"]
    price, quantity = data.get("price"), data.get("quantity")
    if not isinstance(price, (int, float)) or not isinstance(quantity, (int, float)):
        raise TypeError("price and quantity must be numbers")
    return price * quantity > 100


def tree_by_hand(context: dict[str, Any]) -> Any:
    data = context["t1"]["output"]["data"]
    tags, email = data.get("tags"), data.get("customer", {}).get("email")
    price, quantity = data.get("price"), data.get("quantity")
    if not isinstance(email, str):
        raise TypeError("email must be text")
    if not isinstance(price, (int, float)) or not isinstance(quantity, (int, float)):
        raise TypeError("price and quantity must be numbers")
    return {
        "name": data.get("name", UNDEFINED),
        "quantity": quantity,
        "first": tags[0] if tags else UNDEFINED,
        "job": context["$job"]["metadata"].get("jid", UNDEFINED),
        "kind": "order",
        "version": 5,
        "total": price * quantity,
        "email": email.strip().lower(),
        "state": {"paid": data.get("paid", UNDEFINED), "coupon": data.get("coupon", UNDEFINED)},
    }


CASES: list[tuple[str, Any, Work, float]] = [
    ("a path leaf", PATH, path_by_hand, 1),
    ("a path that leads nowhere", MISSING_PATH, missing_path_by_hand, 1),
    ("a three-row pipe on text", TEXT_PIPE, text_pipe_by_hand, 6),
    ("a three-row pipe on numbers", NUMBER_PIPE, number_pipe_by_hand, 6),
    ("a map tree of ten mixed leaves", TREE, tree_by_hand, 25),
]


def main() -> None:
    rows = []
    for name, expression, by_hand, limit in CASES:
        evaluate = compile_expression(expression).evaluate
        assert evaluate(CONTEXT) == by_hand(CONTEXT), name
        compiled, written = _microseconds(evaluate), _microseconds(by_hand)
        rows.append(
            {
                "what": name,
                "us": compiled,
                "by_hand_us": written,
                "ratio": round(compiled / written, 1),
                "limit_us": limit,
            }
        )
        print(f"{name:32} {compiled:7.3f} µs   by hand {written:7.3f} µs   ratio {compiled / written:4.1f}")
    compiling = _graph_milliseconds(lambda value: compile_expression(value, where="app.yaml:1:1"))
    checking = _graph_milliseconds(lambda value: check_expression(value, "/app/graphs/0", {"t1"}))
    print(f"200 activities, 2000 expressions: compile {compiling:.1f} ms, check {checking:.1f} ms")
    machine = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {_processor()}"
    result = {
        "machine": machine,
        "expressions": rows,
        "graph": {"compile_ms": compiling, "check_ms": checking, "limit_ms": 300},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _microseconds(work: Work, loops: int = 20_000, runs: int = 25) -> float:
    timer = timeit.Timer("work(context)", globals={"work": work, "context": CONTEXT})
    return round(min(timer.repeat(runs, loops)) / loops * 1e6, 3)


def _graph_milliseconds(work: Callable[[Any], Any]) -> float:
    """The time for the ten expressions of each of 200 activities."""
    leaves = [TREE, PATH, TEXT_PIPE, NUMBER_PIPE, *list(TREE.values())[:6]]

    def graph() -> None:
        for _ in range(200):
            for leaf in leaves:
                work(leaf)

    return round(min(timeit.repeat(graph, number=1, repeat=5)) * 1e3, 1)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    main()

"""Random durable programs, run with completions in random order and grouping, and replayed.

As a script: reads programs with their histories from stdin (JSON lines), replays each with other groupings, and writes what
each did, so that processes with other hash seeds and other Pythons can be compared.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from hotmesh.core.durable.commands import Activity, Command, Completion, Release, Sleep, Step
from hotmesh.replay import Strand, patch, running_strand, shielded
from hotmesh.replay.tasks import Operation

START = datetime(2026, 1, 1, tzinfo=UTC)


class FailedError(Exception):
    pass


def decode(completion: Completion) -> Any:
    if completion.status == "failed":
        raise FailedError(completion.error)
    return completion.value


def call(name: str) -> Operation[Any]:
    strand: Strand | None = running_strand()
    assert strand is not None
    if name.endswith("w"):
        return strand.ask(Activity(strand.reserve(), name), decode, "wait_completed")
    return strand.ask(Step(strand.reserve(), name), decode)


class Program:
    """A workflow made of a seed; what it sees goes into `trace`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace: list[str] = []
        self.count = 0

    async def main(self) -> str:
        rng = Random(self.seed)  # decides the program, not what it does
        for _ in range(rng.randint(1, 4)):
            try:
                await self.block(rng.randrange(1 << 30), 0)
            except (FailedError, TimeoutError, ExceptionGroup) as error:
                self.say(f"caught {type(error).__name__}")
            except asyncio.CancelledError:
                async with shielded():
                    await call("undo")
                self.say("undone")
                raise
        return "end"

    def say(self, words: str) -> None:
        strand: Strand | None = running_strand()
        assert strand is not None
        self.trace.append(f"{strand.now().timestamp():.0f} {words} {strand.random().randrange(1000)}")

    async def one(self, name: str) -> Any:
        value = await call(name)
        self.say(f"{name}={value}")
        return value

    async def block(self, seed: int, depth: int) -> Any:
        rng = Random(seed)
        kinds = list(KINDS) if depth < 3 else ["call", "sleep"]
        return await KINDS[rng.choice(kinds)](self, rng, depth)

    def blocks(self, rng: Random, depth: int) -> list[Any]:
        return [self.block(rng.randrange(1 << 30), depth + 1) for _ in range(rng.randint(2, 4))]

    async def call(self, rng: Random, depth: int) -> Any:
        return await self.one(f"s{rng.randrange(100)}" + rng.choice(["", "", "w"]))

    async def sleep(self, rng: Random, depth: int) -> None:
        await asyncio.sleep(rng.choice([0, 1, 5]))
        self.say("slept")

    async def gather(self, rng: Random, depth: int) -> None:
        results = await asyncio.gather(*self.blocks(rng, depth), return_exceptions=rng.random() < 0.5)
        self.say(f"gathered {len(results)}")

    async def wait(self, rng: Random, depth: int) -> None:
        tasks = {asyncio.create_task(one) for one in self.blocks(rng, depth)}
        futures = tasks | {asyncio.gather(*[self.one(f"g{n}")]) for n in range(3)}
        done, pending = await asyncio.wait(
            futures, return_when=rng.choice(["FIRST_COMPLETED", "ALL_COMPLETED", "FIRST_EXCEPTION"])
        )
        for one in pending:
            self.say(f"cancel {one.cancel()}")
        for one in done:
            self.say(f"first {one.cancelled() or one.exception()!r}")
        await asyncio.gather(*pending, return_exceptions=True)

    async def completed(self, rng: Random, depth: int) -> None:
        for future in asyncio.as_completed(self.blocks(rng, depth), timeout=rng.choice([None, None, 3])):
            try:
                self.say(f"completed {await future!r}")
            except FailedError:
                self.say("completed badly")

    async def group(self, rng: Random, depth: int) -> None:
        async with asyncio.TaskGroup() as group:
            for one in self.blocks(rng, depth):
                group.create_task(one)

    async def timeout(self, rng: Random, depth: int) -> None:
        async with asyncio.timeout(rng.choice([1, 4])):
            await self.block(rng.randrange(1 << 30), depth + 1)

    async def wait_for(self, rng: Random, depth: int) -> None:
        await asyncio.wait_for(self.block(rng.randrange(1 << 30), depth + 1), rng.choice([0, 2, 6]))

    async def queue(self, rng: Random, depth: int) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue(rng.choice([0, 1]))

        async def put(number: int) -> None:
            try:
                await queue.put(str(await self.one(f"q{number}")))
            except FailedError:
                await queue.put("failed")

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(put(number))
            for _ in range(3):
                self.say(f"got {await queue.get()}")

    async def locks(self, rng: Random, depth: int) -> None:
        lock: Any = rng.choice([asyncio.Semaphore(1), asyncio.Semaphore(2), asyncio.Lock()])
        event = asyncio.Event()

        async def inside(number: int) -> None:
            async with lock:
                await self.one(f"l{number}")
            event.set()

        tasks = [asyncio.create_task(inside(number)) for number in range(4)]
        watch = asyncio.create_task(self.watch(event))
        await asyncio.wait(tasks)
        watch.cancel()
        await asyncio.gather(watch, *tasks, return_exceptions=True)

    async def watch(self, event: asyncio.Event) -> None:
        await event.wait()
        self.say("seen")

    async def shield(self, rng: Random, depth: int) -> None:
        inner = asyncio.ensure_future(self.block(rng.randrange(1 << 30), depth + 1))
        try:
            async with asyncio.timeout(2):
                await asyncio.shield(inner)
        except TimeoutError:
            self.say("left behind")
            if rng.random() < 0.5:
                await inner

    async def condition(self, rng: Random, depth: int) -> None:
        strand: Strand | None = running_strand()
        assert strand is not None
        here = len(self.trace) + rng.randint(0, 2)
        task = asyncio.create_task(self.block(rng.randrange(1 << 30), depth + 1))
        await asyncio.wait(
            [task, strand.condition(lambda: len(self.trace) >= here)], return_when="FIRST_COMPLETED"
        )
        self.say("met")
        await task


KINDS: dict[str, Callable[[Program, Random, int], Awaitable[Any]]] = {
    name: getattr(Program, name)
    for name in ("call", "sleep", "gather", "wait", "completed", "group", "timeout", "wait_for", "queue", "locks", "shield", "condition")
}  # fmt: skip


def strand_of(program: Program, **options: Any) -> Strand:
    return Strand(program.main, seed=f"seed {program.seed}".encode(), started_at=START, **options)


def told(command: Command) -> str:
    if isinstance(command, Release):
        return f"release {command.position} {command.wait}"
    if position := getattr(command, "position", 0):
        return f"{position} {command.kind} {getattr(command, 'name', '')} {getattr(command, 'seconds', '')}"
    return (
        f"{command.kind} {getattr(command, 'value', None)!r} {type(getattr(command, 'error', None)).__name__}"
    )


def live(seed: int) -> tuple[Program, list[Completion], list[set[int]], str]:
    """Run a program to its end: with its history in order, what was open after each completion, and how it ended."""
    program, rng = Program(seed), Random(~seed)
    strand = strand_of(program)
    history: list[Completion] = []
    open_: dict[int, Any] = {}
    opens: list[set[int]] = []
    now, cancel_at = 0, rng.choice([0, 0, rng.randint(1, 20)])
    commands = strand.turn()
    while True:
        for command in commands:
            if isinstance(command, Release):
                if not command.wait:
                    open_.pop(command.position)
            elif isinstance(command, Step | Activity | Sleep):
                open_[command.position] = command
        opens.append(set(open_))
        if strand.ended:
            strand.close()
            return program, history, opens, told(commands[-1])
        assert open_, (seed, program.trace)
        batch: list[Completion] = []
        now += 1
        for position in rng.sample(sorted(open_), rng.randint(1, min(3, len(open_)))):
            command = open_.pop(position)
            failed = rng.random() < 0.15 and not isinstance(command, Sleep)
            batch.append(
                completion(position, command.kind, command.name, failed, now, len(history) + len(batch))
            )
        if cancel_at and len(history) + len(batch) >= cancel_at:
            cancel_at = 0
            batch.append(completion(-1, "cancel", "", False, now, len(history) + len(batch)))
        history += batch
        opens += [set()] * (len(batch) - 1)
        commands = strand.turn(batch)


def completion(position: int, kind: str, name: str, failed: bool, now: int, seq: int) -> Completion:
    return Completion(
        position, kind, name, "failed" if failed else "done", START + timedelta(seconds=now), seq,
        None if position < 0 else f"v{position}", "no" if failed else None,
    )  # fmt: skip


def replayed(seed: int, history: list[Completion], grouping: int) -> tuple[Program, str]:
    """Replay a prefix as recorded, the rest in turns of random size."""
    program, rng = Program(seed), Random(grouping)
    cut = rng.randint(0, len(history))
    strand = strand_of(program, recorded=history[:cut])
    junk = [object() for _ in range(rng.randrange(1000))]  # other addresses
    while strand.replay(rng.randint(1, 5)):
        pass
    commands: list[Command] = strand.turn()
    while cut < len(history) and not strand.ended:
        size = rng.randint(1, 4)
        commands = strand.turn(history[cut : cut + size])
        cut += size
    strand.close()
    del junk
    return program, told(commands[-1]) if commands else ""


def main() -> None:
    patch()
    for line in sys.stdin:
        given = json.loads(line)
        history = [completion(*one) for one in given["history"]]
        told_of = [replayed(given["seed"], history, grouping) for grouping in range(given["times"])]
        print(json.dumps([[program.trace, end] for program, end in told_of]))


if __name__ == "__main__":
    main()

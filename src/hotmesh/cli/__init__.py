"""The command `hotmesh`. Sub-commands are imported when they are used, so that `hotmesh --help` is quick."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "check": ("hotmesh.cli.check:check", "Check graph files as a deploy would, without a database."),
    "db": ("hotmesh.cli.db:db", "Start, stop and inspect the embedded Postgres."),
    "dead-letters": (
        "hotmesh.cli.dead_letters:dead_letters",
        "List, requeue or discard what was given up.",
    ),
    "demo": ("hotmesh.cli.demo:demo", "Run orders through a real flow and show what happened."),
    "doctor": ("hotmesh.cli.doctor:doctor", "Say what is wrong with a mesh, and what to do."),
    "eval": (
        "hotmesh.cli.evaluate:evaluate",
        "Evaluate a mapping EXPRESSION and print the result as JSON, or `undefined`.",
    ),
    "explain": (
        "hotmesh.cli.explain:explain",
        "Say what a job waits for, since when, and what would unblock it.",
    ),
    "jobs": ("hotmesh.cli.jobs:jobs", "List jobs, the newest first."),
    "members": ("hotmesh.cli.members:members", "List the engines and workers that are there."),
    "migrate": ("hotmesh.cli.migrate:migrate", "Bring the tables of a namespace up to date."),
    "move": ("hotmesh.cli.move:move", "Move a namespace to another Postgres, while it works."),
    "pause": (
        "hotmesh.cli.members:pause",
        "Let engines and workers start nothing new, until they are resumed.",
    ),
    "prune": ("hotmesh.cli.prune:prune", "Delete what has been over for long enough; never a live job."),
    "resume": ("hotmesh.cli.members:resume", "Lift a pause, or any other throttle."),
    "role": ("hotmesh.cli.role:role", "Make and end logins for workers in untrusted places."),
    "status": ("hotmesh.cli.jobs:status", "Show a job: its state, its data, and what it waits for."),
    "throttle": (
        "hotmesh.cli.members:throttle",
        "Let each engine and worker start at most one message per so many milliseconds; 0 is no limit, -1 a pause.",
    ),
    "timeline": ("hotmesh.cli.jobs:timeline", "Draw what a job did, and when."),
}
"""Name → where the command is, and the first line of its help."""


class LazyGroup(click.Group):
    """A group that knows the names and the first lines of its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.group(cls=LazyGroup)
@click.version_option(package_name="hotmesh", message="%(prog)s %(version)s")
def main() -> None:
    """Durable workflows that live inside Postgres."""

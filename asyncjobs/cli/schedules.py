"""List schedules by name: when each fires, its next run, its last one and how that ended.

With pause, resume, run or delete and names: let them rest, go on, make a job at once, or end.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InvalidOption
from ..rules.limits import PAGE_MAX, check_integer, check_text
from ..store.schedules import STATUSES, Schedule
from ..store.sqlite.schedules import schedules
from .asked import Asked
from .changing import add_actor, change_named
from .screen import cut
from .times import when

if TYPE_CHECKING:
    from ..runner import Runner

NAME = "schedules"
HELP = "list schedules; pause, resume, run or delete them"
LIMIT = 50
TEXT_MAX = 80


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("action", nargs="?", choices=_ACTIONS, metavar="pause|resume|run|delete",
                        help="do this to those that are named")  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME")
    add_actor(parser)
    parser.add_argument("--task", metavar="NAME", help="only those of this task")
    parser.add_argument("--status", choices=STATUSES, help="only those that stand so")
    most = f"at most so many, up to {PAGE_MAX:,}; by default {LIMIT}"
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=most)
    parser.add_argument("--after", metavar="NAME", help="go on behind this one")


def run(asked: Asked) -> int:
    """List them, or do something to some."""
    arguments, screen = asked.arguments, asked.screen
    if arguments.action is not None:
        if arguments.task is not None or arguments.status is not None:
            raise InvalidOption(f"name the schedules to {arguments.action}; filters only list")
        return change_named(asked, NAME, _ACTIONS[arguments.action])
    limit = check_integer(arguments.limit, "limit", least=1, most=PAGE_MAX)
    after = "" if arguments.after is None else check_text(arguments.after, "after")
    look = partial(schedules, limit=limit + 1, after=after, task=arguments.task,
                   status=arguments.status)  # fmt: skip
    found = asked.database.look(look)
    shown = found[:limit]
    if screen.as_json:
        last = shown[-1].name if len(found) > limit else None
        screen.document({"schedules": shown, "after": last})
        return 0
    if shown:
        screen.table(
            (
                "NAME",
                "STATUS",
                "NEXT",
                "LAST",
                "OUTCOME",
                "JOB",
                "MISSED",
                "SKIPPED",
                "TASK",
                "WHEN",
            ),
            map(_row, shown),
        )
    if len(found) > limit:
        screen.note(f"there are more: --after {shown[-1].name}")
    return 0


def _row(schedule: Schedule) -> tuple[str, ...]:
    last = schedule.last_run
    return (
        cut(schedule.name, TEXT_MAX),
        schedule.status,
        when(schedule.next_run),
        "" if last is None else when(last.scheduled_for),
        "" if last is None else last.state.value,
        "" if last is None else last.job_id,
        f"{schedule.missed:,}",
        f"{schedule.skipped:,}",
        schedule.task,
        cut(schedule.sentence, TEXT_MAX),
    )


async def _pause(runner: Runner, name: str, actor: str) -> str:
    await runner.schedules.pause(name, actor=actor)
    return "paused"


async def _resume(runner: Runner, name: str, actor: str) -> str:
    await runner.schedules.resume(name, actor=actor)
    return "resumed"


async def _run_now(runner: Runner, name: str, actor: str) -> str:
    return (await runner.schedules.run_now(name, actor=actor)).id


async def _delete(runner: Runner, name: str, actor: str) -> str:
    await runner.schedules.delete(name, actor=actor)
    return "deleted"


_ACTIONS: dict[str, Callable[[Runner, str, str], Awaitable[str]]] = {
    "pause": _pause,
    "resume": _resume,
    "run": _run_now,
    "delete": _delete,
}

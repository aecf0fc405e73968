"""List queues: what waits and runs there, since when a job is due, who takes its jobs, what is set.

A queue that has unfinished jobs which no live process takes is ``unserved``.

With names, pause lets no job of them start, resume lets them start again, set limits them, drain
waits until nothing of them runs or is due, and purge deletes what waits in one.
"""

from __future__ import annotations

import argparse
from functools import partial

from ..errors import InvalidOption
from ..filters import COUNT_MAX
from ..inventory import Queue
from ..states import State
from ..store.sqlite.overview import queues
from . import queue_actions
from .asked import Asked
from .changing import add_actor
from .living import living
from .times import amount, when

NAME = "queues"
HELP = "list queues; pause, resume, set, drain or purge them"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("action", nargs="?", choices=queue_actions.ACTIONS, help="do this to those "
                        "that are named", metavar="|".join(queue_actions.ACTIONS))  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME")
    add_actor(parser)
    queue_actions.add_options(parser)
    parser.add_argument("--paused", action="store_true", help="only those that are paused")


def run(asked: Asked) -> int:
    """List them, or do something to some."""
    arguments, screen = asked.arguments, asked.screen
    queue_actions.check_options(arguments)
    if arguments.action is not None and arguments.paused:
        raise InvalidOption(f"name the queues to {arguments.action}; --paused only lists")
    is_alive = living(asked.database.path)
    rows = asked.database.look(partial(queues, now=asked.now, most=COUNT_MAX))
    found = [queue.among(is_alive) for queue in rows]
    if arguments.action is not None:
        for name in set(arguments.names) - {queue.name for queue in found}:
            # Not refused: it may be paused before its first job comes.
            screen.note(f"asyncjobs: queue {name} has no jobs until now; is that its name?")
        return queue_actions.act(asked)
    shown = [queue for queue in found if queue.paused or not arguments.paused]
    if screen.as_json:
        screen.document({"queues": shown})
    elif shown:
        screen.table(
            ("QUEUE", "STATUS", "DUE", "SCHEDULED", "RETRYING", "RUNNING", "BLOCKED", "DUE SINCE",
             "SERVED BY", "LIMITS"),
            map(_row, shown),
        )  # fmt: skip
    return 0


def _row(queue: Queue) -> tuple[str, ...]:
    return (
        queue.name,
        _status(queue),
        _due(queue),
        str(queue.scheduled),
        str(queue.retrying),
        f"{queue.counts[State.RUNNING]:,}",
        f"{queue.counts[State.BLOCKED]:,}",
        when(queue.oldest_due),
        _servers(queue),
        _limits(queue),
    )


def _status(queue: Queue) -> str:
    words = ["paused"] * queue.paused + ["unserved"] * queue.unserved
    return ", ".join(words) or "open"


def _servers(queue: Queue) -> str:
    """Live processes that take its jobs, the first two by their ids."""
    first, more = queue.instances[:2], len(queue.instances) - 2
    return " ".join([*first, *([f"and {more:,} more"] if more > 0 else [])]) or "nobody"


def _due(queue: Queue) -> str:
    """Jobs that wait for nothing but their turn, and have not failed."""
    due = queue.counts[State.QUEUED] - queue.scheduled - queue.retrying
    exact = queue.scheduled.exact and queue.retrying.exact
    return f"{due:,}" if exact else f"up to {due:,}"


def _limits(queue: Queue) -> str:
    limits = []
    if queue.running_max is not None:
        limits.append(f"{queue.running_max:,} at once")
    if queue.rate_jobs is not None and queue.rate_per is not None:
        limits.append(f"{queue.rate_jobs:,} in {amount(queue.rate_per)}")
    if queue.weight is not None:
        limits.append(f"weight {queue.weight:,}")
    if queue.priority_ageing is not None:
        limits.append(f"one priority higher every {amount(queue.priority_ageing)}")
    return ", ".join(limits)

"""Run finished jobs again, from their first attempt: by ids, or all that pass filters.

By filters the failed ones, unless --state says otherwise; and only with --yes. One that is named
and has not failed also takes --yes: what it did would be done again. For one that is named,
--arguments NAME=VALUE gives it another argument, checked by its task in --app.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import IllegalMove, InvalidOption
from ..states import State
from ..store.base import Requeue
from . import changing
from .asked import Asked
from .changing import Verb
from .filtering import values_of

if TYPE_CHECKING:
    from ..inventory import BulkResult
    from ..registry import Registry

NAME = "retry"
HELP = "run finished jobs again"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    changing.add_options(parser)
    parser.add_argument("--rate", type=float, metavar="N",
                        help="with filters: so many a second; by default all at once")  # fmt: skip
    parser.add_argument("--app", metavar="MODULE:NAME",
                        help="the Runner or Tasks that has the task, for --arguments")  # fmt: skip


def run(asked: Asked) -> int:
    """Retry."""
    rate, yes = asked.arguments.rate, asked.arguments.yes
    if rate is not None:
        from ..editing import check_rate  # only here: tasks bring an event loop along

        check_rate(rate)
        if asked.arguments.ids:
            raise InvalidOption("--rate spreads the jobs that pass filters; leave it out with ids")
    edits = _edits(asked.arguments)
    verb = Verb("retried", Requeue(()), partial(_one, edits, yes), partial(_every, rate))
    if edits is not None:
        from .application import tasks_of

        # With an id, what is a filter elsewhere says what to change.
        asked.arguments.arguments = None
        verb = verb._replace(tasks=tasks_of(asked.arguments.app))
    return changing.change(asked, verb)


def _edits(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Other values for arguments of the one job that is named, as ``registry.retry`` takes them."""
    given = arguments.arguments if arguments.ids else None
    if given is None:
        if arguments.app is not None:
            raise InvalidOption("--app is for --arguments of one job that is named")
        return None
    if len(arguments.ids) != 1:
        raise InvalidOption("--arguments changes those of one job; name one")
    if arguments.app is None:
        raise InvalidOption(
            "--arguments of a job are checked by its task: say where that is, as in "
            "--app shop.jobs:runner"
        )
    return values_of(given)


async def _one(
    edits: dict[str, Any] | None, yes: bool, registry: Registry, job_id: str, actor: str
) -> str:
    state = (await registry.get(job_id)).state
    if state in (State.COMPLETED, State.CANCELLED) and not yes:
        raise IllegalMove(
            f"job {job_id} is {state.value}, it has not failed; --yes runs it again all the same"
        )
    await registry.retry(job_id, arguments=edits, actor=actor)
    return "retried"


async def _every(rate: float | None, registry: Registry, **options: object) -> BulkResult:
    return await registry.retry_all(rate=rate, **options)  # type: ignore[arg-type]

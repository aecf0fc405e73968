"""Run finished jobs again, from their first attempt: by ids, or all that pass filters.

By filters the failed ones, unless --state says otherwise; and only with --yes. One that is named
and has not failed also takes --yes: what it did would be done again.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ..errors import IllegalMove, InvalidOption
from ..states import State
from ..store.base import Requeue
from . import changing
from .asked import Asked
from .changing import Verb

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


def run(asked: Asked) -> int:
    """Retry."""
    rate, yes = asked.arguments.rate, asked.arguments.yes
    if rate is not None:
        from ..editing import check_rate  # only here: tasks bring an event loop along

        check_rate(rate)
        if asked.arguments.ids:
            raise InvalidOption("--rate spreads the jobs that pass filters; leave it out with ids")
    verb = Verb("retried", Requeue(()), partial(_one, yes), partial(_every, rate))
    return changing.change(asked, verb)


async def _one(yes: bool, registry: Registry, job_id: str, actor: str) -> str:
    state = (await registry.get(job_id)).state
    if state in (State.COMPLETED, State.CANCELLED) and not yes:
        raise IllegalMove(
            f"job {job_id} is {state.value}, it has not failed; --yes runs it again all the same"
        )
    await registry.retry(job_id, actor=actor)
    return "retried"


async def _every(rate: float | None, registry: Registry, **options: object) -> BulkResult:
    return await registry.retry_all(rate=rate, **options)  # type: ignore[arg-type]

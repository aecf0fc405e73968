"""What changes share: jobs by id or by filter, or what has a name, through a client on the file.

The client is a runner that runs nothing. It writes as the application does, tells live runners by
the doorbell, and notes in the audit who did it.
"""

from __future__ import annotations

import argparse
import os
import pwd
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from msgspec import Struct

from ..errors import IllegalMove, InvalidOption, StoreUnavailable, UnknownJob, UnknownSchedule
from ..filters import COUNT_MAX, applicable, to_filter
from ..inventory import BulkResult, Count
from ..store.base import Change
from ..store.sqlite.listing import count_rows
from .asked import Asked, whole_id
from .filtering import add_filters, filters_of

if TYPE_CHECKING:
    from ..filters import JobFilter
    from ..registry import Registry
    from ..runner import Runner
    from ..tasks import Task

T = TypeVar("T")


class Verb(NamedTuple):
    """What is done to jobs."""

    done: str
    """As in "3 jobs are ...": ``retried``."""
    change: Change
    one: Callable[[Registry, str, str], Awaitable[str]]
    """Does it to one job, given registry, id and actor, and says what became of it."""
    every: Callable[..., Coroutine[Any, Any, BulkResult]]
    """Does it to those that pass: the method of the registry, but for the registry and filters."""
    tasks: Sequence[Task[..., Any]] = ()
    """What the registry must know for it."""


class Result(Struct, frozen=True):
    """What became of one job that was named."""

    id: str
    outcome: str | None
    """``None`` where nothing could be done."""
    error: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what both take."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="jobs, or the beginnings of their ids")
    parser.add_argument("--yes", action="store_true",
                        help="with filters: do it; without this they are only counted")  # fmt: skip
    add_actor(parser)
    add_filters(parser)


def add_actor(parser: argparse.ArgumentParser) -> None:
    """Add who does it."""
    parser.add_argument("--actor", metavar="NAME",
                        help="who is noted in the audit; by default user@host")  # fmt: skip


def change(asked: Asked, verb: Verb) -> int:
    """Do it to the jobs that were named, or to those that pass."""
    filters = filters_of(asked.arguments)
    if bool(asked.arguments.ids) == bool(filters):
        raise InvalidOption("name jobs by their ids, or give filters: one of both")
    if asked.arguments.ids:
        return _change_some(asked, verb)
    return change_matching(asked, verb, filters, scan=asked.arguments.scan)


def change_matching(asked: Asked, verb: Verb, filters: JobFilter, *, scan: bool = False) -> int:
    """Do it to those that pass, or without --yes count them."""
    what = applicable(to_filter(filters), verb.change)
    if asked.arguments.yes:
        return _change_all(asked, verb, filters, scan=scan)
    look = partial(count_rows, what=what, now=asked.now, most=COUNT_MAX + 1, scan=scan)
    jobs = Count.up_to(asked.database.look(look), most=COUNT_MAX)
    if asked.screen.as_json:
        asked.screen.document({"matched": int(jobs), "exact": jobs.exact, "dry_run": True})
    else:
        asked.screen.row(f"{_jobs(jobs)} would be {verb.done}; --yes does it")
    return 0


def _change_all(asked: Asked, verb: Verb, filters: JobFilter, *, scan: bool) -> int:
    async def work(runner: Runner) -> BulkResult:
        return await verb.every(
            runner.registry, dry_run=False, actor=_actor(asked), scan=scan, **filters
        )

    result = _as_client(asked, work)
    if asked.screen.as_json:
        asked.screen.document(result)
    else:
        skipped = f", {result.skipped:,} skipped: they no longer passed" if result.skipped else ""
        asked.screen.row(f"{_jobs(Count(result.changed))} {verb.done}{skipped}")
    return 0


def _change_some(asked: Asked, verb: Verb) -> int:
    """Each by itself; 1 when one of them could not be changed."""
    results = [_find(asked, beginning) for beginning in dict.fromkeys(asked.arguments.ids)]

    async def work(runner: Runner) -> list[Result]:
        return [
            result if result.error else await _change_one(asked, verb, runner.registry, result.id)
            for result in results
        ]

    if not all(result.error for result in results):
        results = _as_client(asked, work, verb.tasks)
    if asked.screen.as_json:
        asked.screen.document({"jobs": results})
    for result in results:
        if result.error is not None:
            asked.screen.note(f"asyncjobs: {result.error}")
        elif not asked.screen.as_json:
            asked.screen.row(result.id, result.outcome or "")
    return 1 if any(result.error for result in results) else 0


def _find(asked: Asked, beginning: str) -> Result:
    try:
        return Result(asked.database.look(partial(whole_id, beginning=beginning)), None)
    except (InvalidOption, UnknownJob) as error:
        return Result(beginning, None, str(error))


async def _change_one(asked: Asked, verb: Verb, registry: Registry, job_id: str) -> Result:
    try:
        return Result(job_id, await verb.one(registry, job_id, _actor(asked)))
    except (IllegalMove, UnknownJob) as error:
        return Result(job_id, None, str(error))


class Named(Struct, frozen=True):
    """What became of a schedule or queue that was named."""

    name: str
    outcome: str | None
    """``None`` where nothing could be done."""
    error: str | None = None


def change_named(asked: Asked, kind: str, one: Callable[[Runner, str, str], Awaitable[str]]) -> int:
    """Do it to each that is named, given runner, name and actor; 1 when one is not there."""
    names = list(dict.fromkeys(asked.arguments.names))
    if not names:
        raise InvalidOption(f"name the {kind} to {asked.arguments.action}")

    async def work(runner: Runner) -> list[Named]:
        return [await _change_named(runner, name, _actor(asked), one) for name in names]

    results = _as_client(asked, work)
    if asked.screen.as_json:
        asked.screen.document({kind: results})
    for result in results:
        if result.error is not None:
            asked.screen.note(f"asyncjobs: {result.error}")
        elif not asked.screen.as_json:
            asked.screen.row(result.name, result.outcome or "")
    return 1 if any(result.error for result in results) else 0


async def _change_named(
    runner: Runner, name: str, actor: str, one: Callable[[Runner, str, str], Awaitable[str]]
) -> Named:
    try:
        return Named(name, await one(runner, name, actor))
    except (IllegalMove, TimeoutError, UnknownSchedule) as error:
        return Named(name, None, str(error))


def _as_client(
    asked: Asked, work: Callable[[Runner], Awaitable[T]], tasks: Sequence[Task[..., Any]] = ()
) -> T:
    """Do something with a runner that can change the database: one that is there, and ours."""
    database = asked.database
    # A client would make a database that is missing, and migrate one that is old.
    database.look(lambda connection: None)
    _check_owner(database.path)
    import asyncio  # only here: what only looks starts in half the time

    from ..runner import Runner

    async def main() -> T:
        runner = Runner(database.path)
        for task in tasks:
            runner.include(task)
        async with runner.client():
            return await work(runner)

    return asyncio.run(main())


def _check_owner(path: str) -> None:
    """Files that another user makes beside the database, the application cannot open.

    Raises:
        StoreUnavailable: the database belongs to somebody else.
    """
    owner, user = os.stat(path).st_uid, os.geteuid()
    if owner != user:
        raise StoreUnavailable(
            f"{path} belongs to {_name(owner)}, and this is {_name(user)}, whose lock files the "
            f"application could not open; run it as {_name(owner)}, as with "
            f"sudo -u '{_name(owner)}'"
        )


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"


def _actor(asked: Asked) -> str:
    given: str | None = asked.arguments.actor
    return f"{_name(os.getuid())}@{os.uname().nodename}" if given is None else given


def _jobs(count: Count) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"

"""What people do to jobs: written, acted upon in this process, and told to the others."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from heapq import merge
from itertools import islice
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from ..inventory import BulkResult
from ..running.context import Run
from ..running.mailbox import Mailboxes
from ..store.base import (
    Answer,
    ByHand,
    ByHandResult,
    Cancel,
    Change,
    Delete,
    Filter,
    Requeue,
    Slice,
    Store,
)
from ..store.group_commit import GroupCommit
from ..store.overview import AuditNote
from .dispatcher import Dispatcher
from .doorbell import Doorbell
from .resolver import GONE, Resolver
from .sweeper import Sweeper

PAGE_ROWS = 1_000
"""Jobs that are looked for at once."""
FIRST_SLICE_ROWS = 50
"""About 5 ms of the writer among a million jobs, when their pages are in memory."""
SLICE_ROWS_MIN, SLICE_ROWS_MAX = 10, 200
SLICE_SECONDS = 0.01
"""How long a slice may take: the writer's other work waits meanwhile."""

T = TypeVar("T")


class Live(Protocol):
    """The parts of an engine that what is done by hand has to do with."""

    @property
    def store(self) -> Store:
        """Where jobs are looked for."""
        ...

    commit: GroupCommit[Run]
    dispatcher: Dispatcher
    resolver: Resolver
    mailboxes: Mailboxes
    bell: Doorbell
    sweeper: Sweeper


async def change_by_hand(live: Live, operation: ByHand | Slice) -> ByHandResult:
    """Write a change, and tell runs and handles of this process."""
    return await _whole(_change(live, operation))


async def change_all(
    live: Live, change: Change, what: Filter, note: AuditNote | None, *, scan: bool
) -> BulkResult:
    """Make the change to every job that passes, a slice a transaction; only count without a note.

    Looking for jobs keeps the writer free: that is done by the page, and by another connection.
    """
    what = replace(what, seq_until=await live.store.last_seq())
    matched = changed = 0
    rows = FIRST_SLICE_ROWS
    in_order = isinstance(change, Requeue) and note is not None
    async with aclosing(_found(live, what, in_order=in_order, scan=scan)) as found:
        async for count, left in found:
            matched += count
            while note is not None and (seqs := list(islice(left, rows))):
                some = after(change, changed)
                result = await change_by_hand(live, Slice(some, note, what, seqs))
                changed += result.changed
                rows = next_rows(rows, result.seconds)
    if note is not None and not matched:
        await change_by_hand(live, Slice(change, note, what, ()))
    skipped = 0 if note is None else matched - changed
    return BulkResult(matched=matched, changed=changed, skipped=skipped, dry_run=note is None)


def after(change: Change, jobs: int) -> Change:
    """The change for those that come after so many jobs: retried ones are due one by one."""
    if isinstance(change, Requeue) and change.first_at is not None:
        return replace(change, first_at=change.first_at + jobs * change.gap)
    return change


def next_rows(rows: int, seconds: float) -> int:
    """How many rows the next slice has, when one of ``rows`` took ``seconds``."""
    if seconds > SLICE_SECONDS:
        return max(rows // 2, SLICE_ROWS_MIN)
    return min(rows * 2, SLICE_ROWS_MAX) if seconds < SLICE_SECONDS / 2 else rows


async def _found(
    live: Live, what: Filter, *, in_order: bool, scan: bool
) -> AsyncGenerator[tuple[int, Iterator[int]], None]:
    """Jobs that pass, and how many: page after page, or all ``in_order`` of their acceptance.

    That is how jobs are retried, those of an ordered key above all. No index has finished jobs in
    that order, so all are found before the first is retried. In the order of their ends one that
    was retried before would come late, and one that fails again meanwhile would be met again.
    """
    pages: list[array[int]] = []  # eight bytes a job
    cursor = None
    while True:
        page = await live.store.places(what, limit=PAGE_ROWS, cursor=cursor, scan=scan)
        pages.append(array("q", sorted(page.seqs) if in_order else page.seqs))
        cursor = page.cursor
        if cursor is None or not in_order:
            # Merged as they are asked for, many of them never hold up the event loop.
            yield sum(map(len, pages)), merge(*pages)
            pages.clear()
        if cursor is None:
            return


async def _change(live: Live, operation: ByHand | Slice) -> ByHandResult:
    write = live.commit.alone if isinstance(operation, Slice) else live.commit.execute
    result: ByHandResult = await write(operation)
    for job_id, answer in zip(result.ids, result.answers, strict=True):
        _act_upon(live, operation.change, job_id, answer)
    if isinstance(operation.change, Delete) and result.changed:
        await live.sweeper.sweep()
    if isinstance(operation.change, (Requeue, Delete)) and result.changed:
        live.dispatcher.wake()  # also for a job that waited for a permit of one that was deleted
        live.bell.tell_jobs()
    return result


def _act_upon(live: Live, change: Change, job_id: str, answer: Answer) -> None:
    match answer:
        case Answer("requeued"):
            live.mailboxes.forget(job_id)
        case Answer("deleted"):
            live.mailboxes.deliver(job_id, GONE)
            live.bell.tell_ended(job_id)
        case Answer("cancelled"):
            live.dispatcher.wake()  # a callback may follow
            live.bell.tell_jobs()
            live.resolver.refresh_one(job_id)
            live.bell.tell_ended(job_id)
        case Answer("requested", int(seq)) if isinstance(change, Cancel):
            live.dispatcher.cancel(seq, change.reason)
            live.bell.tell_cancels()


async def _whole(call: Coroutine[Any, Any, T]) -> T:
    """Let ``call`` end also when its awaiter is cancelled.

    What it has written must be acted upon: else a run that was asked to stop would never be told,
    and a job that was retried never looked for.
    """
    task = asyncio.ensure_future(call)
    # Its error has been seen: with the awaiter gone, asyncio would log it as never retrieved.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)

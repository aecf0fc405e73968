"""Queues at run time: pause, resume, drain, purge, and limits, from any process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Never

from msgspec import UNSET, UnsetType, json

from .changes import Changes
from .clock import MICROSECONDS, new_id
from .errors import InvalidOption
from .rules.limiting import Rate, check_rate, check_running
from .rules.limits import check_text, unknown_option
from .rules.ordering import check_ageing, check_weight
from .store.base import Filter
from .store.queueing import SetQueue
from .watching import follow

if TYPE_CHECKING:
    from .inventory import BulkResult, LimitStanding
    from .services.engine import Engine
    from .store.journal import Event

_ENDS = ("completed", "failed", "cancelled", "retrying", "snoozed", "deleted", "parked")
"""What can bring a queue nearer to having nothing to do."""

DRAIN_LOOK_SECONDS = 1.0
"""How often to look also without such an event: a window closes, a job is replaced, and the queue
is paused, without one."""


class QueueControl(Changes):
    """What the registry does to queues. Every change is noted in the audit."""

    async def pause_queue(self, queue: str, *, actor: str | None = None) -> None:
        """Let no job of the queue start any more, in any process; what runs goes on.

        Jobs are accepted as ever. It stays so, over restarts too, until :meth:`resume_queue`.
        """
        await self._set(queue, actor, "pause", paused=True)

    async def resume_queue(self, queue: str, *, actor: str | None = None) -> None:
        """Let the jobs of a paused queue start again."""
        await self._set(queue, actor, "resume", paused=False)

    async def set_queue(
        self,
        queue: str,
        *,
        running: int | UnsetType | None = UNSET,
        rate: Rate | UnsetType | None = UNSET,
        weight: int | UnsetType | None = UNSET,
        priority_ageing: float | timedelta | UnsetType | None = UNSET,
        actor: str | None = None,
        **unknown: Never,
    ) -> None:
        """Limit a queue, or set its share, for every start from now on, in all processes together.

        Args:
            running: jobs at once; 0 lets none start, ``None`` takes the limit away. What runs
                when a limit is lowered goes on.
            rate: starts in a period, such as ``Rate(100, per=60)``; ``None`` takes it away.
            weight: its share of the starts while other queues have due jobs too, from 1 to 1,000:
                with 3 and 1, three of four. As soon as one queue has a weight, those without one
                count as 1, and priorities and due times order each queue's own jobs alone.
            priority_ageing: seconds or timedelta, from 1: a waiting job counts one priority higher
                for each such span that it has been due, up to 100.
            actor: who asks, for the audit.

        What is left out stays as it is.

        Raises:
            InvalidOption: naming the option and its value, or when there is nothing to set.
        """
        if unknown:
            raise unknown_option(unknown, QueueControl.set_queue, "set_queue()")
        if running is rate is weight is priority_ageing is UNSET:
            raise InvalidOption(
                "set_queue has nothing to set: give running=, rate=, weight= or priority_ageing="
            )
        if not isinstance(running, UnsetType) and running is not None:
            check_running(running)
        if not isinstance(rate, UnsetType) and rate is not None:
            check_rate(rate)
        if not isinstance(weight, UnsetType) and weight is not None:
            check_weight(weight)
        ageing: int | UnsetType | None = None
        if priority_ageing is not None:
            ageing = UNSET if priority_ageing is UNSET else check_ageing(priority_ageing)
        await self._set(
            queue, actor, "set", running=running, rate=rate, weight=weight, ageing=ageing
        )

    async def drain_queue(self, queue: str, **unknown: Never) -> None:
        """Return once nothing of the queue runs or is due, in any process.

        Of a paused queue: once nothing of it runs. To empty a machine, pause, then drain. To wait
        for a time at most, put it into ``asyncio.timeout(...)``.

        Raises:
            InvalidOption: naming the option.
        """
        if unknown:
            raise InvalidOption(
                f"drain_queue() has no option {next(iter(unknown))!a}; to wait for a time at most: "
                "async with asyncio.timeout(...)"
            )
        check_text(queue, "queue")
        engine = self._runner.engine()
        after = await self._runner.cursor()
        events = _follow_queue(engine, after, queue)
        async with contextlib.aclosing(events):
            step: asyncio.Future[Any] = asyncio.ensure_future(anext(events, None))
            try:
                while not await self._drained(queue):
                    await asyncio.wait([step], timeout=DRAIN_LOOK_SECONDS)
                    if step.done():
                        step.result()
                        step = asyncio.ensure_future(anext(events, None))
            finally:
                step.cancel()
                await asyncio.wait([step])

    async def _drained(self, queue: str) -> bool:
        engine = self._runner.engine()
        store = engine.store
        if await store.count(["running"], queue=queue, task=None):
            return False
        if any(found.paused for found in await store.queues(most=1) if found.name == queue):
            # Once more: one may have started before the pause. Now none does any more.
            return not await store.count(["running"], queue=queue, task=None)
        # What runs once more: it may have been due a moment ago, when nothing ran.
        states = ("running", "queued", "blocked")
        unfinished = Filter(states=states, queue=queue, run_before=store.now() + 1)
        return not await store.count_rows(unfinished, most=1)

    async def purge_queue(
        self, queue: str, *, dry_run: bool = True, actor: str | None = None
    ) -> BulkResult:
        """Delete every job of the queue that waits; only count them, unless ``dry_run=False``.

        In slices, and noted, as ``delete_all`` of ``state=["queued", "blocked"]``.
        """
        return await self._runner.registry.delete_all(
            queue=check_text(queue, "queue"),
            state=["queued", "blocked"],
            dry_run=dry_run,
            actor=actor,
        )

    async def limit_of(self, job_id: str) -> LimitStanding | None:
        """How a job stands in the line of its limit's key; ``None`` when it has no limit.

        Who holds the permits, how many wait before it, and what keeps the key closed.

        Raises:
            UnknownJob: there is no such row.
        """
        standing = await self._runner.engine().store.limit_of(job_id)
        if standing is None:
            await self._runner.registry.get(job_id)
        return standing

    async def _set(
        self,
        queue: str,
        actor: str | None,
        action: str,
        *,
        paused: bool | UnsetType = UNSET,
        running: int | UnsetType | None = UNSET,
        rate: Rate | UnsetType | None = UNSET,
        weight: int | UnsetType | None = UNSET,
        ageing: int | UnsetType | None = UNSET,
    ) -> None:
        engine = self._runner.engine()
        what: dict[str, object] = {"queue": check_text(queue, "queue")}
        what |= {"running": running} if running is not UNSET else {}
        what |= {"rate": rate} if rate is not UNSET else {}
        what |= {"weight": weight} if weight is not UNSET else {}
        if not isinstance(ageing, UnsetType):
            what["priority_ageing"] = None if ageing is None else ageing / MICROSECONDS
        operation = SetQueue(
            queue=queue,
            note_id=new_id(self._runner.clock.now()),
            actor=None if actor is None else check_text(actor, "actor"),
            action=action,
            what=json.encode(what).decode(),
            paused=paused,
            running=running,
            pace=rate.pace() if isinstance(rate, Rate) else rate,
            weight=weight,
            ageing=ageing,
        )
        await engine.commit.execute(operation)
        engine.dispatcher.wake()
        engine.bell.tell_jobs()


async def _follow_queue(engine: Engine, after: str, queue: str) -> AsyncGenerator[Event, None]:
    async for event in follow(engine, after, task=None, kinds=_ENDS, job_id=None):
        if event.queue == queue:
            yield event

"""A store on a clock that is moved by hand, and short words for what the tests do to it."""

from __future__ import annotations

from typing import Any

from asyncjobs.clock import MICROSECONDS, new_id
from asyncjobs.records import Accepted, Claimed, ErrorRecord, Job, NewJob, Transition
from asyncjobs.states import Event
from asyncjobs.store.base import (
    Answer,
    Cancel,
    Claim,
    ClaimResult,
    Filter,
    Insert,
    Operation,
    Order,
    Report,
    Rescue,
    Rescued,
    Store,
)
from asyncjobs.testing import ManualClock

SECOND = MICROSECONDS
TASKS = {"add": "coroutine", "mul": "coroutine", "read": "thread"}
PLENTY = {"coroutine": 100, "thread": 100}
ERROR = ErrorRecord("ValueError", "no", "Traceback: no")


def new_job(clock: ManualClock, **options: Any) -> NewJob[Any]:
    """A job of task ``add`` in queue ``default``, if not said otherwise."""
    now = clock.now()
    return NewJob(
        **{
            "id": new_id(now),
            "task": "add",
            "arguments": '{"left":1,"right":2}',
            "queue": "default",
            "created_at": now,
            **options,
        }
    )


class Desk:
    """One store, and what one instance says to it."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock

    def job(self, **options: Any) -> NewJob[Any]:
        """A job that is not inserted yet."""
        return new_job(self.clock, **options)

    async def do(self, operation: Operation) -> Any:
        """Write one operation; its result."""
        (result,) = await self.store.write([operation])
        return result

    async def insert(self, *jobs: NewJob[Any], together: bool = False) -> list[Accepted | None]:
        """Insert these; for each ``None``, or what was there already."""
        accepted: list[Accepted | None] = await self.do(Insert(jobs, together=together))
        return accepted

    async def add(self, **options: Any) -> str:
        """Insert one job; its id."""
        job = self.job(**options)
        await self.insert(job)
        return job.id

    async def claim(
        self,
        instance: str = "here",
        *,
        tasks: dict[str, str] | None = None,
        room: dict[str, int] | None = None,
        queues: tuple[str, ...] | None = None,
        **more: Any,
    ) -> ClaimResult:
        """Claim for the tasks of this kit, with room for plenty, if not said otherwise."""
        result: ClaimResult = await self.do(
            Claim(
                instance,
                TASKS if tasks is None else tasks,
                PLENTY if room is None else room,
                queues,
                **more,
            )
        )
        return result

    async def start(self, instance: str = "here", **options: Any) -> Claimed:
        """Insert one job and claim it, alone."""
        await self.add(**options)
        (claimed,) = (await self.claim(instance)).jobs
        return claimed

    async def report(self, *transitions: Transition, instance: str = "here") -> list[str]:
        """Report these."""
        answers: list[str] = await self.do(Report(instance, transitions))
        return answers

    async def end(
        self, run: Claimed, event: Event = Event.COMPLETED, *, instance: str = "here", **more: Any
    ) -> str:
        """Report one run's transition; the answer."""
        (answer,) = await self.report(self.move(run, event, **more), instance=instance)
        return answer

    def move(self, run: Claimed, event: Event = Event.COMPLETED, **more: Any) -> Transition:
        """A transition of a run, with what the rules would put in."""
        if event in (Event.FAILED, Event.RETRYING):
            more = {"error": ERROR, "reason": "error", **more}
        if event in (Event.SNOOZED, Event.RELEASED):
            more = {"uncharge": True, "reason": event.value, **more}
        if event in (Event.RETRYING, Event.SNOOZED, Event.RELEASED):
            more = {"run_at": self.clock.now(), **more}
        return Transition(
            seq=run.seq,
            claim=run.claim,
            queue=run.queue,
            task=run.task,
            event=event,
            at=self.clock.now(),
            **more,
        )

    async def finished(self, event: Event = Event.COMPLETED, **options: Any) -> str:
        """Insert, claim and end one job; its id."""
        if event is Event.CANCELLED:
            job_id = await self.add(**options)
            await self.cancel(job_id)
            return job_id
        run = await self.start(**options)
        assert await self.end(run, event) == "done"
        return run.id

    async def cancel(self, *ids: str, reason: str = "user") -> list[Answer]:
        """Cancel by id."""
        answers: list[Answer] = await self.do(Cancel(ids, reason))
        return answers

    async def rescue(self, instance: str = "here", **options: Any) -> Rescued:
        """Take over what an instance ran."""
        rescued: Rescued = await self.do(Rescue(instance, "its process died", **options))
        return rescued

    async def get(self, job_id: str) -> Job:
        """One job that is there."""
        job = await self.store.get(job_id)
        assert job is not None
        return job

    async def count(
        self, state: str | None = None, queue: str | None = None, task: str | None = None
    ) -> int:
        """From the counters."""
        return await self.store.count([state] if state else [], queue=queue, task=task)

    async def listed(
        self,
        *,
        order: Order | None = None,
        limit: int = 1_000,
        cursor: str | None = None,
        **what: Any,
    ) -> list[str]:
        """Ids of one page."""
        page = await self.store.list(Filter(**what), order=order, limit=limit, cursor=cursor)
        return [job.id for job in page.jobs]

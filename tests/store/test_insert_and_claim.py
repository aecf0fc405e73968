"""Insert and claim in one operation is the same as one after the other."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncjobs.clock import new_id
from asyncjobs.records import NewJob
from asyncjobs.store.base import Claim, ClaimResult, Filter, Insert, InsertAndClaim
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import SECOND, TASKS, Desk

CLOCK = ManualClock()


def job_of(
    task: str, queue: str, priority: int, delay: int | None, at: int | None, key: str | None
) -> NewJob[Any]:
    return NewJob(
        id=new_id(CLOCK.now()),
        task=task,
        arguments="{}",
        queue=queue,
        created_at=CLOCK.now(),
        priority=priority,
        delay=delay,
        run_at=None if at is None else CLOCK.now() + at,
        key=key,
    )


JOBS = st.lists(
    st.builds(
        job_of,
        task=st.sampled_from(["add", "add", "mul", "read", "strange"]),
        queue=st.sampled_from(["default", "default", "mail"]),
        priority=st.sampled_from([0, 0, 0, 5]),
        delay=st.sampled_from([None, None, None, 0, SECOND]),
        at=st.sampled_from([None, None, None, -SECOND, SECOND]),
        key=st.sampled_from([None, None, "k"]),
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None, print_blob=True)
@given(
    before=JOBS,
    jobs=JOBS,
    room=st.fixed_dictionaries({}, optional={"coroutine": st.integers(0, 6), "thread": st.just(2)}),
    queues=st.sampled_from([None, None, ("default",), ("mail", "other")]),
    again=st.booleans(),
)
async def test_together_is_the_same_as_one_after_the_other(
    before: list[NewJob[Any]],
    jobs: list[NewJob[Any]],
    room: dict[str, int],
    queues: tuple[str, ...] | None,
    again: bool,
) -> None:
    if again and before:
        jobs = [*jobs, before[0]]
    insert, claim = Insert(jobs), Claim("here", TASKS, room, queues)

    async def states(*operations: Any) -> tuple[Any, ClaimResult, list[Any]]:
        store = SQLiteStore(":memory:", clock=CLOCK)
        await store.open()
        await store.write([Insert(before)])
        results = await store.write(operations)
        accepted, claimed = results if len(results) == 2 else results[0]
        rows = (await store.list(Filter(), limit=100, cursor=None)).jobs
        assert await store.check() == []
        await store.close()
        return accepted, claimed, [(r.id, r.state, r.claim, r.attempt, r.run_at) for r in rows]

    accepted, claimed, rows = await states(InsertAndClaim(insert, claim))
    accepted_apart, claimed_apart, rows_apart = await states(insert, claim)
    assert accepted == accepted_apart
    assert claimed.jobs == claimed_apart.jobs
    assert rows == rows_apart


async def test_job_that_starts_at_once_has_an_ordinary_history(desk: Desk) -> None:
    job = desk.job(key="k", tags=("t",))
    pair = InsertAndClaim(Insert([job]), Claim("here", TASKS, {"coroutine": 1}))
    (result,) = await desk.store.write([pair])
    assert result[0] == [None]
    (run,) = result[1].jobs
    assert (run.claim, run.attempt) == (1, 1)
    assert await desk.end(run, result="1") == "done"
    (attempt,) = await desk.store.attempts(job.id)
    assert (attempt.number, attempt.instance) == (1, "here")
    assert await desk.listed(tags_all=("t",)) == [job.id]

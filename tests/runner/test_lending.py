"""Jobs that await jobs lend their slot meanwhile, and slots balance afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncjobs import (
    JobCancelled,
    JobFailed,
    JobHandle,
    JobTimedOut,
    Runner,
    Tasks,
    current_job,
)
from asyncjobs.testing import run_until_idle

from .support import until

ONE = pytest.mark.parametrize("runner", [{"concurrency": 1}], indirect=True)
TWO = pytest.mark.parametrize("runner", [{"concurrency": 2}], indirect=True)

tasks = Tasks()


class Pool:
    """How many bodies run between two awaits of handles, and the most that ever did."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)

    async def __aexit__(self, *error: object) -> None:
        self.now -= 1


@tasks.task
async def child(number: int) -> int:
    await asyncio.sleep(0)
    return number


@tasks.task
async def stuck() -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    runner.include(tasks)


async def assert_balanced(runner: Runner, concurrency: int) -> None:
    """Exactly ``concurrency`` jobs can run at once: no slot was lost, none was made."""
    gate, running = asyncio.Event(), 0

    @runner.task(name="probe")
    async def probe() -> None:
        nonlocal running
        running += 1
        await gate.wait()

    handles = await runner.enqueue_many([probe.job() for _ in range(concurrency + 3)])
    await until(lambda: running == concurrency)
    await child.enqueue(0)  # one more flush, in which more could be claimed
    await runner.registry.count()
    assert running == concurrency
    gate.set()
    await asyncio.gather(*(handle.result() for handle in handles))
    await run_until_idle(runner)


@ONE
async def test_parent_that_awaits_a_hundred_children_one_by_one_completes(runner: Runner) -> None:
    @runner.task
    async def parent() -> int:
        return sum([await (await child.enqueue(number)) for number in range(100)])

    assert await (await parent.enqueue()) == 4950
    await assert_balanced(runner, 1)


@ONE
async def test_parent_that_gathers_a_hundred_children_completes(runner: Runner) -> None:
    @runner.task
    async def parent() -> int:
        handles = await runner.enqueue_many([child.job(number) for number in range(100)])
        return sum(await asyncio.gather(*handles))

    assert await (await parent.enqueue()) == 4950
    await assert_balanced(runner, 1)


@ONE
async def test_three_levels_of_parents_in_one_slot_complete(runner: Runner) -> None:
    @runner.task
    async def middle(number: int) -> int:
        return sum(await asyncio.gather(*[await child.enqueue(number) for _ in range(3)]))

    @runner.task
    async def top() -> int:
        return sum(await asyncio.gather(*[await middle.enqueue(n) for n in range(4)]))

    handles = [await top.enqueue() for _ in range(3)]

    assert await asyncio.gather(*handles) == [18, 18, 18]
    await assert_balanced(runner, 1)


@TWO
async def test_bodies_beside_awaits_are_never_more_than_the_slots(runner: Runner) -> None:
    pool = Pool()

    @runner.task
    async def leaf() -> None:
        async with pool:
            await asyncio.sleep(0)

    @runner.task
    async def parent() -> None:
        for _ in range(5):
            async with pool:
                handle = await leaf.enqueue()
            await handle
        async with pool:
            pass

    handles = await runner.enqueue_many([parent.job() for _ in range(20)])
    await asyncio.gather(*handles)

    assert pool.most <= 2
    await assert_balanced(runner, 2)


@ONE
async def test_result_with_a_timeout_inside_a_job_balances(runner: Runner) -> None:
    @runner.task
    async def parent() -> str:
        handle = await stuck.enqueue()
        try:
            await handle.result(timeout=0.01)
        except TimeoutError:
            await handle.cancel()
        return (await handle.wait()).state

    for _ in range(3):
        assert await (await parent.enqueue()) == "cancelled"
    await assert_balanced(runner, 1)


@ONE
async def test_parent_cancelled_while_it_lends_its_slot_balances(runner: Runner) -> None:
    @runner.task
    async def parent() -> None:
        await (await stuck.enqueue())

    handle = await parent.enqueue()
    await until(lambda: runner.tally.started == 2)
    await handle.cancel()
    with pytest.raises(JobCancelled):
        await handle
    page = await runner.registry.list(task=stuck.name, state="running")
    await runner.handle(page.jobs[0].id).cancel()
    await run_until_idle(runner)

    await assert_balanced(runner, 1)


@ONE
async def test_parent_timed_out_while_it_lends_its_slot_balances(runner: Runner) -> None:
    @runner.task(timeout=0.02)
    async def parent() -> None:
        await (await stuck.options(timeout=0.05).enqueue())

    with pytest.raises(JobTimedOut):
        await (await parent.enqueue())
    await run_until_idle(runner)

    await assert_balanced(runner, 1)


@ONE
async def test_failed_child_raises_in_the_parent_and_balances(runner: Runner) -> None:
    @runner.task
    async def fails() -> None:
        raise ValueError("no")

    @runner.task
    async def parent() -> str:
        handles: list[JobHandle[Any]] = [await fails.enqueue()]
        handles += [await child.enqueue(n) for n in range(5)]
        with pytest.raises(JobFailed):
            await asyncio.gather(*handles)
        return "went on"

    assert await (await parent.enqueue()) == "went on"
    await run_until_idle(runner)
    await assert_balanced(runner, 1)


@ONE
async def test_task_left_behind_by_a_job_does_not_make_a_slot(runner: Runner) -> None:
    left: list[asyncio.Task[None]] = []

    async def behind(job_id: str) -> None:
        await runner.handle(job_id)

    @runner.task
    async def parent() -> str:
        handle = await stuck.enqueue()
        left.append(asyncio.create_task(behind(handle.id)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return handle.id

    stuck_id = await (await parent.enqueue())
    await until(lambda: runner.tally.started == 2)
    late = await child.enqueue(1)
    await runner.registry.count()
    early = (await late.job()).state
    await runner.handle(stuck_id).cancel()
    await asyncio.wait(left)

    assert early == "queued"
    assert isinstance(left[0].exception(), JobCancelled)
    await run_until_idle(runner)
    await assert_balanced(runner, 1)


@ONE
async def test_awaiting_a_finished_job_keeps_the_slot(runner: Runner) -> None:
    done = await child.enqueue(1)
    await done

    @runner.task
    async def parent() -> int:
        first: int = await runner.handle(done.id)
        return first + await done

    assert await (await parent.enqueue()) == 2
    await assert_balanced(runner, 1)


@ONE
async def test_child_task_of_a_job_is_inside_the_job(runner: Runner) -> None:
    @runner.task
    async def parent() -> bool:
        async def ask() -> str:
            return current_job().id

        return await asyncio.create_task(ask()) == current_job().id

    assert await (await parent.enqueue()) is True


@ONE
async def test_job_that_awaits_itself_can_be_cancelled(runner: Runner) -> None:
    @runner.task
    async def narcissus() -> None:
        await runner.handle(current_job().id)

    handle = await narcissus.enqueue()
    await until(lambda: runner.tally.started == 1)
    await handle.cancel()

    with pytest.raises(JobCancelled):
        await handle
    await assert_balanced(runner, 1)

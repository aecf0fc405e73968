"""A first test, replaced by the suite."""

from asyncjobs import Runner
from asyncjobs.testing import run_until_idle


async def test_a_job_runs(runner: Runner) -> None:
    @runner.task
    async def double(number: int) -> int:
        return number * 2

    handle = await double.enqueue(4)
    await run_until_idle(runner)
    assert await handle == 8
    assert await runner.registry.check() == []

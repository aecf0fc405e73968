"""A job that awaits another one of its own limit's key, which has no place left for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncjobs import JobCancelled, JobFailed, JobHandle, Limit, Runner, Tasks, current_job

from .support import until

tasks = Tasks()


class House:
    """What goes on in a runner's jobs."""

    def __init__(self) -> None:
        self.children: dict[str, JobHandle[str]] = {}
        self.inside: list[str] = []
        self.enough = asyncio.Event()
        """All are inside who hold places."""
        self.leave = asyncio.Event()


@tasks.task(name="child")
async def child(tenant: str) -> str:
    return f"child of {tenant}"


@tasks.task(name="parent")
async def parent(tenant: str, word: str, child_of: str, running: int, ordered: bool) -> str:
    limit = Limit(key="tenant", name="home", running=running, ordered=ordered)
    house: House = current_job().state
    house.inside.append(word)
    await house.enough.wait()
    made = await child.options(limit=limit).enqueue(child_of)
    house.children[word] = made
    return await made


@tasks.task(name="guest")
async def guest(tenant: str, word: str) -> None:
    house: House = current_job().state
    house.inside.append(word)
    await house.leave.wait()


def home(running: int, *, ordered: bool = False) -> Limit:
    return Limit(key="tenant", name="home", running=running, ordered=ordered)


async def start_parent(
    word: str, *, running: int, ordered: bool = False, child_of: str = "a"
) -> JobHandle[str]:
    options = parent.options(limit=home(running, ordered=ordered))
    return await options.enqueue("a", word, child_of, running, ordered)


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def runner(tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr("asyncjobs.services.standstill.LOOK_SECONDS", 0.0)
    runner = Runner(tmp_path / "jobs.db", state=house, grace=0)
    runner.include(tasks)
    return runner


Warned = Callable[[], list[str]]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Warned:
    """The warnings until now."""
    return lambda: [
        record.getMessage() for record in caplog.records if "waits for job" in record.getMessage()
    ]


async def looked() -> None:
    """Return once every look that has begun, or is about to, is over."""
    for _ in range(10):
        await asyncio.sleep(0)
    await until(
        lambda: not any(t.get_name() == "asyncjobs-standstill" for t in asyncio.all_tasks())
    )


@pytest.mark.parametrize("ordered", [False, True])
async def test_job_that_awaits_one_of_its_own_full_key_is_warned_of(
    runner: Runner, house: House, warned: Warned, *, ordered: bool
) -> None:
    house.enough.set()
    async with runner:
        waits = await start_parent("p", running=1, ordered=ordered)
        await until(warned)
        awaited = house.children["p"]
        found = await runner.registry.explain(awaited.id)
        assert found.data["holders"] == (waits.id,)
        assert waits.id in found.sentence
        await waits.cancel()
        with pytest.raises(JobCancelled):
            await waits
        assert await awaited == "child of a"
    (text,) = warned()
    assert text.startswith(f"job {waits.id} waits for job {awaited.id}, which cannot start")
    assert "'home'" in text
    assert "(running=1)" in text


async def test_jobs_that_wait_like_this_in_all_places_of_a_key_are_warned_of(
    runner: Runner, house: House, warned: Warned
) -> None:
    async with runner:
        first, second = [await start_parent(word, running=2) for word in ("first", "second")]
        await until(lambda: len(house.inside) == 2)
        house.enough.set()
        await until(warned)
        await looked()
        await first.cancel()
        assert await second == "child of a"
    assert all("(running=2)" in text for text in warned())


async def test_job_in_a_thread_that_awaits_one_of_its_own_full_key_is_warned_of(
    runner: Runner, warned: Warned
) -> None:
    @runner.task(name="in a thread", limit=home(1))
    def in_a_thread(tenant: str) -> str:
        async def enqueue_and_wait() -> str:
            return await (await child.options(limit=home(1)).enqueue(tenant))

        return asyncio.run_coroutine_threadsafe(enqueue_and_wait(), runner.loop).result()

    async with runner:
        waits = await in_a_thread.enqueue("a")
        await until(warned)
        (awaited,) = (await runner.registry.list(task="child")).jobs
        await runner.registry.cancel(awaited.id)
        with pytest.raises(JobFailed):
            await waits


async def test_place_that_another_job_will_leave_is_no_standstill(
    runner: Runner, house: House, warned: Warned
) -> None:
    async with runner:
        waits = await start_parent("p", running=2)
        await guest.options(limit=home(2)).enqueue("a", "guest")
        await until(lambda: len(house.inside) == 2)
        house.enough.set()
        await until(lambda: house.children)
        assert (await house.children["p"].job()).reason == "limit"
        await looked()
        house.leave.set()
        assert await waits == "child of a"
    assert warned() == []


async def test_place_that_is_taken_in_another_process_is_no_standstill_as_far_as_is_known(
    runner: Runner, house: House, warned: Warned, tmp_path: Path
) -> None:
    other = Runner(tmp_path / "jobs.db", grace=0, queues=["there"])

    @other.task(name="elsewhere", queue="there", limit=home(2))
    async def elsewhere(tenant: str) -> None:
        house.inside.append("elsewhere")
        await house.leave.wait()

    async with other, runner:
        await elsewhere.enqueue("a")
        waits = await start_parent("p", running=2)
        await until(lambda: len(house.inside) == 2)
        house.enough.set()
        await until(lambda: house.children)
        assert (await house.children["p"].job()).reason == "limit"
        await looked()
        house.leave.set()
        assert await waits == "child of a"
    assert warned() == []


async def test_job_of_another_key_starts_and_nobody_is_warned(
    runner: Runner, house: House, warned: Warned
) -> None:
    house.enough.set()
    async with runner:
        assert await (await start_parent("p", running=1, child_of="b")) == "child of b"
        await looked()
    assert warned() == []

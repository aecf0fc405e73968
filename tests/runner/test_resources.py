"""What jobs share: set up before they run, there meanwhile, torn down after they have ended."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import anyio
import pytest

from asyncjobs import (
    InvalidOption,
    JobFailed,
    Resource,
    ResourceFailed,
    Runner,
    RunnerClosed,
    RunnerNotStarted,
    Tasks,
    current_job,
)
from asyncjobs.running.resources import ResourceSet

from .support import census, nothing_left, until


class Client:
    """Something to share, which notes its life."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def __aenter__(self) -> Self:
        self.notes.append(f"open {self.name}")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.notes.append(f"close {self.name}")


def client_of(tasks: Tasks, name: str, notes: list[str]) -> Resource[Client]:
    @tasks.resource
    async def client() -> AsyncIterator[Client]:
        async with Client(name, notes) as value:
            yield value

    return client


async def test_jobs_and_their_threads_get_what_was_set_up(tmp_path: Path) -> None:
    tasks = Tasks()
    client = client_of(tasks, "http", [])

    @tasks.task
    async def in_the_loop() -> str:
        return client.get().name

    @tasks.task
    def in_a_thread() -> str:
        return client.get().name

    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)
    async with runner:
        assert await (await in_the_loop.enqueue()) == "http"
        assert await (await in_a_thread.enqueue()) == "http"
        assert client.get().name == "http"  # in a request handler, say


async def test_resources_are_set_up_in_order_before_jobs_and_torn_down_after_them(
    tmp_path: Path,
) -> None:
    notes: list[str] = []
    tasks = Tasks()
    client_of(tasks, "a", notes)
    client_of(tasks, "b", notes)

    @tasks.task(name="note")
    async def note() -> None:
        dispatcher = runner.engine().dispatcher
        notes.append("job begins")
        await until(lambda: dispatcher.draining)  # the block below has ended
        notes.append("job ends")

    before = census(tmp_path)
    async with Runner(tmp_path / "jobs.db", queues=["others"]) as filler:
        filler.include(note)
        await note.enqueue()
    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)

    async with runner:
        await until(lambda: "job begins" in notes)

    assert notes == ["open a", "open b", "job begins", "job ends", "close b", "close a"]
    await nothing_left(before, tmp_path)


async def test_a_resource_may_use_those_declared_before_it(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    notes: list[str] = []

    @runner.resource
    async def pool() -> AsyncIterator[str]:
        yield "pool"
        notes.append("pool closed")

    @runner.resource
    async def cache() -> AsyncIterator[str]:
        yield f"cache on {pool.get()}"
        notes.append(f"cache left {pool.get()}")

    async with runner:
        assert cache.get() == "cache on pool"

    assert notes == ["cache left pool", "pool closed"]


async def test_the_outcomes_are_on_disk_and_nothing_is_held_when_teardown_begins(
    tmp_path: Path,
) -> None:
    seen: list[Any] = []
    runner = Runner(tmp_path / "jobs.db")

    @runner.resource
    async def witness() -> AsyncIterator[None]:
        yield
        with sqlite3.connect(tmp_path / "jobs.db") as database:
            seen.extend(database.execute("SELECT state FROM asyncjobs_jobs"))
        database.close()
        seen.append(list((tmp_path / "jobs.db-runners").iterdir()))
        raise ConnectionError("the other side is gone")

    @runner.task
    async def job() -> None: ...

    async with runner:
        await job.enqueue()

    assert seen == [("completed",), []]


async def test_a_failing_teardown_is_logged_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[str] = []
    tasks = Tasks()
    client_of(tasks, "a", notes)

    @tasks.resource
    async def fragile() -> AsyncIterator[None]:
        yield
        raise ConnectionError("the other side is gone")

    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)
    async with runner:
        pass

    assert notes == ["open a", "close a"]
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "teardown of resource" in record.getMessage()
    assert "fragile" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ConnectionError)


async def test_a_failing_setup_fails_the_start_and_tears_the_earlier_ones_down(
    tmp_path: Path,
) -> None:
    before = census(tmp_path)
    notes: list[str] = []
    tasks = Tasks()
    client = client_of(tasks, "a", notes)

    @tasks.resource
    async def broken() -> AsyncIterator[None]:
        raise ConnectionError("no such host")
        yield

    client_of(tasks, "never", notes)
    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)

    with pytest.raises(
        ResourceFailed, match=r"broken' could not be set up.*no such host"
    ) as caught:
        await runner.start()

    assert isinstance(caught.value.__cause__, ConnectionError)
    assert notes == ["open a", "close a"]
    with pytest.raises(RunnerNotStarted):
        client.get()
    del caught
    await nothing_left(before, tmp_path)


async def test_a_setup_whose_error_cannot_be_shown_fails_the_start_like_any_other(
    tmp_path: Path,
) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

    runner = Runner(tmp_path / "jobs.db")

    @runner.resource
    async def broken() -> AsyncIterator[None]:
        raise Unspeakable
        yield

    with pytest.raises(ResourceFailed, match="Unspeakable: <its __str__ raised>"):
        await runner.start()


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_a_start_that_is_cancelled_during_a_setup_leaves_nothing(
    tmp_path: Path, kind: str
) -> None:
    before = census(tmp_path)
    notes: list[str] = []
    tasks = Tasks()
    client_of(tasks, "a", notes)
    begun, gate = threading.Event(), threading.Event()

    async def endless() -> AsyncIterator[None]:
        begun.set()
        await asyncio.Event().wait()
        yield

    def blocking() -> Iterator[None]:
        begun.set()
        gate.wait()
        yield

    tasks.resource(endless) if kind == "coroutine" else tasks.resource(blocking)
    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)
    starting = asyncio.create_task(runner.start())
    await until(begun.is_set)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert notes == ["open a", "close a"]
    gate.set()
    await nothing_left(before, tmp_path)


async def test_a_stop_during_a_setup_ends_the_start_and_a_new_one_is_not_lost(
    tmp_path: Path,
) -> None:
    before = census(tmp_path)
    tasks = Tasks()
    begun: list[int] = []

    async def endless_at_first() -> AsyncIterator[None]:
        begun.append(1)
        if len(begun) == 1:
            await asyncio.Event().wait()
        yield

    tasks.resource(endless_at_first)
    runner = Runner(tmp_path / "jobs.db", grace=0.1)
    runner.include(tasks)

    async def restart() -> None:
        await runner.stop()
        await runner.start()

    starting = asyncio.create_task(runner.start())
    await until(lambda: begun)
    restarting = asyncio.create_task(restart())
    await asyncio.sleep(0)
    starting.cancel()  # as the host gives the first start up; the second is somebody else's
    with pytest.raises((asyncio.CancelledError, RunnerClosed)):
        await starting
    await restarting
    assert runner.healthy
    await runner.stop()
    del starting, restarting
    await nothing_left(before, tmp_path)


async def test_a_setup_that_stops_its_runner_does_not_wait_for_itself(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db", grace=0.1)

    @runner.resource
    async def suicidal() -> AsyncIterator[None]:
        await runner.stop()
        yield

    with pytest.raises(RunnerClosed, match="stopped while it started"):
        await runner.start()


@pytest.mark.parametrize("error", [GeneratorExit, SystemExit])
async def test_whatever_a_setup_raises_fails_the_start(
    tmp_path: Path, error: type[BaseException]
) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.resource
    async def odd() -> AsyncIterator[None]:
        raise error
        yield

    with pytest.raises(ResourceFailed, match=error.__name__):
        await runner.start()


async def test_setup_and_teardown_happen_in_one_asyncio_task(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    beats: list[int] = []

    @runner.resource
    async def heart() -> AsyncIterator[anyio.abc.TaskGroup]:
        async with anyio.create_task_group() as group:  # fails when it is left elsewhere
            yield group
            group.cancel_scope.cancel()

    @runner.task
    async def beat() -> None:
        heart.get().start_soon(asyncio.sleep, 3600)
        beats.append(1)

    async with runner:
        await (await beat.enqueue())

    assert beats == [1]


async def test_a_resource_that_ends_by_itself_fails_its_jobs_and_not_the_runner(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(tmp_path / "jobs.db")
    gate = asyncio.Event()

    async def die() -> None:
        await gate.wait()
        raise ConnectionError("the link is down")

    @runner.resource
    async def link() -> AsyncIterator[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(die)
            yield "link"

    @runner.task
    async def use() -> str:
        return link.get()

    @runner.task
    async def other() -> int:
        return 1

    async with runner:
        assert await (await use.enqueue()) == "link"
        gate.set()
        await until(lambda: "has ended although" in caplog.text)
        with pytest.raises(JobFailed, match="has ended although the runner runs on"):
            await (await use.enqueue())
        assert await (await other.enqueue()) == 1


async def test_a_teardown_that_hangs_is_cancelled_and_one_that_refuses_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes: list[str] = []
    gate = asyncio.Event()
    tasks = Tasks()
    client_of(tasks, "a", notes)

    @tasks.resource
    async def hanging() -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    @tasks.resource
    async def stubborn() -> AsyncIterator[None]:
        yield
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                notes.append("refused")

    async with asyncio.timeout(5):
        async with ResourceSet(tasks.resources, teardown_seconds=0.02):
            pass

    assert notes == ["open a", "refused", "close a"]
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition("; ")[2] for text in said] == [
        "it is cancelled",
        "it is left behind",
        "it is cancelled",
    ]
    gate.set()
    left = [task for task in asyncio.all_tasks() if "stubborn" in task.get_name()]
    await asyncio.wait(left)


async def test_a_plain_generator_has_one_thread_from_setup_to_teardown(tmp_path: Path) -> None:
    before = census(tmp_path)
    threads: list[threading.Thread] = []
    runner = Runner(tmp_path / "jobs.db")

    @runner.resource
    def table() -> Iterator[dict[str, int]]:
        threads.append(threading.current_thread())
        # Refuses to be closed in another thread.
        connection = sqlite3.connect(tmp_path / "app.db")
        yield {"a": 1}
        threads.append(threading.current_thread())
        connection.close()

    async with runner:
        assert table.get() == {"a": 1}

    assert threads[0] is threads[1]
    assert threads[0] is not threading.main_thread()
    await nothing_left(before, tmp_path)


async def test_a_plain_generator_that_blocks_at_its_end_cannot_hang_the_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = Tasks()
    gate = threading.Event()

    @tasks.resource
    def blocking() -> Iterator[int]:
        yield 1
        gate.wait()

    async with asyncio.timeout(5):
        async with ResourceSet(tasks.resources, teardown_seconds=0.02):
            assert blocking.get() == 1

    assert "does not end within its time" in caplog.text
    gate.set()


async def test_a_plain_generator_that_fails_says_so(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.resource
    def broken() -> Iterator[int]:
        raise OSError("no such device")
        yield 1

    with pytest.raises(ResourceFailed, match="no such device") as caught:
        await runner.start()

    assert isinstance(caught.value.__cause__, OSError)


async def test_every_start_sets_up_anew(tmp_path: Path) -> None:
    notes: list[str] = []
    tasks = Tasks()
    client = client_of(tasks, "a", notes)
    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)

    values = []
    for _ in range(2):
        async with runner:
            values.append(client.get())

    assert values[0] is not values[1]
    assert notes == ["open a", "close a"] * 2


async def test_two_runners_have_a_resource_each_and_a_job_gets_its_own(tmp_path: Path) -> None:
    tasks = Tasks()

    @tasks.resource
    async def place() -> AsyncIterator[object]:
        yield object()

    @tasks.task
    async def in_the_loop() -> int:
        return id(place.get())

    @tasks.task
    def in_a_thread() -> int:
        return id(place.get())

    runners = [Runner(tmp_path / f"{n}.db") for n in range(2)]
    for runner in runners:
        runner.include(tasks)

    async with runners[0]:
        first = id(place.get())
        async with runners[1]:
            with pytest.raises(InvalidOption, match="2 running runners"):
                place.get()
            for task in (in_the_loop, in_a_thread):
                found = [await (await runner.enqueue(task.job())) for runner in runners]
                assert found[0] == first
                assert found[1] != first


async def test_the_state_given_to_the_runner_stays(tmp_path: Path) -> None:
    tasks = Tasks()
    client_of(tasks, "a", [])
    runner = Runner(tmp_path / "jobs.db", state="the state")
    runner.include(tasks)

    @runner.task
    async def job() -> str:
        return str(current_job().state)

    async with runner:
        assert await (await job.enqueue()) == "the state"


def test_getting_without_a_runner_says_what_to_do() -> None:
    tasks = Tasks()
    client = client_of(tasks, "a", [])

    with pytest.raises(RunnerNotStarted, match=r"client' is not open.*when a runner that has it"):
        client.get()
    assert "client" in repr(client)


async def test_a_resource_of_a_running_runner_comes_too_late(runner: Runner) -> None:
    tasks = Tasks()
    client_of(tasks, "a", [])

    @tasks.task
    async def job() -> None: ...

    with pytest.raises(InvalidOption, match="comes too late"):
        runner.include(tasks)
    assert dict(runner.tasks) == {}
    with pytest.raises(InvalidOption, match="comes too late"):

        @runner.resource
        async def late() -> AsyncIterator[None]:
            yield


included = Tasks()


@included.resource
async def number() -> AsyncIterator[int]:
    yield 42


@included.task
async def read_number() -> int:
    return number.get()


@pytest.mark.parametrize("runner", [{"include": included}], indirect=True)
async def test_the_fixture_includes_tasks_with_resources_before_it_starts(runner: Runner) -> None:
    runner.include(included)  # once more changes nothing

    assert await (await read_number.enqueue()) == 42


@pytest.mark.parametrize(
    "wrong",
    [lambda: None, 5, int, Client.__aenter__],
    ids=["plain", "number", "class", "coroutine"],
)
def test_what_does_not_yield_is_no_resource(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="yields its value once"):
        Tasks().resource(wrong)


def test_a_resource_takes_no_arguments() -> None:
    def greedy(size: int, name: str = "") -> Iterator[int]:
        yield size

    with pytest.raises(InvalidOption, match=r"greedy takes size"):
        Tasks().resource(greedy)  # type: ignore[arg-type]


async def test_a_generator_that_does_not_yield_fails_the_start(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.resource
    async def empty() -> AsyncIterator[int]:
        if tmp_path is None:
            yield 1

    with pytest.raises(ResourceFailed, match="didn't yield"):
        await runner.start()

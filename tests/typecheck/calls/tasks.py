"""Right and wrong calls, for the type checkers. Never run.

A line marked ``# error`` must be reported, by mypy and by pyright; no other may be. A line marked
``# type: X`` reveals the type X.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type, reveal_type

import aiosqlite

from asyncjobs import Job, JobFilter, JobHandle, NewJob, Retry, Runner, Task, Tasks, current_job

runner = Runner("jobs.db")
tasks = Tasks()


@dataclass
class Receipt:
    number: int


@runner.task
async def send(user_id: int, email: str = "", *, urgent: bool = False) -> Receipt:
    return Receipt(user_id)


@runner.task(queue="mail", retry=Retry(attempts=5), timeout=30, name="resize")
def resize(path: str, width: int) -> bytes:
    return path.encode() * width


@tasks.task
def count(*words: str) -> int:
    return len(words)


@tasks.task(priority=7, timeout=timedelta(minutes=1), retry=lambda attempt, error: None)
async def nothing() -> None:
    return None


async def tasks_stay_plain_callables() -> None:
    reveal_type(await send(1, "a@b.c"))  # type: Receipt
    reveal_type(resize("a.png", 10))  # type: bytes
    reveal_type(count("a", "b"))  # type: int
    send("1")  # error
    resize("a.png")  # error
    resize("a.png", 10, 20)  # error
    count(1)  # error


async def enqueue_takes_what_the_function_takes() -> None:
    reveal_type(await send.enqueue(1))  # type: JobHandle[Receipt]
    reveal_type(await send.enqueue(1, "a@b.c", urgent=True))  # type: JobHandle[Receipt]
    reveal_type(await resize.enqueue(path="a.png", width=10))  # type: JobHandle[bytes]
    reveal_type(await count.enqueue("a", "b", "c"))  # type: JobHandle[int]
    reveal_type(await nothing.enqueue())  # type: JobHandle[None]
    await send.enqueue("1")  # error
    await send.enqueue()  # error
    await send.enqueue(1, "a@b.c", True)  # error
    await send.enqueue(1, urgnet=True)  # error
    await resize.enqueue("a.png", "10")  # error
    await count.enqueue("a", 2)  # error
    await nothing.enqueue(1)  # error


async def handles_give_the_functions_value() -> None:
    handle = await send.enqueue(1)
    reveal_type(await handle)  # type: Receipt
    reveal_type(await handle.result(timeout=5))  # type: Receipt
    reveal_type(await handle.wait())  # type: Job
    reveal_type(await handle.job())  # type: Job
    reveal_type(handle.id)  # type: str
    reveal_type(handle.existing)  # type: bool
    reveal_type(await (await resize.enqueue("a.png", 10)))  # type: bytes
    reveal_type(send.handle("id"))  # type: JobHandle[Receipt]
    wrong: JobHandle[int] = handle  # error
    number: int = await handle  # error
    await handle.result(timeout="5")  # error


async def options_keep_the_signature() -> None:
    later = send.options(delay=timedelta(hours=1), priority=5, tags=["a"], meta={"a": 1})
    reveal_type(await later.enqueue(1, urgent=True))  # type: JobHandle[Receipt]
    reveal_type(later.job(1))  # type: NewJob[Receipt]
    await send.options(at=datetime.now(UTC), key="k", queue="q", trigger="t").enqueue(1)
    await send.options(timeout=1.5, retry=Retry(), on_crash="fail", max_crashes=1).enqueue(1)
    await later.enqueue("1")  # error
    await later.enqueue()  # error
    send.options(dealy=1)  # error
    send.options(priority="high")  # error
    send.options(tags=5)  # error
    send.options(1)  # error
    await send.options(delay=1)  # error


async def jobs_know_what_they_return() -> None:
    job = send.job(1, "a@b.c")
    reveal_type(job)  # type: NewJob[Receipt]
    reveal_type(await runner.enqueue(job))  # type: JobHandle[Receipt]
    reveal_type(await runner.enqueue(resize.job("a.png", 1)))  # type: JobHandle[bytes]
    reveal_type(await runner.enqueue_many([job, send.job(2)]))  # type: list[JobHandle[Receipt]]
    reveal_type(await runner.enqueue_many(count.job(w) for w in "ab"))  # type: list[JobHandle[int]]
    wide: NewJob[object] = job
    send.job("1")  # error
    send.job(1, 2)  # error
    narrow: NewJob[int] = job  # error
    await runner.enqueue(1)  # error
    await runner.enqueue(send)  # error
    await runner.enqueue_many(job)  # error


async def bulks_of_several_tasks_give_what_they_have_in_common() -> None:
    mixed: list[NewJob[object]] = [send.job(1), count.job("a")]
    reveal_type(await runner.enqueue_many(mixed))  # type: list[JobHandle[object]]


def decorators_take_their_options() -> None:
    @runner.task(queue="q", executor="thread", retry_timeouts=True, on_crash="fail")
    async def one() -> int:
        return 1

    @runner.task()
    def two() -> int:
        return 2

    assert_type(one.name, str)
    assert_type(two(), int)
    runner.task(queue=1)  # error
    runner.task(timeout="1")  # error
    runner.task(attempts=3)  # error
    runner.task("name")  # error
    runner.include(tasks)
    runner.include(two)
    runner.include(5)  # error


def tasks_can_be_iterated_and_passed_around(some: Task[[int], str]) -> None:
    for task in tasks:
        reveal_type(task)  # type: Task[Any, Any]
    reveal_type(some.job(1))  # type: NewJob[str]
    some.job("1")  # error


async def the_registry_is_typed() -> None:
    page = await runner.registry.list(state="failed", limit=10)
    reveal_type(page.jobs)  # type: list[Job]
    reveal_type(page.cursor)  # type: str | None
    found: Job = await runner.registry.get("id")
    async for job in runner.registry.iterate(task="send"):
        reveal_type(job)  # type: Job
    await runner.registry.list(status="failed")  # error
    await runner.registry.list(state=["failed", "running"], order="newest", arguments={"a.b": 1})
    await runner.registry.list(order="priority")  # error
    await runner.registry.list(tags_any="red")
    await runner.registry.count(limit=5)  # error
    await runner.registry.count(created_after=datetime(2030, 1, 1, tzinfo=UTC), scan=True)
    mine: JobFilter = {"task": "send", "tags_all": ("a", "b")}
    reveal_type(await runner.registry.retry_all(**mine, actor="me"))  # type: BulkResult
    reveal_type(await runner.registry.queues())  # type: list[Queue]
    await runner.registry.delete_all(5)  # error
    await runner.registry.retry_all(limit=5)  # error
    await runner.registry.get(5)  # error
    found.id = "other"  # error
    Runner()  # error
    Runner("jobs.db", concurency=5)  # error


async def transactions_take_connections_of_two_kinds(
    connection: aiosqlite.Connection, plain: sqlite3.Connection
) -> None:
    async with runner.transaction(connection) as tx:
        reveal_type(tx)  # type: Connection
        reveal_type(await runner.enqueue(send.job(1), tx=tx))  # type: JobHandle[Receipt]
        await current_job().complete_in(tx, 1)
        current_job().complete_in_thread(tx, 1)  # error
    async with runner.transaction(plain) as other:
        assert_type(other, sqlite3.Connection)
        reveal_type(await runner.enqueue_many([send.job(1)], tx=other))  # type: list[JobHandle[Receipt]]
        await current_job().complete_in(other)
        current_job().complete_in_thread(other)
    await runner.enqueue(send.job(1), tx="jobs.db")  # error


async def a_handle_without_its_task_is_of_any_type() -> None:
    reveal_type(runner.handle("id"))  # type: JobHandle[Any]


@runner.resource
async def client() -> AsyncIterator[Receipt]:
    yield Receipt(1)


@tasks.resource
def table() -> Iterator[dict[str, int]]:
    yield {"a": 1}


def resources_give_what_their_function_yields() -> None:
    reveal_type(client)  # type: Resource[Receipt]
    reveal_type(client.get())  # type: Receipt
    reveal_type(table.get())  # type: dict[str, int]
    client.get().name  # error
    wrong: str = table.get()  # error
    runner.resource(send)  # error
    runner.resource(5)  # error


def pending() -> Coroutine[Any, Any, JobHandle[Receipt]]:
    return send.enqueue(1)

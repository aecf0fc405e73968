"""A secret passed as an argument is in no message, traceback, repr or log line.

The logs are listened to at DEBUG, with aiosqlite's own and with asyncio in debug mode reporting
every single callback, as it does for slow ones in development.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from asyncjobs import (
    Every,
    Fail,
    InvalidArguments,
    InvalidOption,
    JobError,
    JobFailed,
    JobHandle,
    JobTimedOut,
    KeyConflict,
    Retry,
    RetryLater,
    Runner,
    Task,
    Tasks,
    current_job,
)
from asyncjobs.records import Claimed, ErrorRecord, Outcome, Transition
from asyncjobs.rules.outcome import Raised, Returned
from asyncjobs.rules.schedule import check_template, make_plan
from asyncjobs.running.context import current_run
from asyncjobs.states import Event, State
from asyncjobs.store.schedules import Declared
from asyncjobs.testing import ManualClock, run_until_idle

# Short, so that a repr which is cut to its first and last letters would still show it.
SECRET = "s3cr3t"
NUMBER = 987_654_321

tasks = Tasks()


@pytest.fixture
async def logs(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that was logged since, as text."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    return lambda: caplog.text


def assert_silent(*texts: object) -> None:
    for text in texts:
        assert SECRET not in str(text)
        assert str(NUMBER) not in str(text)


def assert_silent_error(error: BaseException) -> None:
    assert_silent(str(error), repr(error), "".join(traceback.format_exception(error)))
    if isinstance(error, JobError):
        assert_silent(error.error_message, error.traceback, error.reason, error.args)


class Color(Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int


@dataclass
class Card:
    number: str


class Opaque:
    def __repr__(self) -> str:
        return SECRET


def nested(depth: int) -> Any:
    value: Any = SECRET
    for _ in range(depth):
        value = [value]
    return value


def refused() -> Iterator[tuple[str, Task[Any, Any], tuple[Any, ...], dict[str, Any]]]:
    def made(function: Callable[..., Any]) -> Task[Any, Any]:
        task: Task[Any, Any] = Tasks().task(name="refusing")(function)
        return task

    def integer(value: int) -> None: ...
    def color(value: Color) -> None: ...
    def word(value: Literal["a", "b"]) -> None: ...
    def moment(value: datetime) -> None: ...
    def identifier(value: UUID) -> None: ...
    def amount(value: Decimal) -> None: ...
    def pattern(value: Annotated[str, msgspec.Meta(pattern="^[a-c]$")]) -> None: ...
    def small(value: Annotated[int, msgspec.Meta(le=3)]) -> None: ...
    def short(value: Annotated[str, msgspec.Meta(max_length=3)]) -> None: ...
    def point(value: Point) -> None: ...
    def card(value: Card) -> None: ...
    def numbers(value: dict[str, int]) -> None: ...
    def deep(value: dict[str, list[Point]]) -> None: ...
    def union(value: int | datetime) -> None: ...
    def anything(value: Any) -> None: ...
    def named(*, value: int) -> None: ...
    def rest(*values: int, **more: int) -> None: ...

    nan = float("nan")
    yield "a str for an int", made(integer), (SECRET,), {}
    yield "an int for a str", made(card), (NUMBER,), {}
    yield "no member of the enum", made(color), (SECRET,), {}
    yield "none of the words", made(word), (SECRET,), {}
    yield "no datetime", made(moment), (SECRET,), {}
    yield "no uuid", made(identifier), (SECRET,), {}
    yield "no decimal", made(amount), (SECRET,), {}
    yield "not the pattern", made(pattern), (SECRET,), {}
    yield "too large a number", made(small), (NUMBER,), {}
    yield "too long a text", made(short), (SECRET,), {}
    yield "an unknown field", made(point), ({"x": 1, SECRET: 2},), {}
    yield "a wrong field", made(point), ({"x": SECRET},), {}
    yield "a missing field", made(card), ({SECRET: SECRET},), {}
    yield "another dataclass", made(point), (Card(SECRET),), {}
    yield "a wrong value under a secret key", made(numbers), ({SECRET: "x"},), {}
    yield "a wrong value deep inside", made(deep), ({SECRET: [{"x": SECRET}]},), {}
    yield "none of a union", made(union), (SECRET,), {}
    yield "no JSON", made(anything), (Opaque(),), {}
    yield "no JSON deep inside", made(anything), ({SECRET: [Opaque()]},), {}
    yield "a lambda", made(anything), (lambda: SECRET,), {}
    yield "an unpaired surrogate", made(anything), (SECRET + "\ud800",), {}
    yield "nested too deeply", made(anything), (nested(3_000),), {}
    yield "a tuple", made(anything), ((SECRET,),), {}
    yield "a set", made(anything), ({SECRET},), {}
    yield "bytes", made(anything), (SECRET.encode(),), {}
    yield "keys that are no text", made(anything), ({NUMBER: SECRET},), {}
    yield "not a number", made(anything), ({SECRET: nan},), {}
    yield "too large", made(anything), (SECRET * 200_000,), {}
    yield "too many", made(integer), (1, SECRET, NUMBER), {}
    yield "twice", made(integer), (1,), {"value": SECRET}
    yield "unknown", made(integer), (1,), {"other": SECRET}
    yield "missing", made(named), (), {}
    yield "by position", made(named), (SECRET,), {}
    yield "among the rest", made(rest), (1, SECRET), {}
    yield "among the others", made(rest), (1,), {"more": SECRET}


@pytest.mark.parametrize(("task", "args", "kwargs"), [
    pytest.param(task, args, kwargs, id=name) for name, task, args, kwargs in refused()
])  # fmt: skip
def test_no_refusal_of_arguments_tells_their_values(
    task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        task.job(*args, **kwargs)
    assert_silent_error(caught.value)
    assert "refusing" in str(caught.value)


@tasks.task
async def echo(secret: str) -> str:
    return secret


@tasks.task
def echo_in_a_thread(secret: str) -> str:
    return secret


@tasks.task
async def fail(secret: str) -> None:
    copy = secret * 2
    raise ValueError(f"something of {len(copy)} letters went wrong")


@tasks.task
def fail_in_a_thread(secret: str) -> None:
    copy = secret * 2
    raise ValueError(f"something of {len(copy)} letters went wrong")


@tasks.task
async def give_up(secret: str) -> None:
    raise Fail("it cannot work")


@tasks.task
async def return_something_else(secret: str) -> int:
    return secret  # type: ignore[return-value] # pyright: ignore[reportReturnType]


@tasks.task
async def return_what_is_no_json(secret: str) -> Any:
    return Opaque()


@tasks.task(timeout=0.01)
async def hang(secret: str) -> None:
    await asyncio.Event().wait()


def never_again(attempt: int, error: BaseException) -> float:
    raise ArithmeticError("the policy itself is broken")


@tasks.task(retry=never_again)
async def fail_under_a_broken_policy(secret: str) -> None:
    raise ValueError("wrong")


@pytest.mark.parametrize("task", list(tasks), ids=lambda task: task.name.rpartition(".")[2])
async def test_no_job_however_it_ends_tells_its_arguments(
    runner: Runner, task: Task[[str], Any], logs: Callable[[], str]
) -> None:
    runner.include(tasks)
    handle = await task.options(tags=["t"], meta={"m": 1}, key="k").enqueue(SECRET)
    try:
        assert await handle == SECRET
    except JobFailed as error:
        assert_silent_error(error)
    job = await handle.job()
    assert job.finished
    assert job.arguments == {"secret": SECRET}
    assert_silent(repr(job), repr(handle), repr(task), repr(await runner.registry.list()))
    for attempt in await runner.registry.attempts(handle.id):
        assert_silent(repr(attempt))
    assert "aiosqlite" in logs()
    assert "Executing <Handle" in logs()
    assert_silent(logs())


async def test_a_timeout_of_a_thread_tells_no_arguments(
    runner: Runner, logs: Callable[[], str]
) -> None:
    leave = threading.Event()

    @runner.task(timeout=0.01)
    def wait(secret: str) -> str:
        leave.wait(10)
        return secret

    handle = await wait.enqueue(SECRET)
    with pytest.raises(JobTimedOut) as caught:
        await handle
    leave.set()
    await run_until_idle(runner)
    assert_silent_error(caught.value)
    assert "its value is refused" in logs()
    assert_silent(logs())


async def test_cancelling_retrying_and_deleting_tells_no_arguments(
    runner: Runner, clock: ManualClock, logs: Callable[[], str]
) -> None:
    @runner.task(retry=Retry(attempts=2, base=60, jitter=False))
    async def later(secret: str) -> str:
        if current_job().attempt == 1:
            raise RetryLater(60)
        raise ValueError("wrong")

    handle = await later.enqueue(SECRET)
    await run_until_idle(runner)
    clock.advance(61)
    with pytest.raises(JobFailed) as caught:
        await handle
    assert_silent_error(caught.value)
    await handle.retry()
    await handle.cancel("not wanted")
    await run_until_idle(runner)
    await runner.registry.delete(handle.id)
    assert_silent(logs())


async def test_a_conflict_of_keys_tells_neither_arguments(
    runner: Runner, logs: Callable[[], str]
) -> None:
    runner.include(tasks)
    await echo.options(key="k").enqueue(SECRET)
    with pytest.raises(KeyConflict) as caught:
        await echo.options(key="k").enqueue(SECRET + "!")
    assert_silent_error(caught.value)
    assert_silent(logs())


async def test_schedules_tell_no_arguments(runner: Runner, logs: Callable[[], str]) -> None:
    runner.include(echo)
    with pytest.raises(InvalidOption) as refused:
        await runner.schedules.create("s", Every(60), echo.job(SECRET), catch_up="never")
    await runner.schedules.create("s", Every(60), echo.job(SECRET))
    await (await runner.schedules.run_now("s"))
    shown = await runner.registry.schedule("s")
    assert shown.arguments == {"secret": SECRET}
    assert_silent_error(refused.value)
    assert_silent(repr(shown), str(shown), logs())


async def test_stored_arguments_that_no_longer_fit_are_not_told(
    tmp_path: Path, logs: Callable[[], str]
) -> None:
    def old(secret: str) -> None: ...
    async def new(secret: int) -> None: ...

    path = tmp_path / "jobs.db"
    async with Runner(path, queues=["other"]) as runner:
        handle: JobHandle[None] = await runner.task(name="same")(old).enqueue(SECRET)
    async with Runner(path) as runner:
        runner.task(name="same")(new)
        with pytest.raises(JobFailed) as caught:
            await runner.handle(handle.id)
    assert caught.value.reason == "invalid_arguments"
    assert_silent_error(caught.value)
    assert_silent(logs())


async def test_what_a_running_job_knows_of_itself_shows_no_arguments(runner: Runner) -> None:
    seen: list[str] = []

    @runner.task
    async def look(secret: str) -> None:
        run = current_run.get()
        seen.extend(map(repr, (run, run.job, current_job(), current_job().logger)))
        seen.append(repr(asyncio.current_task()))

    await (await look.enqueue(SECRET))
    assert len(seen) == 5
    assert_silent(*seen)


def test_no_record_shows_arguments_or_results_in_its_repr() -> None:
    error = ErrorRecord("ValueError", "wrong")
    stored = f'"{SECRET}"'
    records = [
        echo.job(SECRET),
        echo.options(key="k").job(SECRET),
        echo.options(key="k"),
        [echo.job(SECRET)],
        Claimed(1, "id", "task", "queue", 1, 1, 0, 0, "api", None, None, stored, 0, 3),
        Transition(1, 1, "queue", "task", Event.COMPLETED, 0, result=stored),
        Outcome("task", State.COMPLETED, None, stored),
        Returned(stored),
        Raised(error, None),
        Declared("s", make_plan({"when": Every(60)}), check_template("s", echo.job(SECRET))),
    ]
    for record in records:
        assert_silent(repr(record), str(record), f"{record}", f"{record!a}")

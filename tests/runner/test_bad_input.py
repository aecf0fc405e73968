"""What bad input gets: an error of our own tree that names the argument, never its value."""

from __future__ import annotations

import pickle
import sqlite3
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    ArgumentsTooLarge,
    AsyncJobsError,
    InvalidArguments,
    InvalidOption,
    InvalidResult,
    JobFailed,
    NewerSchema,
    Runner,
    SQLiteTooOld,
    Tasks,
    UnknownTask,
)
from asyncjobs.store.sqlite.connection import check_sqlite_version
from asyncjobs.testing import ManualClock

MIB = 1024 * 1024
SECRET = "hunter2"

tasks = Tasks()


@dataclass
class Named:
    name: str


class Opaque:
    """Nothing that JSON could hold."""

    def __repr__(self) -> str:
        return SECRET


@tasks.task(name="anything")
async def anything(value: Any) -> Any:
    return value


@tasks.task(name="typed")
async def typed(number: int, text: str = "", who: Named | None = None) -> None: ...


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    runner.include(tasks)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


CHANGED = [
    float("nan"),
    float("inf"),
    [1.0, {"deep": float("-inf")}],
    {1: SECRET},
    {None: 1},
    {(1, 2): 1},
    {SECRET, "b"},
    {Opaque()},
    Opaque(),
    lambda: SECRET,
    print,
    Runner,
    SECRET + "\ud800",
    {"\udfff": 1},
    (1, 2),
    b"bytes",
    object(),
    nested(3_000),
    1j,
    iter([1]),
]


@pytest.mark.parametrize("value", CHANGED, ids=lambda value: type(value).__name__)
async def test_value_that_would_not_come_back_equal_is_refused_at_enqueue(
    runner: Runner, value: Any
) -> None:
    with pytest.raises(InvalidArguments, match="'value'") as caught:
        await anything.enqueue(value)

    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert await runner.registry.count() == 0


@pytest.mark.parametrize("value", CHANGED, ids=lambda value: type(value).__name__)
async def test_result_that_would_not_come_back_equal_fails_the_job(
    runner: Runner, value: Any
) -> None:
    @runner.task(name="returns")
    async def returns() -> Any:
        return value

    handle = await returns.enqueue()
    with pytest.raises(JobFailed) as caught:
        await handle

    assert caught.value.reason == "invalid_result"
    assert SECRET not in str(caught.value)
    assert "'returns'" in (caught.value.error_message or "")


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "'number'"),
        (("one",), {}, "'number'"),
        ((1.5,), {}, "'number'"),
        ((True,), {}, "'number'"),
        ((1, 5), {}, "'text'"),
        ((1, None), {}, "'text'"),
        ((1,), {"who": {"name": 5}}, "'who'"),
        ((1,), {"who": Named(5)}, "'who'"),  # type: ignore[arg-type]
        ((1,), {"colour": SECRET}, "'colour'"),
        ((1, "", None, SECRET), {}, "positional"),
    ],
)
async def test_argument_that_does_not_fit_is_refused_at_enqueue(
    runner: Runner, args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidArguments, match=named) as caught:
        await typed.enqueue(*args, **kwargs)

    assert SECRET not in str(caught.value)
    assert await runner.registry.count() == 0


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_arguments_of_up_to_one_mebibyte_are_taken(runner: Runner, over: int) -> None:
    frame = len('{"value":""}')
    value = "x" * (MIB - frame + over)

    if over > 0:
        with pytest.raises(ArgumentsTooLarge, match="'anything'"):
            await anything.enqueue(value)
    else:
        await anything.options(delay=60).enqueue(value)

    assert await runner.registry.count() == (0 if over > 0 else 1)


@pytest.mark.parametrize("over", [0, 1])
async def test_results_of_up_to_sixteen_mebibytes_are_kept(runner: Runner, over: int) -> None:
    @runner.task
    async def returns() -> str:
        return "x" * (16 * MIB - 2 + over)

    job = await (await returns.enqueue()).wait()

    assert (job.state, job.reason) == (
        ("failed", "invalid_result") if over else ("completed", None)
    )


async def test_result_against_the_annotation_fails_the_job(runner: Runner) -> None:
    @runner.task
    async def promises() -> int:
        return "text"  # type: ignore[return-value]

    with pytest.raises(JobFailed, match="annotation"):
        await (await promises.enqueue())


async def test_bad_job_among_good_ones_fails_alone(runner: Runner) -> None:
    good = [anything.job(number) for number in range(10)]

    with pytest.raises(InvalidArguments):
        anything.job(float("nan"))
    handles = await runner.enqueue_many(good)

    assert [await handle for handle in handles] == list(range(10))


async def test_stored_arguments_that_no_longer_fit_fail_the_job_naming_them(
    tmp_path: Path, clock: ManualClock
) -> None:
    async def before(amount: str) -> None: ...

    async def after(amount: int) -> None: ...

    async with Runner(tmp_path / "other.db", clock=clock) as runner:
        handle = await runner.enqueue(
            runner.task(name="job")(before).options(delay=60).job("hunter2")
        )
    clock.advance(60)
    async with Runner(tmp_path / "other.db", clock=clock) as runner:
        runner.task(name="job")(after)
        with pytest.raises(JobFailed, match="amount") as caught:
            await runner.handle(handle.id)

    assert caught.value.reason == "invalid_arguments"
    assert SECRET not in str(caught.value)


async def test_new_job_of_another_runners_task_is_refused(runner: Runner) -> None:
    stranger = Tasks().task(name="stranger")(anything.function)

    with pytest.raises(UnknownTask, match="'stranger'"):
        await runner.enqueue(stranger.job(1))


async def test_database_of_a_newer_version_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with Runner(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE asyncjobs_meta SET value = 999 WHERE name = 'schema_version'")
    connection.close()
    content = path.read_bytes()

    with pytest.raises(NewerSchema, match="999"):
        await Runner(path).start()

    assert path.read_bytes() == content


def test_sqlite_without_returning_is_refused() -> None:
    with pytest.raises(SQLiteTooOld, match=r"3\.34\.1"):
        check_sqlite_version((3, 34, 1))
    check_sqlite_version((3, 35, 0))


def test_every_error_is_of_one_tree() -> None:
    import asyncjobs

    errors = [
        value
        for name in asyncjobs.__all__
        if isinstance(value := getattr(asyncjobs, name), type) and issubclass(value, Exception)
    ]

    assert all(issubclass(error, (AsyncJobsError, asyncjobs.JobSignal)) for error in errors)


def test_every_error_shows_under_the_name_that_one_imports() -> None:
    import asyncjobs

    for name in asyncjobs.__all__:
        error = getattr(asyncjobs, name)
        if isinstance(error, type) and issubclass(error, Exception):
            assert f"{error.__module__}.{error.__qualname__}" == f"asyncjobs.{name}"
            assert pickle.loads(pickle.dumps(error)) is error


def test_number_of_jobs_given_to_a_runner_is_shown_its_place(tmp_path: Path) -> None:
    for wrong in ("100", -1, None):
        with pytest.raises(InvalidOption, match=r"is a time, .*@runner\.task\(keep_failed=100\)"):
            Runner(tmp_path / "other.db", keep_failed=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("time", "warned"),
    [(0, 0), (1, 1), (3_599, 1), (3_600, 0), (100.0, 0), (timedelta(seconds=100), 0)],
)
def test_seconds_that_look_like_a_number_of_jobs_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, time: Any, warned: int
) -> None:
    Runner(tmp_path / "other.db", keep_completed=time)

    assert len(caplog.messages) == warned
    assert all(f"{time} keeps jobs for {time} seconds" in line for line in caplog.messages)


class Order:
    """As far as anything here can tell, a Pydantic model."""

    def model_dump(self) -> dict[str, Any]:
        return {}


def test_pydantic_model_is_told_what_to_store_in_its_place() -> None:
    with pytest.raises(InvalidArguments, match=r"an Order cannot .* \.model_dump\(mode='json'\)"):
        anything.job(Order())
    with pytest.raises(InvalidResult, match=r"an Order, which .* \.model_dump\(mode='json'\)"):
        anything.codec.encode_result(Order())


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
async def test_result_that_is_not_finite_is_named_as_such(runner: Runner, value: float) -> None:
    @runner.task
    async def average() -> float:
        return value

    job = await (await average.enqueue()).wait()

    assert job.error is not None
    assert job.error.message.endswith("returned NaN or infinity, which cannot be stored as JSON")

"""Making tasks: decorator forms, names, refusals, and calling them."""

from __future__ import annotations

import asyncio
import functools
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    InvalidArguments,
    InvalidOption,
    Retry,
    Runner,
    RunnerClosed,
    RunnerNotStarted,
    TaskExists,
    Tasks,
    UnknownTask,
)
from asyncjobs.testing import ManualClock, run_until_idle

from .support import run_script


async def plain(number: int) -> int:
    return number + 1


def test_decorator_without_parentheses_makes_a_task() -> None:
    tasks = Tasks()

    task = tasks.task(plain)

    assert task.name == f"{__name__}.plain"
    assert list(tasks) == [task]


def test_decorator_with_empty_parentheses_makes_the_same_task() -> None:
    tasks = Tasks()

    task = tasks.task()(plain)

    assert task.name == f"{__name__}.plain"


def test_decorator_with_options_keeps_them() -> None:
    tasks = Tasks()

    @tasks.task(
        name="mail.send", retry=Retry(attempts=3), timeout=timedelta(minutes=1), executor="thread"
    )
    async def send() -> None: ...

    assert (send.name, send.executor, send.timeout) == ("mail.send", "thread", 60.0)
    assert send.retry == Retry(attempts=3)


def test_default_executor_follows_the_kind_of_function() -> None:
    tasks = Tasks()

    @tasks.task
    async def in_the_loop() -> None: ...

    @tasks.task
    def in_a_thread() -> None: ...

    assert (in_the_loop.executor, in_a_thread.executor) == ("coroutine", "thread")


def test_task_keeps_name_and_docstring_of_its_function() -> None:
    @Tasks().task
    async def documented() -> None:
        """Says what it does."""

    assert documented.__doc__ == "Says what it does."
    assert documented.__name__ == "documented"  # type: ignore[attr-defined]


def test_attributes_of_the_function_do_not_become_the_options_of_the_task() -> None:
    async def decorated() -> None: ...

    decorated.retry = "what tenacity puts there"  # type: ignore[attr-defined]
    decorated.name = "another"  # type: ignore[attr-defined]

    task = Tasks().task(decorated)

    assert task.retry == Retry()
    assert task.name.endswith("decorated")


async def test_calling_an_async_task_runs_the_function_here(runner: Runner) -> None:
    task = runner.task(plain)

    value = await task(1)

    assert value == 2
    assert await runner.registry.count() == 0


def test_calling_a_sync_task_runs_the_function_here_without_a_runner() -> None:
    @Tasks().task
    def double(number: int) -> int:
        return number * 2

    assert double(4) == 8


def test_two_tasks_of_one_name_are_refused_naming_both_places() -> None:
    tasks = Tasks()
    tasks.task(name="same")(plain)

    with pytest.raises(TaskExists, match=r"'same'.*test_tasks\.py") as caught:

        @tasks.task(name="same")
        async def other() -> None: ...

    assert isinstance(caught.value, InvalidOption)


def test_including_tasks_with_a_name_that_exists_adds_none_of_them(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    runner.task(name="b")(plain)
    tasks = Tasks()
    for name in ("a", "b"):
        tasks.task(name=name)(plain)

    with pytest.raises(TaskExists):
        runner.include(tasks)

    assert set(runner.tasks) == {"b"}


def test_including_the_same_tasks_twice_changes_nothing(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    tasks = Tasks()
    tasks.task(plain)

    runner.include(tasks)
    runner.include(tasks)

    assert len(runner.tasks) == 1


async def test_tasks_included_while_running_are_run(runner: Runner) -> None:
    tasks = Tasks()
    task = tasks.task(plain)

    runner.include(tasks)
    handle = await task.enqueue(1)

    assert await handle == 2


async def test_a_single_task_can_be_included(runner: Runner) -> None:
    task = Tasks().task(plain)

    runner.include(task)

    assert await (await task.enqueue(1)) == 2


async def generating() -> AsyncIterator[int]:
    yield 1


def yielding() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generating, yielding])
def test_generators_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidOption, match="yields"):
        Tasks().task(function)


@pytest.mark.parametrize("thing", [int, 5, "name", None, Tasks().task(plain)])
def test_what_is_not_a_function_is_refused(thing: Any) -> None:
    with pytest.raises(InvalidOption, match="made from a function"):
        Tasks().task()(thing)


def test_lambda_needs_a_name() -> None:
    with pytest.raises(InvalidOption, match="give name="):
        Tasks().task(lambda: None)


def test_partial_needs_a_name_and_keeps_its_signature() -> None:
    tasks = Tasks()
    with pytest.raises(InvalidOption, match="give name="):
        tasks.task(functools.partial(plain, 1))

    task = tasks.task(name="bound")(functools.partial(plain, 1))

    assert task.executor == "coroutine"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"executor": "fiber"}, "executor"),
        ({"executor": ""}, "executor"),
        ({"queue": ""}, "queue"),
        ({"queue": 5}, "queue"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"priority": 1.0}, "priority"),
        ({"retry": 3}, "retry"),
        ({"retry": Retry}, "retry"),
        ({"retry": plain}, "retry"),
        ({"on_crash": "panic"}, "on_crash"),
        ({"on_crash": ""}, "on_crash"),
        ({"max_crashes": 0}, "max_crashes"),
        ({"max_crashes": 1001}, "max_crashes"),
        ({"on_crash": "fail", "max_crashes": 2}, "max_crashes"),
        ({"retry_timeouts": "no"}, "retry_timeouts"),
    ],
)
def test_wrong_option_of_a_task_is_refused_when_it_is_given(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        Tasks().task(**options)(plain)


def test_unknown_option_of_a_task_is_refused_naming_those_that_it_has() -> None:
    with pytest.raises(InvalidOption, match=r"no option 'retries'; it has name, .*debounce_max$"):
        Tasks().task(retries=5)(plain)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["tags", "delay", "key", "meta"])
def test_option_of_a_job_given_to_its_task_is_shown_its_place(name: str) -> None:
    with pytest.raises(InvalidOption, match=rf"'{name}'; .*task\.options\({name}=\.\.\.\)"):
        Tasks().task(**{name: 5})(plain)  # type: ignore[call-overload]


def test_unknown_option_of_a_job_is_refused_naming_those_that_it_has() -> None:
    task = Tasks().task(plain)

    with pytest.raises(InvalidOption, match=r"options\(\) has no option 'tag'; it has delay, at,"):
        task.options(tag="a")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"'executor'; .*@runner\.task\(executor=\.\.\.\)"):
        task.options(executor="thread")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": 10_001},
        {"attempts": 1.5},
        {"base": -1},
        {"factor": 0.5},
        {"cap": float("inf")},
        {"per_exception": {"ValueError": Retry()}},
        {"per_exception": {ValueError: 3}},
    ],
)
def test_wrong_retry_policy_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        Retry(**options)


async def test_task_of_no_runner_says_so() -> None:
    task = Tasks().task(plain)

    with pytest.raises(UnknownTask, match="include"):
        await task.enqueue(1)


async def test_task_of_a_runner_that_is_not_started_says_so(tmp_path: Path) -> None:
    task = Runner(tmp_path / "jobs.db").task(plain)

    with pytest.raises(RunnerNotStarted, match="async with runner"):
        await task.enqueue(1)


async def test_task_of_a_runner_that_has_stopped_says_so(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    task = runner.task(plain)
    async with runner:
        pass

    with pytest.raises(RunnerClosed, match="has stopped; 'async with runner:' starts it again"):
        await task.enqueue(1)


async def test_task_in_two_running_runners_asks_which(tmp_path: Path) -> None:
    task = Tasks().task(plain)
    async with Runner(tmp_path / "a.db") as one, Runner(tmp_path / "b.db") as two:
        one.include(task)
        two.include(task)

        with pytest.raises(InvalidOption, match="2 running runners"):
            await task.enqueue(1)
        handles = [await one.enqueue(task.job(1)), await two.enqueue(task.job(2))]

        assert await asyncio.gather(*handles) == [2, 3]
        assert await one.registry.count() == await two.registry.count() == 1


async def test_task_in_two_runners_uses_the_one_that_is_running(tmp_path: Path) -> None:
    task = Tasks().task(plain)
    Runner(tmp_path / "a.db").include(task)
    running = Runner(tmp_path / "b.db")
    running.include(task)

    async with running:
        assert await (await task.enqueue(1)) == 2


async def test_annotation_that_cannot_be_resolved_is_found_at_start(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.task
    async def typed(value: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(InvalidOption, match="Missing"):
        await runner.start()
    assert not (tmp_path / "jobs.db").exists()


async def test_unresolvable_task_added_to_a_running_runner_is_not_kept(runner: Runner) -> None:
    with pytest.raises(InvalidOption, match="Missing"):

        @runner.task
        async def typed(value: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert len(runner.tasks) == 0


async def test_positional_only_variadic_and_keyword_only_arguments_arrive(runner: Runner) -> None:
    @runner.task
    async def gather(a: int, /, b: int = 2, *rest: int, c: int = 3, **extra: int) -> list[int]:
        return [a, b, *rest, c, *extra.values()]

    handles = [
        await gather.enqueue(1),
        await gather.enqueue(1, 5, 6, 7, c=8, d=9),
        await gather.enqueue(1, c=4),
    ]

    assert await asyncio.gather(*handles) == [[1, 2, 3], [1, 5, 6, 7, 8, 9], [1, 2, 4]]


async def test_defaults_are_those_of_the_code_that_runs(runner: Runner) -> None:
    @runner.task
    async def greet(name: str, greeting: str = "hello") -> str:
        return f"{greeting} {name}"

    handle = await greet.enqueue("you")

    assert await handle == "hello you"
    assert (await handle.job()).arguments == {"name": "you"}


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "'number'"),
        ((1, 2), {}, "positional"),
        ((1,), {"number": 1}, "twice"),
        ((1,), {"colour": 1}, "'colour'"),
        (("one",), {}, "'number'"),
    ],
)
async def test_call_that_does_not_fit_the_signature_is_refused(
    runner: Runner, args: Any, kwargs: Any, named: str
) -> None:
    task = runner.task(plain)

    with pytest.raises(InvalidArguments, match=named):
        await task.enqueue(*args, **kwargs)


SCRIPT = """
import asyncio
from asyncjobs import Runner
runner = Runner("jobs.db")

@runner.task
async def hello() -> str:
    return "hello"

if __name__ == "__main__":
    print(hello.name)
"""


def test_task_of_a_script_is_named_after_the_file(tmp_path: Path) -> None:
    script = tmp_path / "nightly.py"
    script.write_text(SCRIPT)

    assert run_script(script).strip() == "nightly.hello"


@pytest.mark.parametrize(
    "started", ["-m shop.nightly", "-c 'import shop.nightly as s; print(s.hello.name)'"]
)
def test_task_is_named_alike_where_its_module_is_started_with_m_and_where_it_is_imported(
    tmp_path: Path, started: str
) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nightly.py").write_text(SCRIPT)

    done = subprocess.run(
        [sys.executable, *shlex.split(started)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "shop.nightly.hello"


async def test_object_with_an_async_call_is_a_coroutine_task(
    runner: Runner, clock: ManualClock
) -> None:
    class Greeter:
        async def __call__(self, name: str) -> str:
            return f"hello {name}"

    task = runner.task(name="greet")(Greeter())
    handle = await task.enqueue("you")
    await run_until_idle(runner)

    assert task.executor == "coroutine"
    assert await handle == "hello you"

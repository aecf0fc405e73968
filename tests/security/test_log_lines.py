"""One record is one line of a log, whatever users put into names, tags and exceptions."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import threading
from typing import Any

import pytest

from asyncjobs import (
    Cancel,
    Fail,
    InvalidArguments,
    InvalidOption,
    JobCancelled,
    JobError,
    JobFailed,
    Retry,
    RetryLater,
    Runner,
    Tasks,
)
from asyncjobs.testing import run_until_idle

LINE_MAX = 1_000

HOSTILE = [
    "\n",
    "\r\n",
    "\r",
    "\x00",
    "\x0b",
    "\x0c",
    "\x1c\x1d\x1e",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x7f",
    "\x85",
    "\x9b31m",
    "\u2028",
    "\u2029",
    "\u202e",  # right-to-left override
    "\u2066\u2069",  # isolates
    "\u200b",  # a space of no width
    "\ud800",
    "\U000e0001",  # a tag character
    "%s %d %(message)s",
    "{} {0}",
    "2030-01-01 ERROR all is lost",
]
# Everything in a line but what Python itself calls printable.
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def hostile_texts(seed: int, count: int) -> list[str]:
    source = random.Random(seed)
    pieces = [*HOSTILE, "word", " ", "ü", "\\", "'", '"']
    return [
        *HOSTILE,
        *("".join(source.choices(pieces, k=source.randint(1, 12))) for _ in range(count)),
    ]


def assert_one_line(text: str) -> None:
    assert FORBIDDEN.search(text) is None, ascii(text)
    assert len(text.splitlines()) == 1
    assert len(text) <= LINE_MAX


def assert_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    ours = [record for record in caplog.records if record.name.startswith("asyncjobs")]
    assert ours
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    for record in ours:
        assert_one_line(formatter.format(record))  # with the traceback, if a record has one


class Hostile(Exception):
    """Its text is chosen by the job's argument."""


HostileName = type("Hostile\nName\x1b[31m\u202e", (Exception,), {})


async def test_exceptions_of_any_text_are_one_line(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")
    texts = hostile_texts(seed=7, count=100)

    @runner.task
    async def wrong(number: int) -> None:
        match number % 4:
            case 0:
                raise Hostile(texts[number])
            case 1:
                raise HostileName(texts[number])
            case 2:
                raise Fail(texts[number])
            case _:
                raise Cancel(texts[number])

    handles = await runner.enqueue_many(wrong.job(number) for number in range(len(texts)))
    for handle in handles:
        with pytest.raises((JobFailed, JobCancelled)) as caught:
            await handle
        assert_one_line(str(caught.value))
    assert_one_line_each(caplog)
    assert await runner.registry.check() == []


async def test_reasons_that_jobs_give_for_their_own_end_are_one_line(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")
    texts = hostile_texts(seed=12, count=20)

    @runner.task
    async def leave(number: int) -> None:
        raise Cancel(texts[number])

    handles = await runner.enqueue_many(leave.job(number) for number in range(len(texts)))
    for handle in handles:
        with pytest.raises(JobCancelled) as caught:
            await handle
        assert_one_line(str(caught.value))
        assert (await handle.job()).reason == caught.value.reason
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert await runner.registry.check() == []


async def test_exceptions_in_threads_and_retries_are_one_line(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")
    texts = hostile_texts(seed=8, count=20)

    @runner.task(retry=Retry(attempts=2, base=0))
    def wrong(number: int) -> None:
        if number % 2:
            raise RetryLater(0, texts[number])
        raise Hostile(texts[number])

    handles = await runner.enqueue_many(wrong.job(number) for number in range(len(texts)))
    for handle in handles:
        with pytest.raises(JobFailed):
            await handle
    assert_one_line_each(caplog)


async def test_a_retry_policy_that_raises_is_one_line(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")
    texts = iter(HOSTILE)

    def policy(attempt: int, error: BaseException) -> float:
        raise Hostile(next(texts))

    @runner.task(retry=policy)
    async def wrong() -> None:
        raise ValueError

    for _ in HOSTILE:
        with pytest.raises(JobFailed):
            await (await wrong.enqueue())
    assert sum("retry function" in record.message for record in caplog.records) == len(HOSTILE)
    assert_one_line_each(caplog)


async def test_exceptions_that_break_while_they_are_shown_are_one_line(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")

    class Broken(Exception):
        def __str__(self) -> str:
            raise Hostile("a\nb")

    class Long(Exception):
        def __str__(self) -> str:
            return "x\n" * 1_000_000

    @runner.task
    async def wrong(long: bool) -> None:
        raise (Long if long else Broken)()

    for long in (False, True):
        with pytest.raises(JobFailed):
            await (await wrong.enqueue(long))
    assert_one_line_each(caplog)


async def test_task_names_are_one_line_or_refused(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")
    accepted = 0

    async def wrong() -> None:
        raise ValueError("wrong")

    for text in hostile_texts(seed=9, count=50):
        try:
            task = runner.task(name=f"name {text} {accepted}")(wrong)
        except InvalidOption as error:
            assert_one_line(str(error))
            continue
        accepted += 1
        with pytest.raises(JobFailed) as caught:
            await (await task.enqueue())
        assert_one_line(str(caught.value))
    assert accepted > 3
    assert_one_line_each(caplog)


@pytest.mark.parametrize("option", ["queue", "key", "trigger", "tags"])
async def test_texts_of_options_are_one_line_or_refused(
    runner: Runner, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")

    @runner.task
    async def wrong() -> None:
        raise ValueError("wrong")

    refused = 0
    for number, text in enumerate(hostile_texts(seed=10, count=30)):
        value: Any = f"{text} {number}"
        options: dict[str, Any] = {option: [value] if option == "tags" else value}
        try:
            handle = await wrong.options(**options).enqueue()
        except InvalidOption as error:
            assert_one_line(str(error))
            refused += 1
            continue
        with pytest.raises(JobFailed):
            await handle
    assert refused > 10
    assert_one_line_each(caplog)


def test_refused_arguments_are_named_in_one_line() -> None:
    @Tasks().task
    def take(**numbers: int) -> None: ...

    @Tasks().task
    def take_one(number: int) -> None: ...

    for text in hostile_texts(seed=11, count=30):
        wrong: dict[str, Any] = {text: "no number"}
        for task in (take, take_one):
            with pytest.raises(InvalidArguments) as caught:
                task.job(**wrong)
            assert_one_line(str(caught.value))


async def test_reasons_of_cancellation_are_one_line(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")

    @runner.task(timeout=0.01)
    def stubborn() -> None:
        leave.wait(10)

    leave = threading.Event()
    handle = await stubborn.enqueue()
    for text in HOSTILE:
        try:
            await handle.cancel(text)
        except InvalidOption as error:
            assert_one_line(str(error))
    with pytest.raises(JobError) as caught:
        await handle
    assert_one_line(str(caught.value))
    leave.set()
    await run_until_idle(runner)
    assert_one_line_each(caplog)


async def test_cancelled_and_stuck_jobs_are_one_line(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="asyncjobs")
    started = asyncio.Event()

    @runner.task(name="odd \u202e name", timeout=0.01)
    async def swallow() -> None:
        for _ in range(2):
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    handle = await swallow.enqueue()
    await started.wait()
    await handle.wait()
    await run_until_idle(runner)
    record = logging.LogRecord("asyncjobs", 30, "", 0, "%r", (handle,), None)
    caplog.records.append(record)
    assert_one_line_each(caplog)

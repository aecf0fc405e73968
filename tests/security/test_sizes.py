"""Every size cap, below it, at it and above it."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest

from asyncjobs import ArgumentsTooLarge, Cancel, InvalidOption, JobFailed, Runner, Tasks
from asyncjobs.records import ErrorRecord
from asyncjobs.rules.limits import (
    ARGUMENTS_MAX,
    BULK_MAX,
    ERROR_MAX,
    KEY_MAX,
    META_MAX,
    NAME_MAX,
    RESULT_MAX,
    TAGS_MAX,
)

tasks = Tasks()
MESSAGE_MAX = 8192
LOG_LINE_MAX = 600


@tasks.task
async def take(text: str) -> int:
    return len(text)


@tasks.task
async def give(size: int) -> str:
    return "x" * size


@tasks.task
def give_in_a_thread(size: int) -> str:
    return "x" * size


class Loud(Exception):
    """Raised with a text of the size asked for."""


@tasks.task
async def shout(size: int) -> None:
    raise Loud("x" * size)


def test_the_caps_are_those_of_the_documents() -> None:
    assert ARGUMENTS_MAX == 1024 * 1024
    assert RESULT_MAX == 16 * 1024 * 1024
    assert ERROR_MAX == 64 * 1024
    assert BULK_MAX == 10_000


@pytest.mark.parametrize("missing", [1, 0])
async def test_arguments_up_to_one_mebibyte_are_stored(runner: Runner, missing: int) -> None:
    runner.include(tasks)
    text = "x" * (ARGUMENTS_MAX - len('{"text":""}') - missing)
    handle = await take.enqueue(text)
    assert await handle == len(text)


def test_arguments_over_one_mebibyte_are_refused() -> None:
    text = "x" * (ARGUMENTS_MAX - len('{"text":""}') + 1)
    with pytest.raises(ArgumentsTooLarge, match="1048577 bytes") as caught:
        take.job(text)
    assert "xxx" not in str(caught.value)


def test_arguments_are_measured_in_bytes_of_utf8() -> None:
    take.job("é" * (ARGUMENTS_MAX // 2 - len('{"text":""}')))
    with pytest.raises(ArgumentsTooLarge):
        take.job("é" * (ARGUMENTS_MAX // 2))


@pytest.mark.parametrize("task", [give, give_in_a_thread], ids=["coroutine", "thread"])
async def test_results_up_to_16_mebibytes_are_stored_and_larger_ones_fail_the_job(
    runner: Runner, task: Any
) -> None:
    runner.include(tasks)
    quotes = 2
    fitting = RESULT_MAX - quotes
    assert len(await (await task.enqueue(fitting - 1))) == fitting - 1
    assert len(await (await task.enqueue(fitting))) == fitting
    handle = await task.enqueue(fitting + 1)
    with pytest.raises(JobFailed) as caught:
        await handle
    assert caught.value.reason == "invalid_result"
    assert "at most 16777216" in (caught.value.error_message or "")
    assert "xxx" not in (caught.value.traceback or "") + str(caught.value)


async def error_of_size(size: int) -> ErrorRecord:
    job = await (await shout.enqueue(size)).wait()
    assert job.error is not None
    return job.error


async def test_the_text_of_an_error_is_kept_whole_up_to_its_cap_and_cut_above(
    runner: Runner,
) -> None:
    runner.include(tasks)
    for size in (MESSAGE_MAX - 1, MESSAGE_MAX):
        error = await error_of_size(size)
        assert error.message == "x" * size
    error = await error_of_size(MESSAGE_MAX + 1)
    assert len(error.message) <= MESSAGE_MAX
    assert "cut" in error.message


async def test_a_traceback_is_kept_whole_up_to_64_kibibytes_and_cut_above(runner: Runner) -> None:
    runner.include(tasks)
    shortest = await error_of_size(1)
    around = len(shortest.traceback.encode()) - 1
    for size in (ERROR_MAX - around - 1, ERROR_MAX - around):
        error = await error_of_size(size)
        assert len(error.traceback.encode()) == around + size
        assert error.traceback.count("x" * size) == 1
    error = await error_of_size(ERROR_MAX - around + 1)
    assert len(error.traceback.encode()) <= ERROR_MAX
    assert "cut" in error.traceback
    assert error.traceback.startswith("Traceback")


async def test_the_reason_of_a_cancellation_is_kept_whole_up_to_its_cap_and_cut_above(
    runner: Runner,
) -> None:
    @runner.task
    async def leave(size: int) -> None:
        raise Cancel("x" * size)

    for size in (MESSAGE_MAX - 1, MESSAGE_MAX):
        job = await (await leave.enqueue(size)).wait()
        assert job.reason == "x" * size
    job = await (await leave.enqueue(MESSAGE_MAX + 1)).wait()
    assert job.reason is not None
    assert len(job.reason) <= MESSAGE_MAX
    assert "cut" in job.reason


@pytest.mark.parametrize("letter", ["é", "\ud800", "\x00", "😀", "\x1b"])
async def test_an_error_of_any_letters_is_stored_within_its_cap(
    runner: Runner, letter: str, caplog: pytest.LogCaptureFixture
) -> None:
    runner.include(tasks)

    @runner.task
    async def shout_it(code: int) -> None:
        raise Loud(chr(code) * 200_000)

    with caplog.at_level(logging.DEBUG, logger="asyncjobs"):
        job = await (await shout_it.enqueue(ord(letter))).wait()
    assert job.error is not None
    assert len(job.error.message.encode()) <= MESSAGE_MAX
    assert len(job.error.traceback.encode()) <= ERROR_MAX
    with contextlib.suppress(JobFailed):
        await runner.handle(job.id)
    assert max(len(record.getMessage()) for record in caplog.records) <= LOG_LINE_MAX


@pytest.mark.parametrize("option", ["queue", "trigger"])
def test_names_are_capped(option: str) -> None:
    options: Any = take.options
    for length in (NAME_MAX - 1, NAME_MAX):
        assert options(**{option: "n" * length}).job("")
    with pytest.raises(InvalidOption, match=f"{option} is {NAME_MAX + 1} characters"):
        options(**{option: "n" * (NAME_MAX + 1)})


def test_task_names_are_capped() -> None:
    own = Tasks()
    for length in (NAME_MAX - 1, NAME_MAX):
        own.task(name="n" * length)(lambda: None)
    with pytest.raises(InvalidOption, match=f"name is {NAME_MAX + 1} characters"):
        own.task(name="n" * (NAME_MAX + 1))(lambda: None)


def test_keys_are_capped() -> None:
    for length in (KEY_MAX - 1, KEY_MAX):
        assert take.options(key="k" * length).job("").key == "k" * length
    with pytest.raises(InvalidOption, match=f"key is {KEY_MAX + 1} characters"):
        take.options(key="k" * (KEY_MAX + 1))


def test_tags_are_capped_in_length_and_number() -> None:
    assert len(take.options(tags=[f"t{n}" for n in range(TAGS_MAX)]).job("").tags) == TAGS_MAX
    assert take.options(tags=["t" * NAME_MAX]).job("").tags == ("t" * NAME_MAX,)
    with pytest.raises(InvalidOption, match=f"{TAGS_MAX + 1} tags"):
        take.options(tags=[f"t{n}" for n in range(TAGS_MAX + 1)])
    with pytest.raises(InvalidOption, match=f"tags is {NAME_MAX + 1} characters"):
        take.options(tags=["t" * (NAME_MAX + 1)])


def test_meta_is_capped() -> None:
    around = len('{"m":""}')
    for length in (META_MAX - around - 1, META_MAX - around):
        assert take.options(meta={"m": "x" * length}).job("").meta
    with pytest.raises(InvalidOption, match=f"meta takes {META_MAX + 1} bytes"):
        take.options(meta={"m": "x" * (META_MAX - around + 1)})


async def test_bulks_are_capped(runner: Runner) -> None:
    runner.include(tasks)
    job = take.job("")
    with pytest.raises(InvalidOption, match="10001 jobs"):
        await runner.enqueue_many([job] * (BULK_MAX + 1))
    assert await runner.registry.count() == 0


async def test_everything_at_its_cap_at_once_comes_back_equal(runner: Runner) -> None:
    runner.include(tasks)
    text = "😀" * ((ARGUMENTS_MAX - len('{"text":""}')) // 4)
    tags = tuple(f"{n:02}" + "t" * (NAME_MAX - 2) for n in range(TAGS_MAX))
    meta = {"m": "x" * (META_MAX - len('{"m":""}'))}
    handle = await take.options(
        queue="q" * NAME_MAX, key="k" * KEY_MAX, trigger="r" * NAME_MAX, tags=tags, meta=meta
    ).enqueue(text)
    assert await handle == len(text)
    job = await handle.job()
    assert (job.queue, job.key, job.tags, job.meta) == ("q" * NAME_MAX, "k" * KEY_MAX, tags, meta)
    assert job.arguments == {"text": text}
    assert await runner.registry.check() == []

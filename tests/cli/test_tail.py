"""``asyncjobs tail``: events from a place on, and one job's log to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import Runner, current_job
from asyncjobs.records import LogEntry, Note, ProgressValue
from asyncjobs.rules.limits import LOG_LINES_MAX
from asyncjobs.states import Event
from asyncjobs.store.base import Delete, Prune
from asyncjobs.store.journal import Annotate
from tests.store.kit import Desk

from .kit import Shell

NOW = ("--no-follow",)


async def log(desk: Desk, run: Any, *texts: str, first: int = 1) -> None:
    lines = [
        LogEntry(number, desk.clock.now(), "INFO", "shop", text)
        for number, text in enumerate(texts, first)
    ]
    await desk.do(Annotate("here", [Note(run.seq, run.claim, 1, None, lines)]))


# Events


async def test_events_are_a_line_each_in_the_order_of_their_commits(
    desk: Desk, shell: Shell
) -> None:
    run = await desk.start(task="mul")
    note = Note(run.seq, run.claim, 1, ProgressValue(1, 3, None, "a\x1b[2J"))
    await desk.do(Annotate("here", [note]))
    await desk.end(run)

    told = shell("tail", "--since", "2026-01-01", *NOW)

    assert (told.code, told.err) == (0, "")
    assert told.lines == [
        f"2026-01-01 00:00:00.000  enqueued   {run.id}  mul",
        f"2026-01-01 00:00:00.000  claimed    {run.id}  mul",
        f"2026-01-01 00:00:00.000  progress   {run.id}  mul  3: a\\x1b[2J",
        f"2026-01-01 00:00:00.000  completed  {run.id}  mul",
    ]


async def test_events_begin_at_a_time_behind_a_cursor_or_now(desk: Desk, shell: Shell) -> None:
    await desk.add()
    desk.clock.advance(timedelta(hours=1))
    second = await desk.add()
    await desk.add()

    told = shell("tail", "--since", "2026-01-01T00:30", "--json", *NOW).documents
    assert told[0]["job_id"] == second
    assert len(told) == 2
    behind = shell("tail", "--after", told[0]["cursor"], "--json", *NOW).documents
    assert behind == told[1:]
    assert shell("tail", *NOW).out == ""


async def test_events_are_filtered(desk: Desk, shell: Shell) -> None:
    added = await desk.finished()
    multiplied = await desk.finished(Event.FAILED, task="mul", queue="mail")
    logging = await desk.start()
    await log(desk, logging, "one")

    def told(*words: str) -> list[tuple[str, str]]:
        documents = shell("tail", "--since", "2026-01-01", "--json", *NOW, *words).documents
        return [(event["kind"], event["job_id"]) for event in documents]

    assert told("--kinds", "completed,failed") == [("completed", added), ("failed", multiplied)]
    assert told("--kinds=failed", "--kinds=deleted") == [("failed", multiplied)]
    assert {job for _, job in told("--task", "mul")} == {multiplied}
    assert {job for _, job in told("--queue", "mail")} == {multiplied}
    assert told("--kinds", "logged") == [("logged", logging.id)]
    assert ("logged", logging.id) not in told()


async def test_more_events_than_one_look_takes_are_told(
    desk: Desk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.store.sqlite.journal.ROWS_MAX", 3)
    ids = [await desk.finished() for _ in range(5)]

    told = shell("tail", "--since", "2026-01-01", "--kinds", "completed", "--json", *NOW).documents

    assert [event["job_id"] for event in told] == ids


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--kinds", "faild"], "kinds='faild' is not known; it is one of enqueued"),
        (["--after", "nonsense"], "the cursor is not one that an event had"),
        (["--after", "0123456789abcdef-1-0"], "the cursor belongs to another database"),
        (["--after", "x", "--since", "1h"], "not allowed with argument"),
        (["01", "--kinds", "failed"], "a job's log takes no filters"),
    ],
)
async def test_what_cannot_be_followed_is_refused(
    desk: Desk, shell: Shell, words: list[str], complaint: str
) -> None:
    refused = shell("tail", *words, *NOW)

    assert (refused.code, refused.out) == (2, "")
    assert complaint in refused.err


async def test_a_cursor_ahead_of_the_database_is_refused(desk: Desk, shell: Shell) -> None:
    name = desk.store.database_id

    assert "ahead of the database" in shell("tail", "--after", f"{name}-9-0", *NOW).err


async def test_a_cursor_past_retention_is_too_old(desk: Desk, shell: Shell) -> None:
    await desk.finished()
    (first, *_) = shell("tail", "--since", "2026-01-01", "--json", *NOW).documents
    await desk.finished()
    await desk.do(Prune({}, desk.clock.now() + 1, 1_000))

    late = shell("tail", "--after", first["cursor"], *NOW)

    assert (late.code, late.out) == (1, "")
    assert "the journal no longer holds" in late.err


# Logs


async def test_the_log_of_a_job_ends_with_its_outcome(desk: Desk, shell: Shell) -> None:
    run = await desk.start()
    await log(desk, run, "one\x1b[2J", "two\nlines")
    await desk.end(run)

    told = shell("tail", run.id[:20])

    assert told.code == 0
    assert told.lines == [
        "2026-01-01 00:00:00.000  INFO  shop  one\\x1b[2J",
        "2026-01-01 00:00:00.000  INFO  shop  two",
        "  lines",
    ]
    assert told.err == f"job {run.id} is completed\n"
    assert [line["text"] for line in shell("tail", run.id, "--json").documents] == [
        "one\x1b[2J",
        "two\nlines",
    ]


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
async def test_the_exit_code_tells_a_job_that_did_not_complete(
    desk: Desk, shell: Shell, event: Event
) -> None:
    job_id = await desk.finished(event)

    told = shell("tail", job_id)

    assert told.code == 1
    assert f"job {job_id} is {event.value}" in told.err


async def test_lines_that_are_not_kept_are_counted(desk: Desk, shell: Shell) -> None:
    run = await desk.start()
    await log(desk, run, *("line" for _ in range(LOG_LINES_MAX)))
    await log(desk, run, "one more", first=LOG_LINES_MAX + 1)
    await desk.end(run)

    told = shell("tail", run.id)

    assert len(told.lines) == LOG_LINES_MAX
    assert told.lines[-1].endswith("one more")
    assert told.err.startswith("1 of the job's lines are not kept\n")


async def test_the_log_of_an_unfinished_job_is_told_without_following(
    desk: Desk, shell: Shell
) -> None:
    run = await desk.start()
    await log(desk, run, "one")

    told = shell("tail", run.id, *NOW)

    assert (told.code, len(told.lines), told.err) == (0, 1, "")


async def test_the_log_of_no_job_is_not_found(desk: Desk, shell: Shell) -> None:
    assert shell("tail", "abc").code == 1


async def test_a_job_that_is_deleted_ends_its_log(desk: Desk, shell: Shell) -> None:
    run = await desk.start()
    following = asyncio.create_task(asyncio.to_thread(shell, "tail", run.id))
    await desk.end(run)
    await desk.do(Delete([run.id]))

    told = await asyncio.wait_for(following, 10)

    assert told.code in (0, 1)  # as it saw the outcome, or came too late for it
    assert run.id in told.err or "no job" in told.err


# Live, as processes


async def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [
        (await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)).rstrip("\n")
        for _ in range(count)
    ]


async def test_what_happens_in_an_application_is_told_as_it_happens(shell: Shell) -> None:
    runner = Runner(shell.database)

    @runner.task(name="work")
    async def work() -> None: ...

    async with runner:
        first = await work.enqueue()
        await first
        following = shell.start("tail", "--since", "1h", "--kinds", "completed", "--json")
        try:
            (told,) = await lines_of(following, 1)
            assert first.id in told
            for _ in range(3):
                handle = await work.enqueue()
                (told,) = await lines_of(following, 1)
                assert handle.id in told
            following.send_signal(signal.SIGINT)
            out, err = await asyncio.to_thread(following.communicate, timeout=20)
        finally:
            following.kill()
    assert following.returncode == 130
    assert out == ""
    assert err.startswith("to go on from here: --after ")
    assert err.count("\n") == 1


async def test_a_reader_that_leaves_ends_it_although_nothing_happens(shell: Shell) -> None:
    async with Runner(shell.database):
        following = shell.start("tail")
        assert following.stdout is not None
        assert following.stderr is not None
        following.stdout.close()
        try:
            assert await asyncio.to_thread(following.wait, 20) == 0
            assert following.stderr.read() == ""
        finally:
            following.kill()
            following.stderr.close()


async def test_a_log_is_told_live_and_ends_with_the_job(shell: Shell) -> None:
    runner = Runner(shell.database)
    go_on = asyncio.Event()

    @runner.task
    async def work() -> None:
        current_job().logger.info("begun")
        await go_on.wait()
        current_job().logger.info("done")

    async with runner:
        handle = await work.enqueue()
        following = shell.start("tail", handle.id)
        try:
            (begun,) = await lines_of(following, 1)
            assert begun.endswith("INFO  asyncjobs.job  begun")
            go_on.set()
            out, err = await asyncio.to_thread(following.communicate, timeout=20)
        finally:
            following.kill()
    assert following.returncode == 0
    assert out.endswith("INFO  asyncjobs.job  done\n")
    assert err == f"job {handle.id} is completed\n"


async def test_it_goes_on_after_the_application_stops_and_starts_again(shell: Shell) -> None:
    runner = Runner(shell.database)

    @runner.task(name="work")
    async def work() -> None: ...

    async with runner:
        pass
    following = shell.start("tail", "--since", "1h", "--kinds", "enqueued")
    try:
        for _ in range(2):
            async with runner:
                handle = await work.enqueue()
                (told,) = await lines_of(following, 1)
                assert handle.id in told
        assert not os.path.exists(f"{shell.database}-wal")
    finally:
        following.kill()
        following.communicate()


async def test_it_ends_when_another_database_is_put_in_its_place(
    shell: Shell, tmp_path: Path
) -> None:
    runner, other = Runner(shell.database), Runner(tmp_path / "other.db")
    for one in (runner, other):

        @one.task(name="work")
        async def work() -> None: ...

        async with one:
            await (await work.enqueue())
    following = shell.start("tail", "--since", "1h", "--kinds", "enqueued")
    try:
        await lines_of(following, 1)
        os.replace(tmp_path / "other.db", shell.database)
        out, err = await asyncio.to_thread(following.communicate, timeout=20)
    finally:
        following.kill()

    assert (following.returncode, out) == (3, "")
    assert err.startswith("asyncjobs: another database stands at this path now")

"""The command line as processes: how it starts, and what it does on terminals and pipes."""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import os
import pty
import re
import resource
import subprocess
import sys

import pytest

from asyncjobs.__main__ import _parser, main
from asyncjobs.cli import command
from asyncjobs.cli.ls import LIMIT
from asyncjobs.cli.screen import Screen
from asyncjobs.cli.terminal import Terminal
from asyncjobs.states import Event
from tests.store.kit import Desk

from .kit import Shell

START_SECONDS = 0.5


def test_the_console_script_is_the_command_line() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="asyncjobs")

    assert script.load() is main


async def test_looking_loads_neither_an_event_loop_nor_a_runner(desk: Desk, shell: Shell) -> None:
    job_id = await desk.finished()
    program = (
        "import sys; from asyncjobs.__main__ import main; "
        f"calls = (['ls'], ['show', {job_id!r}], ['tail', {job_id!r}], ['cancel', '--task=a']);"
        f"codes = [main(['--db', {str(shell.database)!r}, *words]) for words in calls]; "
        "print(codes, [m for m in ('asyncio', 'aiosqlite', 'anyio', 'rich', 'asyncjobs.runner') "
        "if m in sys.modules])"
    )

    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True
    )

    assert ran.stdout.splitlines()[-1] == "[0, 0, 0, 0] []", ran.stderr


@pytest.mark.timed
async def test_a_listing_is_there_within_its_time(desk: Desk, shell: Shell) -> None:
    await desk.insert(*(desk.job() for _ in range(5_000)))

    # Of its processor, so that what else runs on the machine does not count.
    assert min([await asyncio.to_thread(cpu_seconds, shell) for _ in range(3)]) <= START_SECONDS


def cpu_seconds(shell: Shell) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out, _ = shell.start("ls").communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert out.count("\n") == LIMIT + 1
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def test_a_reader_that_leaves_in_the_middle_is_no_error(desk: Desk, shell: Shell) -> None:
    # More than a pipe holds, so that it is still writing when the reader leaves.
    await desk.insert(*(desk.job() for _ in range(1_000)))
    listing = shell.start("ls", "--limit", 1_000)
    assert listing.stdout is not None
    assert listing.stderr is not None

    assert (await asyncio.to_thread(listing.stdout.readline)).startswith("ID")
    listing.stdout.close()

    assert await asyncio.to_thread(listing.wait, 20) == 0
    assert listing.stderr.read() == ""
    listing.stderr.close()


@pytest.mark.parametrize("words", ["ls", "ls --json", "tail --since 2025-12-31 --no-follow"])
async def test_what_cannot_be_written_is_said_in_one_line(
    desk: Desk, shell: Shell, words: str
) -> None:
    await desk.insert(*(desk.job() for _ in range(100)))

    ran = await asyncio.to_thread(in_a_shell, f"{words} > /dev/full", shell)

    assert (ran.returncode, ran.stderr) == (
        1,
        "asyncjobs: what was found cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
async def test_closed_streams_are_no_error(desk: Desk, shell: Shell, closed: str) -> None:
    job_id = await desk.finished(Event.FAILED)

    assert (await asyncio.to_thread(in_a_shell, f"show {job_id} {closed}", shell)).returncode == 0
    ran = await asyncio.to_thread(in_a_shell, f"retry {job_id} {closed}", shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (await desk.get(job_id)).state == "queued"


def in_a_shell(words: str, shell: Shell) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -m asyncjobs {words}'
    return subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "ASYNCJOBS_DB": str(shell.database)},
    )


def on_a_terminal(*words: str, columns: int = 150) -> str:
    """What a command prints on a terminal, in an environment that says what it is."""
    controller, terminal = pty.openpty()
    environment = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncjobs", *words],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**environment, "TERM": "xterm", "COLUMNS": str(columns)},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            some = os.read(controller, 65_536)
        except OSError:  # so Linux says that nobody has the other end any more
            break
        if not some:
            break
        shown += some
    os.close(controller)
    assert process.wait(20) == 0
    return shown.decode()


async def test_a_terminal_gets_colours_and_a_pipe_does_not(desk: Desk, shell: Shell) -> None:
    job_id = await desk.finished(Event.FAILED)

    shown = await asyncio.to_thread(on_a_terminal, "--db", str(shell.database), "ls")

    assert f"{job_id}  add   \x1b[31mfailed\x1b[0m" in shown
    assert "\x1b" not in shell("ls").out
    raw = await asyncio.to_thread(on_a_terminal, "--db", str(shell.database), "ls", "--json")
    assert raw.startswith('{"jobs"')
    assert "\x1b" not in raw


@pytest.mark.parametrize("columns", [1, 20, 80])
async def test_a_narrow_terminal_gets_every_word_whole(
    desk: Desk, shell: Shell, columns: int
) -> None:
    job_id = await desk.finished(Event.FAILED)
    database = str(shell.database)

    listed = await asyncio.to_thread(on_a_terminal, "--db", database, "ls", columns=columns)
    shown = await asyncio.to_thread(
        on_a_terminal, "--db", database, "show", job_id, columns=columns
    )

    assert without_colours(listed).split() == shell("ls").out.split()
    assert without_colours(shown).split() == shell("show", job_id).out.split()


def without_colours(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_without_rich_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Tty())
    assert type(command._screen(as_json=False)) is Terminal
    assert type(command._screen(as_json=True)) is Screen

    monkeypatch.setitem(sys.modules, "asyncjobs.cli.terminal", None)
    assert type(command._screen(as_json=False)) is Screen


def test_the_demo_takes_the_database_that_stands_before_it_too() -> None:
    assert _parser().parse_args(["--db", "a.db", "demo"]).db == "a.db"
    assert _parser().parse_args(["--db", "a.db", "demo", "--db", "b.db"]).db == "b.db"
    assert _parser().parse_args(["demo"]).db is None

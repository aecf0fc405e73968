"""The session that the guide shows is one that really happens."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from typing import Any

from asyncjobs import Cron, Rate
from asyncjobs.records import ErrorRecord, LogEntry, Note
from asyncjobs.states import Event
from asyncjobs.store.journal import Annotate
from asyncjobs.store.queueing import SetQueue
from tests.pages import blocks, section
from tests.store.kit import Desk
from tests.store.rota import Rota

from .kit import Shell

ERROR = ErrorRecord(
    "smtplib.SMTPServerDisconnected",
    "Connection unexpectedly closed",
    """Traceback (most recent call last):
  File "shop/mail.py", line 31, in send_invoice
    server.send_message(message)
smtplib.SMTPServerDisconnected: Connection unexpectedly closed
""",
)


async def shop(desk: Desk) -> None:
    """What the session is about: a mail that could not be sent, among other things."""
    desk.clock.move_to(datetime(2026, 3, 2, 9, 14, 7, 120_000, tzinfo=UTC))
    await work(desk, "019cae12-8b10-7000-9f2c-2f1d0a44be01", "import_orders", 4.2)
    run = await begin(desk, "019cae12-9b28-7c3a-8d51-77c1f03b9d02", "send_invoice")
    line = LogEntry(1, desk.clock.now(), "INFO", "shop.mail", "connecting to mail.example.com")
    await desk.do(Annotate("here", [Note(run.seq, run.claim, 1, None, [line])]))
    desk.clock.advance(1.5)
    await desk.end(run, Event.FAILED, error=ERROR)
    await work(desk, "019cae12-a0e0-7f55-a3b7-1c0e5d9f6203", "send_invoice", 0.31)
    await set_up(desk)


async def set_up(desk: Desk) -> None:
    """A schedule, and a queue that somebody has limited and paused."""
    rota = Rota(desk)
    nightly = desk.job(task="import_orders", queue="import")
    await rota.create("nightly", job=nightly, when=Cron("30 2 * * *", tz="Europe/Berlin"))
    pause = SetQueue(
        queue="send", note_id="1", actor=None, action="pause", what="{}", paused=True,
        pace=Rate(100, per=60).pace(),
    )  # fmt: skip
    await desk.do(pause)


async def begin(desk: Desk, job_id: str, task: str) -> Any:
    arguments = '{"order":1042}' if task == "send_invoice" else '{"file":"march.csv"}'
    await desk.add(id=job_id, task=task, arguments=arguments, queue=task.split("_")[0])
    (run,) = (await desk.claim(tasks={task: "coroutine"})).jobs
    return run


async def work(desk: Desk, job_id: str, task: str, seconds: float) -> None:
    run = await begin(desk, job_id, task)
    desk.clock.advance(seconds)
    await desk.end(run)


async def test_the_session_of_the_guide(desk: Desk, shell: Shell) -> None:
    await shop(desk)
    (session,) = (block for _, block in blocks("console") if block.startswith("$ asyncjobs"))
    calls = re.findall(r"^\$ asyncjobs (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)

    assert len(calls) >= 4
    for words, shown in calls:
        ran = shell(*shlex.split(words))
        assert ran.err + ran.out == shown, words


def test_exit_codes_of_the_guide_are_those_of_the_code() -> None:
    from asyncjobs.cli import command

    told = section("Command line")
    assert "0 done" in told
    codes = {"done": command.DONE, "not found": command.NOT_SO, "wrong use": command.WRONG_USE,
             "the database": command.NO_DATABASE}  # fmt: skip
    for words, code in codes.items():
        assert re.search(rf"{code} {words}", told), words


def test_commands_of_the_guide_are_those_of_the_code() -> None:
    from asyncjobs.cli.command import COMMANDS
    from asyncjobs.cli.queue_actions import ACTIONS

    rows = section("Commands").split("| command | |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    first_cells = [row.split("|")[1] for row in rows]
    told = {name for cell in first_cells for name in re.findall(r"`([a-z]+)\b", cell)}
    assert told == {*(module.NAME for module in COMMANDS), "demo"}
    (queues,) = (row for row in rows if row.startswith("| `queues`"))
    assert set(ACTIONS) <= set(re.findall(r"`([a-z]+)`", queues))

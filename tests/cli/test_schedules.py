"""``asyncjobs schedules``: when they fire, how they went, and letting them rest."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from asyncjobs import Cron, Every, Runner
from asyncjobs.states import Event
from tests.store.kit import Desk
from tests.store.rota import Rota

from .kit import Shell, files_of, run
from .test_changing import ME, audit, call

HEAD = ["NAME", "STATUS", "NEXT", "LAST", "OUTCOME", "JOB", "MISSED", "SKIPPED", "TASK", "WHEN"]


@pytest.fixture
def rota(desk: Desk) -> Rota:
    return Rota(desk)


async def test_schedules_are_listed_with_their_next_run_and_the_last(
    rota: Rota, shell: Shell
) -> None:
    await rota.create("minutely")
    await rota.create("weekdays", when=Cron("0 7 * * mon-fri"), job=rota.desk.job(task="mul"))
    await rota.tick(200)
    (claimed,) = (await rota.desk.claim()).jobs
    await rota.desk.end(claimed, Event.FAILED)

    listed = shell("schedules")

    head, *rows = [re.split(r"  +", line) for line in listed.lines]
    assert (listed.code, head) == (0, HEAD)
    assert rows == [
        ["minutely", "active", "2026-01-01 00:04:00", "2026-01-01 00:03:00", "failed",
         await rota.last("minutely"), "2", "0", "add", "Every minute"],
        ["weekdays", "active", "2026-01-01 07:00:00", "0", "0", "mul",
         "At 07:00 on Monday through Friday (UTC)"],
    ]  # fmt: skip


async def test_document_holds_what_the_registry_shows(rota: Rota, shell: Shell) -> None:
    await rota.create("a")
    await rota.create("b", when=Every(3600), max_runs=3)

    document = shell("schedules", "--json", "--limit", "1").document
    assert [shown["name"] for shown in document["schedules"]] == ["a"]
    document = shell("schedules", "--json", "--after", document["after"]).document
    (shown,) = document["schedules"]
    assert (shown["name"], shown["sentence"], shown["max_runs"]) == ("b", "Every hour", 3)
    assert shown["next_run"] == "2026-01-01T01:00:00Z"
    assert document["after"] is None


async def test_schedules_are_chosen_by_task_and_status(rota: Rota, shell: Shell) -> None:
    for name in ("a", "b", "c"):
        await rota.create(name, job=rota.desk.job(task="mul" if name == "b" else "add"))
    assert (await call(shell, "schedules", "pause", "c"))[0] == 0

    def names(*words: str) -> list[str]:
        document = shell("schedules", "--json", *words).document
        return [shown["name"] for shown in document["schedules"]]

    assert names() == ["a", "b", "c"]
    assert names("--task", "mul") == ["b"]
    assert names("--status", "paused") == ["c"]
    assert names("--status", "active", "--task", "add") == ["a"]
    assert names("--status", "finished") == []


async def test_list_that_goes_on_says_where(rota: Rota, shell: Shell) -> None:
    for name in ("a", "b", "c"):
        await rota.create(name)

    first = shell("schedules", "--limit", "2")
    assert first.err == "there are more: --after b\n"
    rest = shell("schedules", "--limit", "2", "--after", "b")
    assert (len(first.lines), len(rest.lines), rest.err) == (3, 2, "")


async def test_schedules_are_paused_resumed_and_run(rota: Rota, shell: Shell) -> None:
    await rota.create("s")

    assert await call(shell, "schedules", "pause", "s") == (0, ["s  paused"], "")
    assert (await rota.get()).status == "paused"
    code, (line,), err = await call(shell, "schedules", "run", "s", "--actor", "ops")
    assert (code, line, err) == (0, f"s  {await rota.last()}", "")
    assert await call(shell, "schedules", "resume", "s") == (0, ["s  resumed"], "")
    assert (await rota.get()).status == "active"

    entries = [(entry.actor, entry.action, entry.what) for entry in await audit(shell.database)]
    assert entries == [
        (ME, "resume", {"schedule": "s"}),
        ("ops", "run_now", {"schedule": "s"}),
        (ME, "pause", {"schedule": "s"}),
    ]


async def test_schedules_are_deleted_but_not_those_of_the_code(rota: Rota, shell: Shell) -> None:
    await rota.create("s")
    await rota.declare(rota.given("code"))

    code, lines, err = await call(shell, "schedules", "delete", "code", "s")

    assert (code, lines) == (1, ["s  deleted"])
    assert err.startswith("asyncjobs: schedule 'code' is declared in code")
    assert [shown.name for shown in await rota.store.schedules(limit=9, after="")] == ["code"]
    (entry,) = await audit(shell.database)
    assert (entry.actor, entry.action, entry.what) == (ME, "delete", {"schedule": "s"})


async def test_name_that_is_not_there_is_said_and_the_others_are_changed(
    rota: Rota, shell: Shell
) -> None:
    await rota.create("s")

    code, lines, err = await call(shell, "schedules", "pause", "none", "s")
    assert (code, lines) == (1, ["s  paused"])
    assert err.startswith("asyncjobs: no schedule 'none' is in the database; ")
    ran = await asyncio.to_thread(shell, "schedules", "run", "none", "--json")
    assert (ran.code, ran.document) == (
        1,
        {"schedules": [{"name": "none", "outcome": None, "error": ran.err[11:-1]}]},
    )
    assert len(await audit(shell.database)) == 1  # what changed nothing is not noted


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["pause"], "name the schedules to pause"),
        (["resume", "s", "--task", "add"], "filters only list"),
        (["stop", "s"], "invalid choice: 'stop'"),
        (["--limit", "0"], "limit=0 is out of range"),
        (["--status", "tired"], "invalid choice: 'tired'"),
        (["--after", "a\nb"], "after='a\\nb' has control characters"),
        (["pause", "a\x1b"], "name='a\\x1b' has control characters"),
        (["pause", "s", "--actor", "\x1b"], "actor='\\x1b' has control"),
    ],
)
async def test_what_makes_no_sense_changes_nothing(
    rota: Rota, shell: Shell, words: list[str], complaint: str
) -> None:
    await rota.create("s")

    code, lines, err = await call(shell, "schedules", *words)

    assert (code, lines) == (2, [])
    assert complaint in err
    assert (await rota.get()).status == "active"


async def test_nothing_of_a_schedule_moves_the_terminal(rota: Rota, shell: Shell) -> None:
    await rota.create("s")

    with closing(sqlite3.connect(shell.database)) as connection, connection:
        connection.execute("UPDATE asyncjobs_schedules SET name = char(27) || '[2J'")

    assert "\\x1b[2J" in shell("schedules").out
    assert "\x1b" not in shell("schedules").out + shell("schedules", "--json").out


async def test_live_application_runs_it_at_once(shell: Shell) -> None:
    runner = Runner(shell.database)
    ran = asyncio.Event()

    @runner.task
    async def report() -> None:
        ran.set()

    runner.schedule("yearly", Cron("@yearly"), report.job())
    async with runner:
        assert (await call(shell, "schedules", "run", "yearly"))[0] == 0
        async with asyncio.timeout(30):
            await ran.wait()


def test_nothing_makes_a_database(tmp_path: Path) -> None:
    for words in (["schedules"], ["schedules", "run", "s"], ["queues"], ["queues", "pause", "q"]):
        assert run("--db", tmp_path / "none.db", *words).code == 3
    assert files_of(tmp_path) == {}

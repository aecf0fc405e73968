"""``asyncjobs retry`` and ``cancel``: by id, by filter, beside a live application and without."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncjobs import AuditEntry, JobCancelled, Runner
from asyncjobs.states import Event
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock
from tests.store.kit import Desk

from .kit import Shell, files_of, run

ME = f"{pwd.getpwuid(os.getuid()).pw_name}@{os.uname().nodename}"


async def at_rest(desk: Desk) -> None:
    """Close the store, as when no application runs."""
    await desk.store.close()


async def call(shell: Shell, *words: object) -> tuple[int, list[str], str]:
    """In a thread, since it has an event loop of its own."""
    ran = await asyncio.to_thread(shell, *words)
    return ran.code, ran.lines, ran.err


async def audit(database: Path) -> list[AuditEntry]:
    store = SQLiteStore(str(database), clock=ManualClock())
    await store.open()
    try:
        return await store.audit(limit=10, before=None)
    finally:
        await store.close()


async def states(desk: Desk, *ids: str) -> list[str]:
    jobs = [await desk.store.get(job_id) for job_id in ids]
    return ["gone" if job is None else job.state.value for job in jobs]


async def test_a_failed_job_is_retried_by_the_beginning_of_its_id(desk: Desk, shell: Shell) -> None:
    failed = await desk.finished(Event.FAILED)
    desk.clock.advance(86_400)
    other = await desk.finished(Event.FAILED)

    assert await call(shell, "retry", failed[:8]) == (0, [f"{failed}  retried"], "")

    assert await states(desk, failed, other) == ["queued", "failed"]
    (entry,) = await audit(shell.database)
    assert (entry.actor, entry.action, entry.what) == (ME, "retry", {"id": failed})


@pytest.mark.parametrize("event", [Event.COMPLETED, Event.CANCELLED])
async def test_job_that_has_not_failed_is_retried_only_with_yes(
    desk: Desk, shell: Shell, event: Event
) -> None:
    job_id = await desk.finished(event)

    code, lines, err = await call(shell, "retry", job_id)
    assert (code, lines) == (1, [])
    assert err == (
        f"asyncjobs: job {job_id} is {event.value}, it has not failed; --yes runs it again all "
        "the same\n"
    )
    assert await states(desk, job_id) == [event.value]

    assert await call(shell, "retry", job_id, "--yes") == (0, [f"{job_id}  retried"], "")
    assert await states(desk, job_id) == ["queued"]


async def test_jobs_that_pass_are_retried_so_many_a_second(desk: Desk, shell: Shell) -> None:
    failed = [await desk.finished(Event.FAILED) for _ in range(3)]

    did = await call(shell, "retry", "--state", "failed", "--rate", "0.5", "--yes")

    assert did == (0, ["3 jobs retried"], "")
    due = [job.run_at for job_id in failed if (job := await desk.store.get(job_id)) is not None]
    assert [(at - min(due)).total_seconds() for at in sorted(due)] == [0, 2, 4]


APPLICATION = """
from asyncjobs import Runner, Tasks

tasks = Tasks()
number = 7


@tasks.task(name="mul")
async def charge(order: int, currency: str) -> str:
    return f"charged {order} {currency}"


runner = Runner("another.db")
runner.include(tasks)
"""


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder."""
    name = f"application_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("what", ["runner", "tasks"])
async def test_job_is_retried_with_another_argument_that_its_task_has_checked(
    desk: Desk, shell: Shell, application: str, what: str
) -> None:
    given = '{"order":7,"currency":"DEM"}'
    failed = await desk.finished(Event.FAILED, task="mul", arguments=given)
    app = ["--app", f"{application}:{what}"]

    code, lines, err = await call(shell, "retry", failed, *app, "--arguments", "order=seven")
    assert (code, lines) == (1, [])
    assert "order" in err
    assert await states(desk, failed) == ["failed"]
    assert await call(shell, "retry", failed[:13], *app, "--arguments", "currency=EUR") == (
        0,
        [f"{failed}  retried"],
        "",
    )

    job = await desk.store.get(failed)
    assert job is not None
    assert (job.state, job.arguments) == ("queued", {"order": 7, "currency": "EUR"})
    (entry,) = await audit(shell.database)
    assert (entry.actor, entry.what) == (ME, {"id": failed, "arguments": ["currency"]})
    assert not Path("another.db").exists()  # nothing of the application is started


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["01", "--arguments", "a=1"], "checked by its task: say where that is"),
        (["01", "02", "--arguments", "a=1"], "--arguments changes those of one job"),
        (["01", "--app", "APP:runner"], "--app is for --arguments of one job"),
        (["01", "--arguments", "a", "--app", "APP:runner"], "--arguments takes PATH=VALUE"),
        (["01", "--arguments", "a=1", "--app", "APP"], "is no MODULE:NAME"),
        (["01", "--arguments", "a=1", "--app", "APP:number"], "is int; give a Runner or Tasks"),
        (["01", "--arguments", "a=1", "--app", "APP:none"], "is NoneType; give a Runner or Tasks"),
        (["01", "--arguments", "a=1", "--app", "no_such.app:runner"], "cannot be imported: Module"),
    ],
)
async def test_other_arguments_that_cannot_be_checked_are_refused(
    desk: Desk, shell: Shell, application: str, words: list[str], complaint: str
) -> None:
    await desk.add()

    code, lines, err = await call(
        shell, "retry", *(word.replace("APP", application) for word in words)
    )

    assert (code, lines) == (2, [])
    assert complaint in err
    assert await audit(shell.database) == []


async def test_jobs_are_deleted_by_id_and_by_filter(desk: Desk, shell: Shell) -> None:
    running = (await desk.start()).id
    first, second = await desk.finished(), await desk.finished()

    code, lines, err = await call(shell, "delete", first, running)
    assert (code, lines) == (1, [f"{first}  deleted"])
    assert f"job {running} is running; cancel it and wait for its end" in err
    would = await call(shell, "delete", "--state", "completed")
    assert would == (0, ["1 job would be deleted; --yes does it"], "")
    assert await call(shell, "delete", "--state", "completed", "--yes") == (
        0,
        ["1 job deleted"],
        "",
    )

    assert await states(desk, first, second, running) == ["gone", "gone", "running"]
    bulk, single = await audit(shell.database)
    assert (single.actor, single.action, single.what) == (ME, "delete", {"id": first})
    assert (bulk.actor, bulk.action, bulk.what) == (ME, "delete", {"state": ["completed"]})


async def test_waiting_and_running_jobs_are_cancelled_with_a_reason(
    desk: Desk, shell: Shell
) -> None:
    running = (await desk.start()).id
    waiting = await desk.add()

    code, lines, err = await call(
        shell, "cancel", waiting, running, "--reason", "wrong file", "--actor", "ops"
    )

    assert (code, lines, err) == (0, [f"{waiting}  cancelled", f"{running}  requested"], "")
    job = await desk.store.get(running)
    assert job is not None
    assert (job.state, job.cancel_reason) == ("running", "wrong file")
    assert {entry.actor for entry in await audit(shell.database)} == {"ops"}


async def test_what_cannot_be_changed_is_said_and_the_others_are_changed(
    desk: Desk, shell: Shell
) -> None:
    failed, done = await desk.finished(Event.FAILED), await desk.finished()
    waiting = await desk.add()

    code, lines, err = await call(shell, "retry", waiting, "ffff", failed)
    assert (code, lines) == (1, [f"{failed}  retried"])
    assert f"job {waiting} is queued; only finished jobs can be retried: cancel it first\n" in err
    assert "no job ffff is in the database" in err

    code, lines, err = await call(shell, "cancel", done)
    assert (code, lines) == (1, [])
    assert err == f"asyncjobs: job {done} is finished; only unfinished jobs can be cancelled\n"


async def test_results_are_one_document(desk: Desk, shell: Shell) -> None:
    failed = await desk.finished(Event.FAILED)

    ran = await asyncio.to_thread(shell, "retry", failed, "ffff", "--json")

    assert ran.document["jobs"][0] == {"id": failed, "outcome": "retried", "error": None}
    assert ran.document["jobs"][1]["outcome"] is None


async def test_by_filter_they_are_counted_first_and_changed_when_told_to(
    desk: Desk, shell: Shell
) -> None:
    failed = [await desk.finished(Event.FAILED, task="mul") for _ in range(3)]
    other = await desk.finished(Event.FAILED)
    before = files_of(shell.database.parent)

    would = await call(shell, "retry", "--task", "mul")
    assert would == (0, ["3 jobs would be retried; --yes does it"], "")
    assert files_of(shell.database.parent) == before
    assert await states(desk, *failed) == ["failed"] * 3

    assert await call(shell, "retry", "--task", "mul", "--yes") == (0, ["3 jobs retried"], "")
    assert await states(desk, *failed, other) == [*["queued"] * 3, "failed"]
    (entry,) = await audit(shell.database)
    assert (entry.actor, entry.what, entry.changed) == (
        ME,
        {"task": "mul", "state": ["failed"]},
        3,
    )


async def test_by_filter_in_json(desk: Desk, shell: Shell) -> None:
    waiting = await desk.add()

    would = await asyncio.to_thread(shell, "cancel", "--state", "queued", "--json")
    assert would.document == {"matched": 1, "exact": True, "dry_run": True}
    did = await asyncio.to_thread(shell, "cancel", "--state", "queued", "--yes", "--json")
    assert did.document == {"matched": 1, "changed": 1, "skipped": 0, "dry_run": False}
    assert await states(desk, waiting) == ["cancelled"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["retry"], "name jobs by their ids, or give filters"),
        (["retry", "01", "--state", "failed"], "one of both"),
        (["cancel", "--yes"], "name jobs by their ids, or give filters"),
        (["retry", "01", "--rate", "5"], "--rate spreads the jobs that pass filters"),
        (["retry", "--state", "failed", "--rate", "0"], "rate=0 is out of range"),
        (["delete", "--yes"], "name jobs by their ids, or give filters"),
        (["delete", "--state", "running", "--yes"], "delete_all cannot change jobs that are"),
        (["retry", "--state", "running"], "retry_all cannot change jobs that are running"),
        (["cancel", "--state", "failed", "--yes"], "cancel_all cannot change jobs that are failed"),
        (["cancel", "--state", "nonsense", "--yes"], "state='nonsense' is not known"),
        (["cancel", "01", "--reason", "a\nb"], "reason='a\\nb' has control characters"),
        (["cancel", "--state", "queued", "--yes", "--actor", "\x1b"], "actor='\\x1b' has control"),
    ],
)
async def test_what_makes_no_sense_changes_nothing(
    desk: Desk, shell: Shell, words: list[str], complaint: str
) -> None:
    waiting = await desk.add()

    code, lines, err = await call(shell, *words)

    assert (code, lines) == (2, [])
    assert complaint in err
    assert await states(desk, waiting) == ["queued"]


async def test_it_works_without_an_application_and_leaves_no_log(desk: Desk, shell: Shell) -> None:
    failed = await desk.finished(Event.FAILED)
    await at_rest(desk)

    code, lines, _ = await call(shell, "retry", failed)

    assert (code, lines) == (0, [f"{failed}  retried"])
    left = set(files_of(shell.database.parent))
    assert left == {"jobs.db", "jobs.db-turn", "jobs.db-runners"}
    assert shell("ls", "--count", "--state", "queued").out == "1\n"


async def test_a_live_application_hears_of_it_at_once(shell: Shell) -> None:
    runner = Runner(shell.database)
    started, runs = asyncio.Event(), 0

    @runner.task
    async def work() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("not yet")
        if runs == 2:
            return 2
        started.set()
        await asyncio.Event().wait()
        return 3

    async with runner:
        # Slower than any test is patient: only the doorbell can wake it.
        handle = await work.enqueue()
        await handle.wait()
        retrying = shell.start("retry", handle.id)
        out, err = await asyncio.to_thread(retrying.communicate, timeout=20)
        assert (retrying.returncode, out, err) == (0, f"{handle.id}  retried\n", "")
        assert await runner.handle(handle.id).result(timeout=30) == 2

        endless = await work.enqueue()
        await started.wait()
        cancelling = shell.start("cancel", endless.id, "--reason", "enough")
        out, err = await asyncio.to_thread(cancelling.communicate, timeout=20)
        assert (cancelling.returncode, out, err) == (0, f"{endless.id}  requested\n", "")
        with pytest.raises(JobCancelled, match="enough"):
            await endless.result(timeout=30)


async def test_a_database_of_another_user_is_not_touched(
    desk: Desk, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await desk.add()
    # Nobody can give files away but root; so it is this user that is another one.
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4_321)

    code, lines, err = await call(shell, "cancel", waiting)

    assert (code, lines) == (3, [])
    assert "belongs to" in err
    assert "sudo -u" in err
    assert await states(desk, waiting) == ["queued"]


def test_none_makes_a_database(tmp_path: Path) -> None:
    for words in (["retry", "01"], ["cancel", "--state", "queued", "--yes"], ["delete", "01"]):
        assert run("--db", tmp_path / "none.db", *words).code == 3
    assert files_of(tmp_path) == {}

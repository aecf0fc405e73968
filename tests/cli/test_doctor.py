"""``asyncjobs doctor``: what is wrong is found, and comes with what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncjobs import Runner
from asyncjobs.cli import checkup
from asyncjobs.services.instance import Instance
from asyncjobs.store.base import Join, Leave
from tests.store.kit import Desk

from .kit import Shell
from .test_opening import NEWEST, damaged, directory, foreign, missing, newer, nothing, older, text


def findings(shell: Shell, level: str, *words: str) -> dict[str, str]:
    """Subject and text of those of one level."""
    found = shell("doctor", "--json", *words).document["findings"]
    return {one["subject"]: one["text"] for one in found if one["level"] == level}


async def test_all_is_well_with_a_live_application(shell: Shell) -> None:
    async with Runner(shell.database):
        checked = shell("doctor")

    assert (checked.code, checked.err) == (0, "")
    found = [line.split(maxsplit=2) for line in checked.lines]
    subjects = ["versions", "sqlite", "schema", "settings", "files", "disk", "runners", "log",
                "content"]  # fmt: skip
    assert [subject for _, subject, _ in found] == subjects
    by_subject = {subject: (level, text) for level, subject, text in found}
    assert by_subject["runners"][0] == "ok"
    assert f"process {os.getpid()} on {os.uname().nodename}" in by_subject["runners"][1]
    assert by_subject["content"] == ("ok", "intact, and every invariant holds")
    assert by_subject["schema"] == ("ok", f"version {NEWEST}")


async def test_a_database_at_rest_is_well_but_nobody_works_on_it(desk: Desk, shell: Shell) -> None:
    await desk.store.close()

    assert shell("doctor").code == 0
    assert findings(shell, "note")["runners"] == (
        "none is live: jobs wait until the application starts"
    )


async def test_the_content_is_left_out_when_it_should_be_quick(desk: Desk, shell: Shell) -> None:
    assert findings(shell, "note", "--quick")["content"] == "not looked at: leave out --quick"


async def test_a_broken_invariant_is_named_with_where(desk: Desk, shell: Shell) -> None:
    job_id = await desk.add()
    with contextlib.closing(sqlite3.connect(shell.database, isolation_level=None)) as other:
        other.execute("UPDATE asyncjobs_jobs SET state = 'happy\x1b[2J'")

    checked = shell("doctor")

    assert checked.code == 1
    (broken, *_) = [line for line in checked.lines if "only the six states" in line]
    assert broken.startswith("wrong  content    does not hold: only the six states are stored")
    assert job_id in broken


async def test_runs_of_a_process_that_died_are_found(desk: Desk, shell: Shell) -> None:
    await desk.do(Join("dead", 4_321, "host\x1b[2J"))
    await desk.start("dead")
    await desk.do(Join("idle", 4_322, "host"))

    checked = shell("doctor")

    assert checked.code == 1
    assert "process 4321 on host\\x1b[2J, instance dead is gone, and 1 jobs count as running there"
    assert any(
        line.startswith(
            "wrong  runners    process 4321 on host\\x1b[2J, instance dead is gone, and 1"
        )
        for line in checked.lines
    )
    assert any("process 4322" in line and "died and ran nothing" in line for line in checked.lines)


async def test_runs_that_a_clean_stop_left_behind_are_found(desk: Desk, shell: Shell) -> None:
    await desk.do(Join("stopped", 4_321, "host"))
    await desk.start("stopped")
    await desk.do(Leave("stopped", "stop"))

    assert "1 jobs count as running there" in findings(shell, "wrong")["runners"]


async def test_a_process_that_is_stopped_is_found(desk: Desk, shell: Shell) -> None:
    instance = Instance(str(shell.database), lease_seconds=1_000)
    instance.start(lambda: None)
    try:
        await desk.do(Join(instance.id, 4_321, "host"))
        assert f"instance {instance.id}, since" in findings(shell, "ok")["runners"]

        os.utime(f"{shell.database}-runners/{instance.id}.lock", (1, 1))
        assert "is stopped since" in findings(shell, "wrong")["runners"]
    finally:
        instance.stop()


async def test_files_that_others_can_read_are_found(desk: Desk, shell: Shell) -> None:
    os.chmod(shell.database, 0o644)
    os.chmod(f"{shell.database}-turn", 0o620)

    checked = shell("doctor")

    assert checked.code == 1
    assert f"{shell.database} is open to other users (mode 0644): chmod go= " in checked.out
    assert f"{shell.database}-turn is open to other users (mode 0620)" in checked.out


def test_files_of_another_owner_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "jobs.db")
    for ending in ("", "-turn"):
        Path(path + ending).touch(mode=0o600)
    real = os.stat

    def stat(name: str) -> os.stat_result:
        # Nobody can give files away but root.
        found = list(real(name))
        found[4] = 1234 if name.endswith("-turn") else 1235
        return os.stat_result(found)

    monkeypatch.setattr(os, "stat", stat)
    (finding,) = checkup.files(path)
    monkeypatch.undo()

    assert finding.level == "wrong"
    assert f"{path}-turn belongs to user 1234, the database to 1235" in finding.text
    assert f"chown 1235 {path}-turn" in finding.text


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (older, f"version {NEWEST - 1} is older than this asyncjobs, which needs {NEWEST}"),
        (newer, f"version {NEWEST + 1} is newer than this asyncjobs, which knows {NEWEST}"),
        (nothing, "empty: no application has started"),
        (foreign, "a database of something else"),
    ],
)
def test_a_schema_that_does_not_fit_is_wrong_but_the_file_is_looked_at(
    shell: Shell, make: Callable[[Path], str], complaint: str
) -> None:
    make(shell.database)

    assert shell("doctor").code == 1
    assert complaint in findings(shell, "wrong")["schema"]
    assert findings(shell, "ok")["content"] == "intact"


@pytest.mark.parametrize("make", [missing, directory, text, damaged])
def test_what_is_no_database_cannot_be_examined(shell: Shell, make: Callable[[Path], str]) -> None:
    complaint = make(shell.database)

    refused = shell("doctor")

    assert (refused.code, refused.out) == (3, "")
    assert complaint in refused.err


async def test_damage_to_a_page_is_found(desk: Desk, shell: Shell) -> None:
    await desk.insert(*(desk.job() for _ in range(200)))
    await desk.store.close()
    with contextlib.closing(sqlite3.connect(shell.database)) as other:
        (page,) = other.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'asyncjobs_by_task'"
        ).fetchone()
    with shell.database.open("r+b") as file:
        file.seek((page - 1) * 4096 + 8)
        file.write(b"\xff" * 200)

    checked = shell("doctor")

    assert checked.code == 1
    found = findings(shell, "wrong")["content"]
    assert found.startswith("SQLite finds the file damaged (")
    assert found.endswith("); stop all runners and restore a backup")


# What a machine of tests does not have


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 6, 23), "ok"), ((3, 7, 0), "note"), ((3, 51, 2), "note"), ((3, 51, 3), "ok")],
)
def test_the_bug_of_sqlite_is_named_where_it_is(version: tuple[int, int, int], level: str) -> None:
    _, finding = checkup.versions(version)

    assert finding.level == level
    assert ("WAL-reset bug (3.7.0 to 3.51.2)" in finding.text) == (level == "note")


def test_a_log_that_grows_is_found(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    log = Path(f"{path}-wal")

    assert checkup.log_file(str(path), live=False).level == "ok"
    assert checkup.log_file(str(path), live=True).level == "wrong"
    log.touch()
    assert checkup.log_file(str(path), live=False).level == "ok"
    os.truncate(log, checkup.WAL_BYTES_MAX)
    assert checkup.log_file(str(path), live=True).level == "ok"
    assert checkup.log_file(str(path), live=False).level == "note"
    os.truncate(log, checkup.WAL_BYTES_MAX + 1)
    assert "somebody reads without an end" in checkup.log_file(str(path), live=True).text


def test_a_disk_without_room_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "FREE_BYTES_MIN", 2**80)

    assert any("make room" in finding.text for finding in checkup.disk(str(tmp_path / "jobs.db")))


def test_a_network_file_system_is_found(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 8:2 / /srv rw shared:1 - xfs /dev/sdb1 rw\n"
        "3 2 0:9 / /srv/my\\040data rw - nfs4 server:/data rw\n"
    )

    kinds = {
        folder: checkup.file_system(folder, str(mounts))
        for folder in (
            "/",
            "/home",
            "/srv",
            "/srv/app",
            "/srv/my data",
            "/srv/my data/app",
            "/srvx",
        )
    }

    assert kinds == {
        "/": "ext4", "/home": "ext4", "/srv": "xfs", "/srv/app": "xfs", "/srv/my data": "nfs4",
        "/srv/my data/app": "nfs4", "/srvx": "ext4",
    }  # fmt: skip
    assert checkup.file_system("/", str(tmp_path / "none")) is None
    mounts.write_text("1 0 8:1 / / rw - nfs server:/ rw\n")
    found = list(checkup.disk(str(tmp_path / "jobs.db"), str(mounts)))
    assert any("is on a network file system (nfs)" in finding.text for finding in found)


def test_tables_beside_others_are_noted() -> None:
    shared = {"auto_vacuum": 0, "page_size": 4096, "page_count": 10}

    assert checkup.file_settings(shared).level == "note"

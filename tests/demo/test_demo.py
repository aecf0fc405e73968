"""The demo as its users start it: a process, a directory, a crash."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from asyncjobs import Job, Runner
from asyncjobs.__main__ import main

GOOD = 40
BAD = {
    "syntax.py": b"def (:\n",
    "not_utf8.py": b"name = 'caf\xe9'\n",
    "null.py": b"one = 1\x00\n",
    "deep.py": b"(" * 5_000 + b")" * 5_000,
}
INTERRUPTIBLE = (
    # Shells start background jobs with SIGINT ignored, which children inherit.
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from asyncjobs.__main__ import main; sys.exit(main())"
)


@dataclass
class Result:
    """What one run of the demo printed and left."""

    code: int
    out: str
    err: str

    def figure(self, name: str) -> str:
        """One value of the closing table."""
        (value,) = re.findall(rf"^  {name} +(\S+)", self.out, re.MULTILINE)
        return str(value)


def run(tmp_path: Path, *arguments: str) -> Result:
    """Run ``python -m asyncjobs`` with its temporary files below ``tmp_path``."""
    done = subprocess.run(
        [sys.executable, "-m", "asyncjobs", *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    """What it prints that is not to start at all: the same function, without a process."""
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(list(arguments)))
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Result(ended.value.code, out, err)


def write_sources(directory: Path) -> Path:
    directory.mkdir()
    for number in range(GOOD - 1):
        body = "    pass\n" * (number + 1)
        source = f"class Empty(object): pass\n\ndef f{number}():\n{body}"
        (directory / f"good{number}.py").write_text(source)
    (directory / "<b>&.py").write_text("def longest():\n" + "    pass\n" * 500)
    for name, content in BAD.items():
        (directory / name).write_bytes(content)
    (directory / "site-packages").mkdir()
    (directory / "site-packages" / "other.py").write_text("")
    return directory


async def rows(database: str) -> list[Job]:
    """All jobs of a database; its invariants hold."""
    async with Runner(database, queues=["nobody's"]) as runner:
        assert await runner.registry.check() == []
        return [job async for job in runner.registry.iterate()]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("input") / "sources")


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Result:
    return run(tmp_path_factory.mktemp("crashed"), "demo", "--path", str(sources))


def test_a_crash_loses_nothing_and_repeats_only_what_it_cut_off(crashed: Result) -> None:
    assert (crashed.code, crashed.err) == (0, "")
    assert crashed.figure("jobs accepted") == str(GOOD + len(BAD) + 1)
    assert crashed.figure("completed") == str(GOOD + 1)
    assert crashed.figure("failed") == str(len(BAD))
    assert int(crashed.figure("started again")) >= 1
    for promise in ("lost", "enqueued twice", "run twice", "broken invariants"):
        assert crashed.figure(promise) == "0"


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short name, so that the path of a runner's socket in it is not too long for one."""
    return tmp_path_factory.mktemp("demo")


@pytest.mark.parametrize("executor", ["isolated", "thread"])
def test_a_crash_loses_nothing_with_another_executor(
    folder: Path, sources: Path, executor: str
) -> None:
    result = run(folder, "demo", "--path", str(sources), "--executor", executor)

    assert (result.code, result.err) == (0, "")
    assert result.figure("completed") == str(GOOD + 1)
    assert int(result.figure("started again")) >= 1
    assert f"--executor {executor}" in result.out


def test_the_second_host_finds_all_jobs_by_their_tag(crashed: Result) -> None:
    assert "killed itself with SIGKILL" in crashed.out
    assert f"Found {GOOD + len(BAD)} jobs by tag demo-" in crashed.out
    assert "Enqueued 0 more" in crashed.out


async def test_the_database_holds_one_job_a_file_and_is_sound(crashed: Result) -> None:
    jobs = await rows(crashed.figure("database"))

    paths = Counter(
        job.arguments["path"] for job in jobs if job.task == "demo.index_file" and job.arguments
    )
    assert len(paths) == GOOD + len(BAD)
    assert set(paths.values()) == {1}
    reasons = {
        Path(job.arguments["path"]).name: job.error.message
        for job in jobs
        if job.state == "failed" and job.arguments and job.error
    }
    assert reasons.keys() == BAD.keys()
    assert "null bytes" in reasons["null.py"]
    assert "utf-8" in reasons["not_utf8.py"]
    assert reasons["syntax.py"].startswith("line 1: ")


def test_the_report_lists_failures_and_escapes_names(crashed: Result) -> None:
    page = Path(crashed.figure("report")).read_text()

    assert "&lt;b&gt;&amp;.py" in page
    assert "<b>" not in page
    assert "<td>longest<td>" in page
    assert all(name in page for name in BAD)
    assert "other.py" not in page


def test_runs_on_one_database_do_not_count_each_other(
    crashed: Result, sources: Path, folder: Path
) -> None:
    # Of its own: other tests count what the first run has left.
    database = shutil.copy(crashed.figure("database"), str(folder / "jobs.db"))

    again = run(folder, "demo", "--no-crash", "--db", database, "--path", str(sources))

    assert (again.code, again.err) == (0, "")
    assert again.figure("database") == database
    assert again.figure("jobs accepted") == str(GOOD + len(BAD) + 1)
    assert again.figure("started again") == "0"
    assert "SIGKILL" not in again.out


def test_the_command_it_ends_with_works(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("")
    first = run(tmp_path, "demo", "--path", str(tmp_path))

    words = shlex.split(first.out.splitlines()[-1])

    assert words[:3] == [sys.executable, "-m", "asyncjobs"]
    assert run(tmp_path, *words[3:]).code == 0
    assert first.figure("started again") == "1"


@pytest.mark.parametrize("made", [False, True])
def test_a_directory_without_python_files_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: bool
) -> None:
    directory = tmp_path / "nothing"
    if made:
        directory.mkdir()

    result = refused(capsys, "demo", "--path", str(directory))

    assert (result.code, result.out) == (2, "")
    assert str(directory) in result.err
    assert result.err.count("\n") == 1


def test_a_place_for_no_database_is_refused_in_one_line(sources: Path, tmp_path: Path) -> None:
    place = tmp_path / "directory"
    place.mkdir()

    result = run(tmp_path, "demo", "--path", str(sources), "--db", str(place))

    assert result.code == 2
    assert f"{place} is a directory" in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("arguments", [[], ["unheard-of"], ["demo", "--unheard-of"]])
def test_a_wrong_command_line_is_answered_with_the_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    result = refused(capsys, *arguments)

    assert result.code == 2
    assert result.err.startswith("usage: asyncjobs")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphan_is_left_however_the_demo_is_ended(tmp_path: Path, number: int) -> None:
    # A job that reads a FIFO lasts as long as we like, and writing to it fails when it is gone.
    slow = tmp_path / "slow.py"
    os.mkfifo(slow)
    demo = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "demo", "--no-crash", "--path", str(tmp_path)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with slow.open("wb", buffering=0) as pipe:
        demo.send_signal(number)
        out, err = demo.communicate(timeout=30)  # also ends when the host has closed its streams
        with pytest.raises(BrokenPipeError):
            pipe.write(b"#")

    assert demo.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in out + err
    if number == signal.SIGINT:
        assert err.startswith("\nInterrupted. ")

"""How tasks get into workers: packages, scripts, what cannot be imported, and loading it anew."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from asyncjobs import Runner, Tasks, WorkersFailed
from asyncjobs.running.executors.process.boot import command
from asyncjobs.running.executors.process.wire import Setup, frame
from tests.oracles.census import nothing_left

from . import worker_tasks as w
from .hosts import run_program
from .support import pids_at, workers
from .worker_tasks import Point

SCRIPT = """
import asyncio, dataclasses, os, sys
from asyncjobs import Runner

runner = Runner("jobs.db", processes=1)

@dataclasses.dataclass
class Pair:
    left: int
    right: int

@runner.task(executor="process")
def swap(pair: Pair) -> Pair:
    return Pair(pair.right, pair.left)

@runner.task(executor="process")
def names() -> list[str]:
    return [__name__, swap.name, str(sys.argv[1:]), str(os.getpid())]

async def main():
    async with runner:
        print(await (await swap.enqueue(Pair(1, 2))))
        print(await (await names.enqueue()))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported, and are forgotten again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("jobs_of_"):
            del sys.modules[name]


def module(folder: Path, name: str, text: str) -> ModuleType:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    importlib.invalidate_caches()
    return importlib.import_module(name)


async def refusal(folder: Path, tasks: Tasks) -> str:
    """What the start of a runner with these tasks says."""
    runner = Runner(folder / "jobs.db")
    runner.include(tasks)
    async with nothing_left(folder / "jobs.db"):
        with pytest.raises(WorkersFailed) as caught:
            await runner.start()
    with closing(sqlite3.connect(folder / "jobs.db")) as connection:
        started = connection.execute("SELECT count(*) FROM asyncjobs_instances").fetchone()
    assert started == (0,), "a start that failed looks like a runner that died"
    return str(caught.value)


def test_tasks_and_types_of_a_script_with_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SCRIPT + 'if __name__ == "__main__":\n    asyncio.run(main())\n')
    done = run_program(script)

    assert done.stderr == ""
    assert done.stdout.startswith("Pair(left=2, right=1)\n['__asyncjobs_main__', 'program.swap',")


def test_script_of_a_package_started_as_a_module(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "numbers.py").write_text("SEVEN = 7\n")
    (package / "__main__.py").write_text(
        SCRIPT.replace("import Runner", "import Runner\nfrom .numbers import SEVEN").replace(
            "pair.right, pair.left", "pair.right, SEVEN"
        )
        + 'assert swap.name == "shop.__main__.swap", swap.name\n'
        + 'if __name__ == "__main__":\n    asyncio.run(main())\n'
    )
    done = run_program(package, "-m", "shop")

    assert done.stderr == ""
    assert done.stdout.startswith("Pair(left=2, right=7)\n")


def test_script_without_a_main_guard_gets_one_clear_error(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SCRIPT + "asyncio.run(main())\n")
    done = run_program(script)

    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("asyncjobs.WorkersFailed: module '__main__ (")
    assert "put what starts the program under if __name__ == '__main__':" in last
    assert done.stderr.count("WorkersFailed") == 1


def test_tasks_typed_into_an_interpreter_get_one_clear_error(tmp_path: Path) -> None:
    done = run_program(tmp_path, "-c", SCRIPT + "\nasyncio.run(main())")

    assert done.returncode == 1
    assert "put '__main__.swap', '__main__.names' into a module" in done.stderr


async def test_module_that_fails_to_import_there_is_named_with_its_traceback(
    package: Path,
) -> None:
    broken = module(
        package,
        "jobs_of_broken",
        """
        import os
        from asyncjobs import Tasks
        tasks = Tasks()

        @tasks.task(executor="process")
        def nothing() -> None: ...

        if os.getpid() != {pid}:
            raise KeyError("no such setting")
        """.replace("{pid}", str(os.getpid())),
    )
    said = await refusal(package, broken.tasks)

    assert said.startswith("module 'jobs_of_broken' cannot be imported by workers:\nTraceback")
    assert "line 10, in <module>" in said
    assert said.endswith("KeyError: 'no such setting'")


async def test_module_that_exits_when_it_is_imported_is_named(package: Path) -> None:
    leaving = module(
        package,
        "jobs_of_leaving",
        """
        import os, sys
        from asyncjobs import Tasks
        tasks = Tasks()
        tasks.task(executor="isolated")(os.getpid)
        """,
    )
    (package / "jobs_of_leaving.py").write_text("import sys\nsys.exit(3)\n")

    assert (await refusal(package, leaving.tasks)).endswith("SystemExit: 3")


async def test_module_that_ends_its_process_is_no_hanging_pool(package: Path) -> None:
    ending = module(
        package, "jobs_of_ending",
        "import os\nfrom asyncjobs import Tasks\ntasks = Tasks()\n"
        "tasks.task(executor='process')(os.getpid)\n",
    )  # fmt: skip
    (package / "jobs_of_ending.py").write_text("import os\nos._exit(3)\n")

    assert "ended while it imported the tasks" in await refusal(package, ending.tasks)


async def test_task_made_inside_a_function_is_refused_at_the_start(tmp_path: Path) -> None:
    tasks = Tasks()

    @tasks.task(executor="process")
    def hidden() -> None: ...

    said = await refusal(tmp_path, tasks)
    assert hidden.name in said
    assert "not inside a function" in said


async def test_module_that_starts_threads_is_spawned_and_that_is_said_once(
    package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threaded = module(
        package,
        "jobs_of_threaded",
        """
        import os, threading
        from asyncjobs import Tasks
        tasks = Tasks()
        threading.Thread(target=threading.Event().wait, name="ticker", daemon=True).start()

        @tasks.task(executor="process")
        def pid() -> int:
            return os.getpid()
        """,
    )
    runner = Runner(package / "jobs.db", processes=1, max_jobs=1)
    runner.include(threaded.tasks)
    async with runner:
        pids = {await (await threaded.pid.enqueue()) for _ in range(3)}

    assert len(pids) == 3
    assert caplog.text.count("spawned, not forked") == 1
    assert "ticker" in caplog.text


async def test_workers_are_spawned_on_request(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1, process_start="spawn"):
        assert await (await w.mirror.enqueue(Point(1, 2))) == Point(2, 1)
        runs = [await (await w.alone.enqueue(word)) for word in "ab"]

    assert [words for _, words in runs] == [["a"], ["b"]]


async def test_import_error_is_found_at_the_start_when_spawning_too(package: Path) -> None:
    broken = module(
        package, "jobs_of_spawned",
        "import os\nfrom asyncjobs import Tasks\ntasks = Tasks()\n"
        "tasks.task(executor='process')(os.getpid)\n",
    )  # fmt: skip
    (package / "jobs_of_spawned.py").write_text("import no_such_module_anywhere\n")
    runner = Runner(package / "jobs.db", process_start="spawn")
    runner.include(broken.tasks)

    async with nothing_left(package / "jobs.db"):
        with pytest.raises(WorkersFailed, match="no_such_module_anywhere"):
            await runner.start()


async def test_modules_are_loaded_anew_on_request_and_a_broken_one_changes_nothing(
    package: Path,
) -> None:
    text = """
        from asyncjobs import Tasks
        tasks = Tasks()

        @tasks.task(executor="process")
        def version() -> int:
            return 1
        """
    changing = module(package, "jobs_of_changing", text)
    runner = Runner(package / "jobs.db", processes=1)
    runner.include(changing.tasks)
    async with nothing_left(package / "jobs.db"), runner:
        assert await (await changing.version.enqueue()) == 1

        (package / "jobs_of_changing.py").write_text("raise ValueError('half saved')")
        with pytest.raises(WorkersFailed, match="half saved"):
            await runner.reload_workers()
        assert await (await changing.version.enqueue()) == 1

        text = textwrap.dedent(text).replace("return 1", "return 2  # longer than before")
        (package / "jobs_of_changing.py").write_text(text)
        await runner.reload_workers()
        assert await (await changing.version.enqueue()) == 2


async def test_job_that_runs_while_modules_are_loaded_anew_ends_with_the_old_ones(
    package: Path,
) -> None:
    text = """
        import os
        from asyncjobs import Tasks
        tasks = Tasks()

        @tasks.task(executor="process")
        def version(path: str, pipe: str) -> int:
            with open(path, "a") as file:
                print(os.getpid(), file=file)
            with open(pipe) as waiting:
                waiting.read()
            return 1
        """
    changing = module(package, "jobs_of_running", text)
    pipe = package / "pipe"
    os.mkfifo(pipe)
    runner = Runner(package / "jobs.db", processes=1)
    runner.include(changing.tasks)
    async with nothing_left(package / "jobs.db"), runner:
        running = await changing.version.enqueue(str(package / "it"), str(pipe))
        await pids_at(package / "it")
        text = textwrap.dedent(text).replace("return 1", "return 2  # longer than before")
        (package / "jobs_of_running.py").write_text(text)
        await runner.reload_workers()
        pipe.write_text("go on")
        assert await running == 1
        assert (await running.job()).claim == 1

        assert await (await changing.version.enqueue(os.devnull, os.devnull)) == 2


async def test_task_that_is_included_later_gets_its_workers(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db", processes=1)
    async with nothing_left(tmp_path / "jobs.db"), runner:
        runner.include(w.tasks)
        handle = await w.mirror.enqueue(Point(1, 2))
        assert await asyncio.wait_for(handle.result(), 10) == Point(2, 1)


async def test_two_hosts_on_one_file_have_workers_of_their_own(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        SCRIPT.replace("print(await (await swap", "print((await (await swap").replace(
            "Pair(1, 2))))", "Pair(1, 2)))).left)"
        )
        + 'if __name__ == "__main__":\n    asyncio.run(main())\n'
    )
    root = Path(__file__).resolve().parents[2]
    hosts = [
        subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE,
                         env={"PYTHONPATH": str(root)}, text=True)
        for _ in range(3)
    ]  # fmt: skip
    for host in hosts:
        out, _ = await asyncio.to_thread(host.communicate, timeout=30)
        assert host.returncode == 0
        assert out.startswith("2\n")


# Resources


async def test_resources_are_set_up_once_in_each_worker_and_torn_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("RESOURCE_LEDGER", str(ledger))
    from . import worker_resources as r

    runner = Runner(tmp_path / "jobs.db", processes=1)
    runner.include(r.tasks)
    async with nothing_left(tmp_path / "jobs.db"), runner:
        seen = [await (await r.use.enqueue()), await (await r.use_later.enqueue())]
    pid = seen[0][0]

    assert seen == [[pid] * 3] * 2
    words = [line.removesuffix(f" {pid}") for line in ledger.read_text().splitlines()
             if line.endswith(f" {pid}")]  # fmt: skip
    assert words == ["model up", "pool up", "pool down", "model down"]


def test_fork_server_whose_host_has_gone_while_it_imported_ends_without_a_traceback() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = subprocess.Popen(
            command("serve", theirs.fileno()), pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
        setup = Setup(["it"], ["no_such_module"], None, "", [], [], "fork", 30.0)
        ours.sendall(frame(setup))
    _, said = server.communicate(timeout=30)

    assert (server.returncode, said) == (1, b"")

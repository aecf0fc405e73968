"""The runner inside other people's programs: loops, servers, fixtures, signals, exits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from asyncjobs import Runner
from asyncjobs.testing import ManualClock, run_until_idle

from .support import run_script, until


def script(folder: Path, text: str) -> Path:
    path = folder / "app.py"
    path.write_text(textwrap.dedent(text))
    return path


class Program:
    """A script under way; its lines as they come."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", *(arguments or (str(path),))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=path.parent,
        )
        self.seen: list[str] = []

    def line_with(self, text: str) -> str:
        """Wait for the line that holds ``text``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(line)
            if text in line:
                return line
        raise AssertionError("".join(self.seen))

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end: its code and the rest of what it said."""
        rest, _ = self.process.communicate(timeout=15)
        return self.process.returncode, rest


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Ends what a failing test has left running."""
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
            program.process.communicate()


WORKER = """
    import asyncio, sys
    from asyncjobs import Runner
    runner = Runner("jobs.db", grace={grace})

    @runner.task(name="slow")
    async def slow(seconds: float) -> None:
        print("started", flush=True)
        await asyncio.sleep(seconds)
        print("finished", flush=True)

    async def main():
        async with runner:
            await slow.enqueue({seconds})

    if "fill" in sys.argv:
        runner2 = Runner("jobs.db", queues=["none"])
        async def fill():
            runner2.include(slow)
            async with runner2:
                await runner2.enqueue(slow.job({seconds}))
        asyncio.run(fill())
    else:
        asyncio.run(runner.run())
        print("ended", flush=True)
    """


async def state_of(path: Path) -> list[tuple[str, int, int]]:
    async with Runner(path, queues=["none"]) as runner:
        return [(job.state, job.attempt, job.crashes) async for job in runner.registry.iterate()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_program_drains_at_the_first_signal(
    tmp_path: Path, number: int, programs: list[Program]
) -> None:
    path = script(tmp_path, WORKER.format(grace=10, seconds=0.3))
    run_script(path, "fill")
    programs.append(program := Program(path))
    program.line_with("started")

    program.send(number)
    code, rest = program.end()

    assert (code, rest.split()) == (0, ["finished", "ended"])
    assert await state_of(tmp_path / "jobs.db") == [("completed", 1, 0)]


async def test_program_hurries_at_the_second_signal(
    tmp_path: Path, programs: list[Program]
) -> None:
    path = script(tmp_path, WORKER.format(grace=60, seconds=60))
    run_script(path, "fill")
    programs.append(program := Program(path))
    program.line_with("started")

    begun = time.monotonic()
    program.send(signal.SIGINT)
    program.send(signal.SIGTERM)
    code, rest = program.end()

    assert (code, rest.split()) == (0, ["ended"])
    assert time.monotonic() - begun < 30
    assert await state_of(tmp_path / "jobs.db") == [("queued", 0, 0)]


def test_first_program_of_the_readme_shape_runs(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
        import asyncio
        from asyncjobs import Runner
        runner = Runner("jobs.db")

        @runner.task
        async def add(a: int, b: int) -> int:
            return a + b

        async def main() -> None:
            async with runner:
                handle = await add.enqueue(1, 2)
                print(add.name, await handle)

        asyncio.run(main())
        """,
    )

    assert run_script(path).split() == ["app.add", "3"]


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "raise SystemExit(0)",
        "return await asyncio.sleep(0)",
    ],
)
def test_program_that_forgets_to_stop_still_ends(tmp_path: Path, ending: str) -> None:
    path = script(
        tmp_path,
        f"""
        import asyncio, threading
        from asyncjobs import Runner
        runner = Runner("jobs.db")

        @runner.task
        async def forever() -> None:
            await asyncio.Event().wait()

        @runner.task
        def blocks() -> None:
            threading.Event().wait()

        async def main():
            await runner.start()
            await forever.enqueue()
            await blocks.enqueue()
            print("working", flush=True)
            {ending}

        asyncio.run(main())
        """,
    )

    assert run_script(path) == "working\n"


def test_program_whose_loop_is_thrown_away_still_ends(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
        import asyncio
        from asyncjobs import Runner
        runner = Runner("jobs.db")

        @runner.task
        async def job() -> int:
            return 1

        async def main():
            await runner.start()
            return await (await job.enqueue())

        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(main()))
        """,
    )

    assert run_script(path) == "1\n"


def test_runner_works_on_uvloop(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
        import asyncio, uvloop
        from asyncjobs import Runner
        runner = Runner("jobs.db", concurrency=2, grace=0.1)

        @runner.task
        async def child(number: int) -> int:
            return number

        @runner.task
        async def parent() -> int:
            return sum(await asyncio.gather(*[await child.enqueue(n) for n in range(20)]))

        @runner.task
        def thread() -> int:
            return 5

        @runner.task(timeout=0.01)
        async def slow() -> None:
            await asyncio.Event().wait()

        @runner.task
        async def forever() -> None:
            await asyncio.Event().wait()

        async def main():
            assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
            async with runner:
                print(await (await parent.enqueue()), await (await thread.enqueue()))
                print((await (await slow.enqueue()).wait()).reason)
                await forever.enqueue()
            async with runner:
                print(await runner.registry.check(), await runner.registry.count())

        uvloop.run(main())
        """,
    )

    assert run_script(path).splitlines() == ["190 5", "timeout", "[] 24"]


ASGI = """
    import asyncio
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from asyncjobs import Runner
    runner = Runner("jobs.db", grace=5)

    @runner.task(name="double")
    async def double(number: int) -> int:
        return number * 2

    @runner.task(name="slow")
    async def slow() -> None:
        await asyncio.sleep(0.3)

    async def post(request):
        await slow.enqueue()
        handle = await double.enqueue(int(request.query_params["number"]))
        return JSONResponse({"id": handle.id, "result": await handle})

    app = Starlette(routes=[Route("/", post)], lifespan=runner.lifespan)
    """


async def test_runner_lives_in_the_lifespan_of_a_real_server(
    tmp_path: Path, programs: list[Program], unused_tcp_port: int
) -> None:
    path = script(tmp_path, ASGI)
    programs.append(
        program := Program(path, "-m", "uvicorn", "app:app", "--port", str(unused_tcp_port))
    )
    program.line_with("running on")

    url = f"http://127.0.0.1:{unused_tcp_port}/?number=21"
    answer = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())
    program.send(signal.SIGTERM)
    _, rest = await asyncio.to_thread(program.end)

    assert b'"result":42' in answer
    assert "Application shutdown complete" in rest
    assert "Traceback" not in rest
    assert await state_of(tmp_path / "jobs.db") == [("completed", 1, 0)] * 2
    assert list((tmp_path / "jobs.db-runners").iterdir()) == []


@pytest_asyncio.fixture
async def own_runner(tmp_path: Path) -> AsyncIterator[Runner]:
    """As users write it: a block around a yield, entered and left in different tasks."""
    async with Runner(tmp_path / "own.db", clock=ManualClock()) as runner:
        yield runner


async def test_runner_works_in_a_yield_fixture(own_runner: Runner) -> None:
    @own_runner.task
    async def job() -> int:
        return 1

    handle = await job.enqueue()
    await run_until_idle(own_runner)

    assert await handle == 1


def test_embedded_runner_leaves_signal_handlers_alone(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    during: dict[int, object] = {}

    async def main() -> None:
        inside = {number: signal.getsignal(number) for number in before}
        async with Runner(tmp_path / "jobs.db"):
            during.update({n: signal.getsignal(n) == inside[n] for n in before})

    asyncio.run(main())

    assert set(during.values()) == {True}
    assert {number: signal.getsignal(number) for number in before} == before


def test_run_gives_the_signal_handlers_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        running = asyncio.create_task(Runner(tmp_path / "jobs.db").run())
        await until(lambda: signal.getsignal(signal.SIGTERM) != before)
        os.kill(os.getpid(), signal.SIGTERM)
        await running

    asyncio.run(main())

    assert signal.getsignal(signal.SIGTERM) == before

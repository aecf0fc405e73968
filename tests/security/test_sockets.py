"""A runner listens to nobody: no socket accepts connections, none is bound to an address."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, since pytest and its plugins may have sockets, and hooks stay for ever.
PROGRAM = """
import asyncio, os, socket, stat, sys

events = []
def note(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"):
        family = arguments[0].family if event != "socket.getaddrinfo" else socket.AF_INET
        if family != socket.AF_UNIX:
            events.append((event, str(arguments[1:])))
sys.addaudithook(note)

from asyncjobs import Runner

def listening():
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
        except OSError:  # the descriptor of the listing itself
            continue
        with socket.socket(fileno=os.dup(int(name))) as one:
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(name)
            elif one.family in (socket.AF_INET, socket.AF_INET6):
                found.append(name)
    return found

async def main():
    runner = Runner(sys.argv[1])

    @runner.task
    async def look() -> list[str]:
        return listening()

    @runner.task
    def look_in_a_thread() -> list[str]:
        return listening()

    async with runner:
        assert await (await look.enqueue()) == []
        assert await (await look_in_a_thread.enqueue()) == []
        if sys.argv[2:]:
            open_one = socket.create_server(("127.0.0.1", 0))
            assert listening() != []
            open_one.close()
    assert listening() == []

asyncio.run(main())
print(events)
"""


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="descriptors cannot be listed here")
def test_a_runner_opens_no_socket_that_others_could_reach(tmp_path: Path) -> None:
    assert run(str(tmp_path / "jobs.db")) == "[]"


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="descriptors cannot be listed here")
def test_a_socket_that_listens_would_be_found(tmp_path: Path) -> None:
    assert "socket.bind" in run(str(tmp_path / "jobs.db"), "open one")

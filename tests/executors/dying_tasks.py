"""Workers that meet their fate at a chosen point of their life, and tasks that bring it about.

What is to strike a worker outside of a job, or before it, stands in a file named like the phase,
which the first worker that comes there takes away. Inside a job its arguments say it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from asyncjobs import Tasks, current_job
from asyncjobs.running.executors.process import child
from tests.oracles import EffectLedger

FOLDER = "ASYNCJOBS_TEST_FATES"
STRUCK = "struck"
"""Here a worker says which process it is, right before its fate."""
BORN = "born"
"""The same when it is able to hear a signal."""
DESCRIPTORS = range(3, 64)
MEGABYTE = 1024 * 1024

tasks = Tasks()
_in_worker = False
_at_its_end = ""
"""What strikes this worker when it leaves."""


def folder() -> Path:
    return Path(os.environ[FOLDER])


def tell(name: str) -> None:
    """Say in a file which process this is."""
    with open(folder() / name, "a") as file:
        file.write(f"{os.getpid()}\n")


class Unspeakable(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise LookupError("no words")


def strike(how: str) -> None:
    """Let the worker meet its fate here and now."""
    if not _in_worker or not how:
        return
    os.write(1, f"last words of {how}\n".encode())
    tell(STRUCK)
    match how:
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "memory":
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEGABYTE, resource.RLIM_INFINITY))
            bytearray(256 * MEGABYTE)
        case "close":
            os.closerange(DESCRIPTORS.start, DESCRIPTORS.stop)
        case "hang up":
            for connection in _sockets():
                connection.shutdown(socket.SHUT_RDWR)
            _hang()
        case "garbage":
            for connection in _sockets():
                connection.send(b"this is no frame of yours" * 100)
            threading.Event().wait()
        case "hang":
            _hang()
        case "unserialisable":
            raise Unspeakable


def _sockets() -> list[socket.socket]:
    found = []
    for descriptor in DESCRIPTORS:
        with contextlib.suppress(OSError):
            found.append(socket.socket(fileno=os.dup(descriptor)))
    return found


def _hang() -> NoReturn:
    """Inside a C call that holds the GIL."""
    while True:
        ctypes.PyDLL(None).sleep(3600)


def _strike_if_due(phase: str) -> None:
    path = folder() / phase
    taken = folder() / f"{phase} {os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(taken)
        strike(taken.read_text())


# Points of a worker's life

_serve = child.Worker.serve


def _serve_after_all(self: child.Worker, output: int) -> NoReturn:
    global _in_worker
    _in_worker = True
    _strike_if_due("before ready")
    signal.signal(signal.SIGUSR2, lambda *_: _strike_if_due("idle"))
    tell(BORN)
    _serve(self, output)


child.Worker.serve = _serve_after_all  # type: ignore[method-assign]


@tasks.resource
async def life() -> AsyncIterator[None]:
    _strike_if_due("setting up")
    await asyncio.sleep(0)
    yield
    strike(_at_its_end)


@dataclass
class Parcel:
    """Deadly when it is unpacked."""

    how: str

    def __post_init__(self) -> None:
        strike(self.how)


class Ghost(PurePosixPath):
    """Deadly when it is encoded: it is stored as its text."""

    def __str__(self) -> str:
        strike(self.name)
        return super().__str__()


def _answer_by_half(how: str) -> None:
    """The next message breaks off in its midst."""
    send = socket.socket.sendall

    def send_half(connection: socket.socket, data: Any) -> None:
        send(connection, data[: len(data) // 2])
        strike(how)
        send(connection, data[len(data) // 2 :])

    socket.socket.sendall = send_half  # type: ignore[method-assign, assignment]


def suffer(phase: str, how: str, parcel: Parcel) -> Any:
    """Run, and be struck in this phase."""
    global _at_its_end
    job = current_job()
    effects = EffectLedger(folder() / "effects")
    effects.start(job.id, job.fence)
    effects.close()
    match phase:
        case "running":
            strike(how)
        case "encoding" if how == "unserialisable":
            return threading.Lock()
        case "encoding":
            return Ghost(how)
        case "answering":
            _answer_by_half(how)
        case "recycling":
            _at_its_end = how
    return os.getpid()


tasks.task(executor="process", name="warm", on_crash="fail", memory_limit=512 * MEGABYTE)(suffer)
tasks.task(executor="isolated", name="alone", on_crash="fail", memory_limit=512 * MEGABYTE)(suffer)


def stand_by(gate: str, running: str) -> int:
    """Run until somebody writes to the pipe."""
    job = current_job()
    effects = EffectLedger(folder() / "effects")
    effects.start(job.id, job.fence)
    tell(running)
    waiting = os.open(gate, os.O_RDONLY)
    os.read(waiting, 1)
    os.close(waiting)
    effects.end(job.id, job.fence)
    effects.close()
    return job.fence[1]


tasks.task(executor="process", name="warm bystander")(stand_by)
tasks.task(executor="isolated", name="lone bystander")(stand_by)

by_name = {task.name: task for task in tasks}

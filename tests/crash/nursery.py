"""Where hosts are born: a process that has imported what they need, and forks.

A new Python with these imports takes half a second, and the crash tests start hundreds of hosts. A
host that was forked is one like any other: it has made nothing of ours before it was born.

Over the socket that is its standard input come requests: program and arguments as JSON, and four
descriptors, of its three streams and of a pipe that tells its process id, and at its end how it
ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback

IMPORTED = (
    "asyncjobs.services.engine", "asyncjobs.store.sqlite.joining", "asyncjobs.testing",
    "asyncjobs.running.executors.process.executors", "asyncjobs.running.executors.thread",
    "tests.oracles",
)  # fmt: skip
REQUEST_MAX = 65_536

Ends = dict[int, int]
"""By process id, the pipe that tells of its end."""


def serve(channel: socket.socket) -> int | None:
    """Fork a host for each request, until the tests are over; in a host, its exit code."""
    ends: Ends = {}
    hearing, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(telling)
    while True:
        ready, _, _ = select.select([channel.fileno(), hearing], [], [])
        if hearing in ready:
            os.read(hearing, REQUEST_MAX)
            _tell_ends(ends)
        if channel.fileno() in ready:
            request, descriptors, *_ = socket.recv_fds(channel, REQUEST_MAX, 4)
            if not request:
                return None
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for unwanted in (hearing, telling, *ends.values()):
                    os.close(unwanted)
                return _live(channel, descriptors, *json.loads(request))
            for stream in descriptors[:3]:
                os.close(stream)
            ends[pid] = descriptors[3]
            _write(descriptors[3], f"{pid}\n")


def _tell_ends(ends: Ends) -> None:
    with contextlib.suppress(ChildProcessError):
        while (end := os.waitpid(-1, os.WNOHANG))[0]:
            pipe = ends.pop(end[0])
            _write(pipe, f"{os.waitstatus_to_exitcode(end[1])}\n")
            os.close(pipe)


def _write(pipe: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(pipe, text.encode())


def _live(channel: socket.socket, descriptors: list[int], program: str, *arguments: str) -> int:
    for number, stream in enumerate(descriptors[:3]):
        os.dup2(stream, number)
    for descriptor in descriptors:
        os.close(descriptor)
    channel.close()
    # The objects were made for the nursery's streams, whose numbers are these; its input was read
    # by nobody.
    name = f"tests.crash.{program}"
    sys.argv[1:] = arguments
    sys.modules.pop(name, None)
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=os.dup(0))
    os.set_inheritable(requests.fileno(), False)
    sys.exit(serve(requests))

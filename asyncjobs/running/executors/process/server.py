"""The fork server: imports the application's modules once, and forks workers that have them.

A clean child of the host, with one thread and no event loop, so that forking is safe and takes a
millisecond. It is the parent of all workers: it sees them end, ends what they leave behind, and
when the host is gone it ends them all before it goes itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import NoReturn

from ....errors import InvalidOption, WorkersFailed
from ...context import RunnableTask
from .boot import command
from .child import Worker
from .kernel import (
    adopt_orphans,
    be_batch_work,
    children_of,
    descendants_of,
    die_with_parent,
    send_signal,
)
from .modules import load_resources, load_tasks
from .remote import RemoteRunner
from .wire import (
    HEAD,
    Born,
    Exited,
    Fork,
    Frames,
    Guard,
    Kill,
    Message,
    Ready,
    Setup,
    Unready,
    frame,
    to_server,
    to_worker,
)

RECEIVE_BYTES = 64 * 1024
DESCRIPTORS_MAX = 16
"""More than the messages of one receive can carry; the kernel cuts at each of them anyway."""
LEASE_LOOKS = 5
"""How often per lease the server looks whether the host still renews it."""
LEASE_SHARE = 0.8
"""Of a lease: a host that has not renewed it for so long is about to be taken for dead."""
END_SECONDS = 1.0
"""How long killed workers are waited for when the host has gone."""
NOT_BORN = 255
"""Status of a worker that could not be forked."""


def serve(descriptor: int) -> NoReturn:
    """Be the fork server of the host at the other end."""
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    setup = _read_setup(connection)
    sys.argv[:] = setup.argv
    adopt_orphans()
    server = _Server(connection, setup)
    try:
        tasks = try_out(setup) if setup.start == "spawn" else prepare(setup)
    except WorkersFailed as failed:
        _refuse(connection, failed)
    server.run(tasks)


def work(descriptor: int, output: int) -> NoReturn:
    """Be a worker that was spawned: import everything anew."""
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    os.set_inheritable(output, False)
    setup = _read_setup(connection)
    sys.argv[:] = setup.argv
    try:
        tasks = prepare(setup)
    except WorkersFailed as failed:
        _refuse(connection, failed)
    connection.sendall(frame(Ready("spawn", [])))
    Worker(connection, tasks, load_resources(setup), _remote(tasks)).serve(output)


def _refuse(connection: socket.socket, failed: WorkersFailed) -> NoReturn:
    """Say that the tasks cannot be had, to a host that may have gone meanwhile."""
    with contextlib.suppress(OSError):
        connection.sendall(frame(Unready(str(failed))))
    os._exit(1)


def prepare(setup: Setup) -> dict[str, RunnableTask]:
    """Import the tasks, and make ready what every worker would have to make.

    Raises:
        WorkersFailed: they cannot be had.
    """
    tasks = load_tasks(setup)
    try:
        for task in tasks.values():
            task.codec  # noqa: B018 - made here, once, and not in each worker
    except InvalidOption as error:
        raise WorkersFailed(str(error)) from error
    return tasks


def try_out(setup: Setup) -> dict[str, RunnableTask]:
    """Import the tasks in a child that ends then, to know that they can be; none are here.

    Raises:
        WorkersFailed: they cannot.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prepare(setup)
        except WorkersFailed as failed:
            with open(writing, "w") as pipe:
                pipe.write(str(failed))
            os._exit(1)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if said or status:
        raise WorkersFailed(said or f"the modules {setup.modules} ended the process that imports")
    return {}


def _remote(tasks: dict[str, RunnableTask]) -> RemoteRunner:
    remote = RemoteRunner(tasks)
    for task in tasks.values():
        task.start(remote)
    return remote


def _read_setup(connection: socket.socket) -> Setup:
    """The first message, and not a byte of the next."""
    data = b""
    wanted = HEAD
    while len(data) < wanted:
        piece = connection.recv(wanted - len(data))
        if not piece:
            os._exit(0)  # the host has gone meanwhile
        data += piece
        if len(data) == HEAD:
            wanted = HEAD + int.from_bytes(data, "big")
    message = to_worker(data[HEAD:])
    assert isinstance(message, Setup)
    return message


class _Server:
    def __init__(self, connection: socket.socket, setup: Setup) -> None:
        self._connection = connection
        self._setup = setup
        self._frames = Frames()
        self._descriptors: list[int] = []
        """Received, and not yet used."""
        self._pids: dict[int, int] = {}
        """Worker to process."""
        self._workers: dict[int, int] = {}
        """Process to worker."""
        self._own: set[int] = set()
        """Children of the application's modules themselves."""
        self._guard = -1
        self._stamp = 0
        """The guard's time stamp,"""
        self._stamp_seconds = 0.0
        """and for how long we have looked at that."""
        self._looked_at = 0.0

    def run(self, tasks: dict[str, RunnableTask]) -> NoReturn:
        """Do what the host says until it has gone."""
        self._tasks = tasks
        self._remote = _remote(tasks)
        self._resources = load_resources(self._setup)
        self._own = set(children_of(os.getpid()))
        threads = [thread.name for thread in threading.enumerate()][1:]
        if threads:
            self._start = "spawn"
        else:
            self._start = self._setup.start
        self._awake, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._awake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        gc.collect()
        gc.freeze()  # else each worker's first collection would copy every page of the server
        self._say(Ready(self._start, threads))
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._awake, select.POLLIN)
        while True:
            looks = self._setup.lease_seconds / LEASE_LOOKS
            ready = dict(poll.poll(looks * 1000 if self._pids and self._guard >= 0 else None))
            if self._awake in ready:
                os.read(self._awake, 4096)
                self._reap()
            if self._connection.fileno() in ready:
                self._listen()
            self._watch_lease()

    def _listen(self) -> None:
        try:
            piece, descriptors, _, _ = socket.recv_fds(
                self._connection, RECEIVE_BYTES, DESCRIPTORS_MAX
            )
        except OSError:
            piece, descriptors = b"", []
        if not piece:
            self._end()
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        for body in self._frames.feed(piece):
            self._do(to_server(body))

    def _do(self, message: Message) -> None:
        match message:
            case Fork(worker):
                connection, output = self._descriptors[:2]
                del self._descriptors[:2]
                self._fork(worker, connection, output)
            case Kill(worker, number):
                self._kill(worker, number)
            case Guard():
                if self._guard >= 0:
                    os.close(self._guard)
                self._guard = self._descriptors.pop(0)
                self._stamp = 0

    def _say(self, message: Message) -> None:
        try:
            self._connection.sendall(frame(message))
        except OSError:
            self._end()

    # Workers

    def _fork(self, worker: int, connection: int, output: int) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no memory or no process left; the host tries again later
            pid = -1
        if pid == 0:
            try:
                self._become_worker(server, connection, output)
            except BaseException:  # where nobody hears of it: the last output of its job says it
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(connection)
        os.close(output)
        if pid < 0:
            self._say(Exited(worker, NOT_BORN))
            return
        with contextlib.suppress(OSError):  # it has done so itself, or has ended already
            os.setpgid(pid, pid)
        self._pids[worker] = pid
        self._workers[pid] = worker
        self._say(Born(worker, pid))

    def _become_worker(self, server: int, connection: int, output: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        die_with_parent()
        adopt_orphans()
        be_batch_work()
        if os.getppid() != server:
            return  # it has ended before it could take us along
        mine = socket.socket(fileno=connection)
        if self._start == "spawn":
            mine.set_inheritable(True)
            os.set_inheritable(output, True)
            os.execv(sys.executable, command("work", connection, output))  # noqa: S606
        self._connection.close()
        os.close(self._awake)
        if self._guard >= 0:
            os.close(self._guard)
        for descriptor in self._descriptors:
            os.close(descriptor)
        Worker(mine, self._tasks, self._resources, self._remote).serve(output)

    def _kill(self, worker: int, number: int) -> None:
        pid = self._pids.get(worker)
        if pid is None:
            return
        others = descendants_of(pid)
        send_signal(pid, number, group=True)
        for other in others:
            send_signal(other, number)

    def _reap(self) -> None:
        """Bury who has ended; what a worker has started ends with it."""
        ended = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._own.discard(pid)
            worker = self._workers.pop(pid, None)
            if worker is not None:
                send_signal(pid, signal.SIGKILL, group=True)
                del self._pids[worker]
                ended.append(Exited(worker, os.waitstatus_to_exitcode(status)))
        # Orphans have become our children by now; their own children come with their end.
        for orphan in children_of(os.getpid()):
            if orphan not in self._workers and orphan not in self._own:
                send_signal(orphan, signal.SIGKILL)
        for message in ended:
            self._say(message)

    # The host

    def _watch_lease(self) -> None:
        """End the workers of a host that is about to be taken for dead, before that happens."""
        if self._guard < 0 or not self._pids:
            return
        now = time.monotonic()
        # A look that comes late counts for no more: the whole machine may have been asleep, and the
        # host is about to renew it.
        looked = min(now - self._looked_at, 2 * self._setup.lease_seconds / LEASE_LOOKS)
        self._looked_at = now
        status = os.fstat(self._guard)
        same = status.st_mtime_ns == self._stamp
        self._stamp = status.st_mtime_ns
        self._stamp_seconds = self._stamp_seconds + looked if same else 0.0
        lost = status.st_nlink == 0
        if lost or self._stamp_seconds > LEASE_SHARE * self._setup.lease_seconds:
            for worker in list(self._pids):
                self._kill(worker, signal.SIGKILL)

    def _end(self) -> NoReturn:
        """The host has gone: nobody may be left when its lock becomes free."""
        deadline = time.monotonic() + END_SECONDS
        for worker in list(self._pids):
            self._kill(worker, signal.SIGKILL)
        while time.monotonic() < deadline:
            left = [child for child in children_of(os.getpid()) if child not in self._own]
            for child in left:
                send_signal(child, signal.SIGKILL)
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            self._workers.pop(pid, None)
            if not (left or self._workers):
                break
            if pid == 0:
                time.sleep(0.001)
        os._exit(0)

"""Tasks that run in workers: importable, as they must be."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from asyncjobs import (
    Cancel,
    Fail,
    File,
    InvalidOption,
    JobFailed,
    JobStopped,
    ResultNotKept,
    Retry,
    RetryLater,
    RunnerNotStarted,
    Snooze,
    Tasks,
    current_job,
)
from asyncjobs.running.executors.process import child
from asyncjobs.running.executors.process.inbox import Inbox

tasks = Tasks()
served: list[str] = []
VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="untouched")


@dataclass
class Point:
    x: int
    y: int


@tasks.task(executor="process")
def mirror(point: Point) -> Point:
    return Point(point.y, point.x)


@tasks.task(executor="process")
async def mirror_later(point: Point) -> Point:
    await asyncio.sleep(0)
    return Point(point.y, point.x)


def serve(word: str) -> tuple[int, list[str]]:
    """The worker, and what it has served until now."""
    served.append(word)
    return os.getpid(), served


tasks.task(executor="process", name="warm")(serve)
tasks.task(executor="isolated", name="alone")(serve)
by_name = {task.name: task for task in tasks}
warm = by_name["warm"]
alone = by_name["alone"]


@tasks.task(executor="process")
def meet(path: str, *, first: bool) -> str:
    """Two of these end only if they run at once: each end of a pipe waits for the other."""
    with open(path, "r" if first else "w"):
        return "met"


@tasks.task(executor="process")
def disturb() -> None:
    os.environ["DISTURBED"] = "yes"
    os.environ.pop("PATH", None)
    os.chdir("/")
    os.umask(0o777)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    random.seed(1)
    VARIABLE.set("touched")
    sys.stdout = None
    os.close(1)


@tasks.task(executor="process")
def look() -> dict[str, Any]:
    mask = os.umask(0)
    os.umask(mask)
    print("seen")
    return {
        "environment": [os.environ.get("DISTURBED"), "PATH" in os.environ],
        "directory": os.getcwd(),
        "umask": mask,
        "terminates": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "user signal": signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
        "random": random.random(),
        "variable": VARIABLE.get(),
    }


left_behind: list[str] = []


@tasks.task(executor="process")
async def leave_task_behind() -> None:
    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left_behind.append("cancelled")

    task = asyncio.create_task(linger())
    await asyncio.sleep(0)
    served.append(task.get_name())


@tasks.task(executor="process")
async def what_was_left() -> tuple[list[str], int]:
    return left_behind, len(asyncio.all_tasks())


class Awkward(Exception):
    """Cannot be rebuilt from its arguments, nor shown."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return "awkward"


@tasks.task(executor="process")
def raise_awkward() -> None:
    raise Awkward(1, 2)


@tasks.task(executor="process")
async def exit_system() -> None:
    sys.exit(4)


@tasks.task(executor="process", retry=lambda attempt, error: 0 if str(error) == "1" else None)
def fail_until(attempts: int) -> int:
    if current_job().attempt < attempts:
        raise ValueError(str(current_job().attempt))
    return current_job().attempt


@tasks.task(executor="process", retry=Retry(attempts=2))
def say(word: str) -> None:
    match word:
        case "snooze":
            raise Snooze(3600)
        case "cancel":
            raise Cancel("enough")
        case "fail":
            raise Fail("no use")
        case "later":
            raise RetryLater(3600)
    raise AssertionError(word)


@tasks.task(executor="process")
def return_lock() -> Any:
    return threading.Lock()


@tasks.task(executor="process")
def return_bytes(number: int) -> str:
    return "x" * number


@tasks.task(executor="process")
def who_am_i() -> dict[str, Any]:
    job = current_job()
    return {
        "id": job.id,
        "attempt": job.attempt,
        "claim": job.fence[1],
        "key": job.idempotency_key,
        "tags": list(job.tags),
        "meta": dict(job.meta),
        "trigger": job.trigger,
        "queue": job.queue,
        "task": job.task,
        "stop": job.stop_requested,
    }


@tasks.task(executor="process")
def ask_for_state() -> str:
    try:
        return str(current_job().state)
    except RunnerNotStarted as error:
        return str(error)


@tasks.task(executor="process")
async def ask_for_transaction() -> list[str]:
    said = []
    for call in (
        lambda: current_job().complete_in(None),  # type: ignore[arg-type]
        lambda: mirror.runner().enqueue(mirror.job(Point(1, 2)), tx=object()),  # type: ignore[arg-type]
    ):
        try:
            await call()
        except (InvalidOption, RunnerNotStarted) as error:
            said.append(str(error))
    return said


@tasks.task(executor="process")
def write_log(text: str) -> None:
    current_job().logger.debug("too quiet")
    current_job().logger.warning("%s said", text)
    try:
        raise ValueError("inside")
    except ValueError:
        current_job().logger.exception("with a trace")


@tasks.task(executor="process")
async def parent(depth: int) -> list[int]:
    if depth == 0:
        return [os.getpid()]
    handle = await parent.enqueue(depth - 1)
    pids = await handle
    snapshot = await handle.wait()
    assert snapshot.state == "completed"
    assert snapshot.trigger == f"job:{current_job().id}"
    assert (await handle.job()).id == handle.id
    assert await handle.cancel() == "finished"
    return [*pids, os.getpid()]


@tasks.task(executor="process")
def plain_parent() -> Point:
    async def use_child() -> Point:
        return await (await mirror.options(key="once").enqueue(Point(1, 2)))

    return asyncio.run(use_child())


@tasks.task(executor="process")
async def parent_of_failure() -> str:
    try:
        await (await raise_awkward.enqueue())
    except JobFailed as error:
        return f"{error.error_type} {error.reason}"
    return "nothing"


@tasks.task(executor="process")
async def impatient_parent(path: str) -> str:
    handle = await wait_forever.enqueue(path)
    try:
        await handle.result(timeout=0.05)
    except TimeoutError:
        return await handle.cancel()
    return "nothing"


@tasks.task(executor="process")
def write_much(megabytes: int) -> None:
    for _ in range(megabytes):
        os.write(1, b"x" * (1024 * 1024 - 1) + b"\n")
    sys.stderr.write("the end\n")


def _tell(path: str) -> None:
    """Say at the pipe or file ``path`` that the job runs, and in which process."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


@tasks.task(executor="process")
def wait_forever(path: str) -> None:
    _tell(path)
    threading.Event().wait()


@tasks.task(executor="process")
async def wait_forever_async(path: str) -> None:
    _tell(path)
    await asyncio.Event().wait()


@tasks.task(executor="isolated")
def wait_alone(path: str) -> None:
    _tell(path)
    threading.Event().wait()


@tasks.task(executor="process")
def leave_when_told(path: str) -> str:
    try:
        _tell(path)
        while True:
            time.sleep(3600)
    except JobStopped as stopped:
        return f"left: {stopped}"


@tasks.task(executor="process", on_crash="fail")
def wait_for_word(path: str) -> str:
    """Told at the pipe ``path`` what to do: end, or die."""
    with open(path) as pipe:
        word = pipe.readline().strip()
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return word


@tasks.task(executor="process")
def print_number(number: int) -> None:
    print(number)


@tasks.task(executor="process")
def refuse(path: str) -> None:
    """Hears neither the exception nor SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _tell(path)
    while True:
        with contextlib.suppress(JobStopped):
            time.sleep(3600)


@tasks.task(executor="process")
def hold_the_gil(path: str) -> None:
    _tell(path)
    ctypes.PyDLL(None).sleep(3600)


@tasks.task(executor="process", on_crash="fail")
def say_and_hold_the_gil(path: str) -> None:
    """Whatever the host answers is not read."""
    current_job().progress(1)
    hold_the_gil(path)


def _start_daemon(path: str) -> list[str]:
    """Start a process of another session whose parent ends at once; its command."""
    program = f"import os, time; open({path!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(3600)"
    command = [sys.executable, "-c", program]
    starter = f"import subprocess; subprocess.Popen({command!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-c", starter], check=True)
    while not (Path(path).exists() and Path(path).read_text()):
        time.sleep(0.001)
    return command


@tasks.task(executor="process")
def leave_daemon_behind(path: str) -> int:
    _start_daemon(path)
    return os.getpid()


@tasks.task(executor="process")
def start_daemon(path: str) -> None:
    """A daemon, and a child in our own group."""
    subprocess.Popen(_start_daemon(path))
    while len(Path(path).read_text().splitlines() if Path(path).exists() else []) < 2:
        time.sleep(0.001)
    _tell(path)
    time.sleep(3600)


@tasks.task(executor="process")
def replace_streams(how: str) -> int:
    match how:
        case "closed":
            sys.stdout.close()
        case "replaced":
            sys.stdout = sys.stderr = io.StringIO()
            print("to nobody")
        case "redirected":
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            print("to nobody")
    return os.getpid()


@tasks.task(executor="process")
def fork_and_return() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return os.getpid()


@tasks.task(executor="process", on_crash="fail")
def die(how: str) -> None:
    print("last words of", how)
    match how:
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fork":
            if os.fork() == 0:
                raise SystemExit(0)  # comes back twice, as it were
            threading.Event().wait(0.2)
            os._exit(5)
        case "exception":
            raise SystemExit("the job raises")


@tasks.task(executor="process", memory_limit=64 * 1024 * 1024)
def take(megabytes: int) -> int:
    block = bytearray(megabytes * 1024 * 1024)
    return len(block)


kept: list[bytearray] = []


@tasks.task(executor="process")
def leak(megabytes: int) -> int:
    kept.append(bytearray(os.urandom(1024) * 1024 * megabytes))
    return os.getpid()


@tasks.task(executor="isolated", memory_limit=64 * 1024 * 1024)
def take_shared(path: str, megabytes: int) -> None:
    """What the address space does not bound: the memory of a child."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    block = bytearray(os.urandom(1024) * 1024 * megabytes)
    threading.Event().wait()
    print(len(block))


# Followed by others


@tasks.task(executor="process")
def wait_and_spend_the_worker(path: str) -> str:
    word: str = wait_for_word.function(path)
    sys.stdout.close()
    return word


def _connections() -> Iterator[socket.socket]:
    """Of the worker, to whoever."""
    for number in range(3, 64):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            yield connection


@tasks.task(executor="process", on_crash="fail")
def wait_and_send_garbage(path: str) -> str:
    """Say something wrong in the worker's name; the job itself goes on as if nothing had been."""
    word: str = wait_for_word.function(path)
    for connection in _connections():
        connection.send(b"this is no frame of yours")
    return word


@tasks.task(executor="process", on_crash="fail")
def wait_and_hang_up(path: str) -> None:
    """No thread of the worker hears of it."""
    wait_for_word.function(path)
    for connection in _connections():
        connection.shutdown(socket.SHUT_RDWR)
    ctypes.PyDLL(None).sleep(3600)


@tasks.task(executor="process")
def freeze_afterwards(path: str) -> None:
    """End, and freeze the worker when it has said so, before it begins what has come meanwhile.

    A word at the pipe ``path`` tells it to end, one at ``path``-sent that the next job was sent.
    """

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event != "return":
            return
        if frame.f_code is Inbox.next.__code__:
            assert argument is None
            wait_for_word.function(f"{path}-sent")
        elif frame.f_code is child.Worker.send.__code__:
            os.kill(os.getpid(), signal.SIGSTOP)

    wait_for_word.function(path)
    sys.setprofile(look)


@tasks.task(executor="process", on_crash="fail")
def note_and_wait(path: str) -> None:
    note.function(path)
    threading.Event().wait()


@tasks.task(executor="process")
def note(path: str) -> int:
    """Append a line, one for each run."""
    _tell(path)
    return current_job().fence[1]


@tasks.task(executor="process", memory_limit=64 * 1024 * 1024)
def take_unbound() -> None:
    """What the address space does not bound."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    block = bytearray(os.urandom(1024) * 1024 * 100)
    threading.Event().wait()
    print(len(block))


# Saying something


@tasks.task(executor="process")
def count_and_wait(pipe: str) -> None:
    current_job().progress(1, 3, "one")
    with open(pipe) as waiting:
        waiting.readline()
    current_job().progress(2, 3, "two")


@tasks.task(executor="process")
async def count(upto: int) -> None:
    for done in range(1, upto + 1):
        current_job().progress(done, upto)


@tasks.task(executor="process", max_crashes=1)
def count_and_die() -> None:
    current_job().progress(7)
    logging.getLogger("shop").warning("this is the end")
    os._exit(3)


@tasks.task(executor="process")
def count_for_ever(started: str) -> None:
    for done in itertools.count():
        current_job().progress(done)
        current_job().logger.info("%d", done)
        logging.getLogger("shop").warning("%d", done)
        if done == 100:
            Path(started).write_text(f"{os.getpid()}\n")


@tasks.task(executor="process", log_level="INFO")
def log_much(lines: int) -> None:
    shop = logging.getLogger("shop")
    for number in range(lines):
        shop.warning("line %d", number)
    current_job().logger.debug("below the level of the task")
    current_job().logger.info("below the level of the application")
    try:
        raise ValueError("inside")
    except ValueError:
        current_job().logger.exception("above both")


@tasks.task(executor="process")
async def come_too_late_for_a_value() -> str:
    handle = await mirror.options(keep_result=False).enqueue(Point(1, 2))
    await handle.wait()
    with contextlib.suppress(ResultNotKept):
        return f"got {await handle}"
    return "nothing was kept"


@tasks.task(executor="process")
def make_file(folder: str, content: str) -> File:
    os.chdir(folder)
    if content:
        Path("made.txt").write_text(content)
    return File("made.txt", "a name.txt", "text/plain")


@tasks.task(executor="process")
async def read_childs_file(folder: str) -> list[str]:
    handle = await make_file.enqueue(folder, "of a child")
    file = await handle
    with file.open() as content:
        return [content.read().decode(), file.name, file.media_type]


@tasks.task(executor="process")
async def ask_a_child() -> list[Any]:
    handle = await count.enqueue(3)
    await handle
    progress = await handle.progress()
    try:
        return [progress and progress.done, handle.events()]
    except RunnerNotStarted as error:
        return [progress and progress.done, str(error)]


@tasks.task(executor="process")
def tell_time() -> str:
    return f"{current_job().scheduled_for} {current_job().trigger}"

"""What ``asyncjobs demo`` does: starts the host, again after its crash, and gives the figures."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from asyncjobs import AsyncJobsError

from .audit import Audit, audit
from .host import GRACE_SECONDS
from .plan import Plan
from .source import python_files
from .tasks import EXECUTOR, PLAN

KILLED = -signal.SIGKILL
INTERRUPTED = 130


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo and print its figures; 0 when nothing was lost or done twice."""
    directory = Path(arguments.path or sysconfig.get_path("stdlib")).absolute()
    if not directory.is_dir():
        return _refuse(f"{directory} is no directory")
    files = python_files(directory)
    if not files:
        return _refuse(f"no .py files in {directory}")
    plan = _make_plan(directory, files, arguments)
    try:
        code = _run_plan(plan, arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == 2:  # nothing has begun
        shutil.rmtree(plan.folder)
    if code == INTERRUPTED:
        print(f"\nInterrupted. What was done stays in {plan.database}", file=sys.stderr)
    return code


def _make_plan(directory: Path, files: list[str], arguments: argparse.Namespace) -> Plan:
    folder = tempfile.mkdtemp(prefix="asyncjobs-demo-")
    return Plan(
        run=f"demo-{uuid4().hex[:8]}",
        directory=str(directory),
        files=files,
        database=str(Path(arguments.db or Path(folder, "jobs.db")).absolute()),
        folder=folder,
        crash_at=0 if arguments.no_crash else max(1, len(files) // 2),
    )


def _run_plan(plan: Plan, arguments: argparse.Namespace) -> int:
    print(f"Indexing {len(plan.files):,} files of {plan.directory}, one job a file.", flush=True)
    begun_at = time.monotonic()
    code, pid = _run_host(plan, arguments.executor)
    if code == KILLED and plan.crash_at:
        if sys.stdout.isatty():
            print()  # below the progress line that nobody could end
        print(f"Process {pid} killed itself with SIGKILL half-way. Starting again.", flush=True)
        code, _ = _run_host(plan.without_crash(), arguments.executor)
    if code < 0:
        code = _refuse(f"the host process died of signal {-code}; its log: {plan.log}", code=1)
    if code:
        return code
    seconds = time.monotonic() - begun_at
    try:
        result = asyncio.run(audit(plan))
    except AsyncJobsError as error:
        return _refuse(str(error), code=1)
    _print_figures(plan, result, seconds, arguments)
    return 0 if result.passed else 1


def _run_host(plan: Plan, executor: str) -> tuple[int, int]:
    """Run a host to its end; its exit code and process id.

    In a session of its own, out of Ctrl-C's reach: it hears of that from us, in one way only, the
    end of its standard input, which also comes if we are killed.
    """
    path = str(plan.save())
    command = [sys.executable, "-m", "asyncjobs.demo.host", path]
    environment = {**os.environ, PLAN: path, EXECUTOR: executor}
    host = subprocess.Popen(  # noqa: S603 - this very interpreter
        command, stdin=subprocess.PIPE, start_new_session=True, env=environment
    )
    assert host.stdin is not None
    try:
        return host.wait(), host.pid
    finally:
        host.stdin.close()
        try:
            host.wait(GRACE_SECONDS + 3)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C does not wait
            host.kill()
            host.wait()


def _print_figures(
    plan: Plan, result: Audit, seconds: float, arguments: argparse.Namespace
) -> None:
    figures = {
        "jobs accepted": result.accepted,
        "completed": result.completed,
        "failed": f"{result.failed:,}  (files that cannot be parsed; the report lists them)",
        "started again": f"{result.restarted:,}  (cut off by the crash)",
        "lost": f"{result.lost:,}  (accepted, but without an outcome)",
        "enqueued twice": result.enqueued_twice,
        "run twice": f"{result.run_twice:,}  (without a crash to explain it)",
        "broken invariants": result.violations,
        "speed": f"{(result.completed + result.failed) / seconds:,.0f} jobs/s",
        "time": f"{seconds:.1f} s",
        "database": plan.database,
        "report": plan.report,
    }
    print()
    for name, value in figures.items():
        print(f"  {name:<18} {value:,}" if isinstance(value, int) else f"  {name:<18} {value}")
    crash = "with the crash" if arguments.no_crash else "without the crash"
    print(f"\nThe same {crash}, into the same database:\n  {_next_command(plan, arguments)}")


def _next_command(plan: Plan, arguments: argparse.Namespace) -> str:
    words = [sys.executable, "-m", "asyncjobs", "demo", "--db", plan.database]
    words += [] if arguments.no_crash else ["--no-crash"]
    words += ["--path", plan.directory] if arguments.path else []
    words += [] if arguments.executor == "process" else ["--executor", arguments.executor]
    return shlex.join(words)


def _refuse(reason: str, *, code: int = 2) -> int:
    print(f"asyncjobs demo: {reason}", file=sys.stderr)
    return code

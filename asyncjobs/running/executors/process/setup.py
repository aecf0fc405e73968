"""What a fork server must import, from the tasks that are registered in the host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from ....errors import WorkersFailed
from ...context import RunnableTask
from ...resources import Resource
from .settings import EXECUTORS, MAIN
from .wire import Setup


def setup_for(
    tasks: Iterable[RunnableTask], resources: Iterable[Resource[Any]], start: str, lease: float
) -> Setup | None:
    """What workers need for these tasks; ``None`` when none of them runs in one.

    Resources that are made inside a function are left out: no task that a worker can import could
    get at them.

    Raises:
        WorkersFailed: a task stands where no other process can find it.
    """
    wanted = [task for task in tasks if task.executor in EXECUTORS]
    if not wanted:
        return None
    named = [resource for resource in resources if "<locals>" not in resource.name]
    modules = dict.fromkeys([*(task.module for task in wanted), *(one.module for one in named)])
    main, package = _main_script(wanted) if "__main__" in modules else (None, "")
    return Setup(
        argv=list(sys.argv),
        modules=[_elsewhere(module) for module in modules],
        main=main,
        package=package,
        tasks=[(_elsewhere(task.module), task.name) for task in wanted],
        resources=[(_elsewhere(resource.module), resource.name) for resource in named],
        start=start,
        lease_seconds=lease,
    )


def _main_script(tasks: Iterable[RunnableTask]) -> tuple[str, str]:
    """The file of the program, and the package that it was started in with ``python -m``."""
    script = sys.modules["__main__"]
    file = getattr(script, "__file__", None)
    if file is None or not os.path.isfile(file):
        names = ", ".join(repr(task.name) for task in tasks if task.module == "__main__")
        raise WorkersFailed(
            f"workers cannot import what was typed into an interpreter: put {names} into a module"
        )
    spec = getattr(script, "__spec__", None)
    return os.path.abspath(file), spec.parent if spec is not None else ""


def _elsewhere(module: str) -> str:
    return MAIN if module == "__main__" else module

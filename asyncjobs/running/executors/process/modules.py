"""How the application's own modules get into the fork server.

Their names come from the tasks that the host has registered, never from a row.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import traceback
from typing import Any

from ....errors import WorkersFailed
from ...catalogue import importing, made
from ...context import RunnableTask
from ...resources import Resource
from ...resources import made as resources_made
from .settings import MAIN
from .wire import Setup


def load_tasks(setup: Setup) -> dict[str, RunnableTask]:
    """Import what the tasks stand in, and find them, by name.

    Raises:
        WorkersFailed: a module cannot be imported, or has no such task.
    """
    for module in setup.modules:
        shown = f"__main__ ({setup.main})" if module == MAIN else module
        try:
            with importing(shown):
                _import(module, setup)
        except WorkersFailed:
            raise
        except BaseException as error:  # also SystemExit: of a script without main guard
            raise WorkersFailed(_why(shown, error)) from error
    known = {(task.module, task.name): task for task in made}
    found = {}
    for module, name in setup.tasks:
        task = known.get((module, name))
        if task is None:
            raise WorkersFailed(
                f"task {name!r} is not there once module {module!r} is imported: tasks of workers "
                "are made when their module is imported, not inside a function or a main guard"
            )
        found[name] = task
    return found


def load_resources(setup: Setup) -> list[Resource[Any]]:
    """What jobs share, once :func:`load_tasks` has imported the modules."""
    # Of a script, the host knows them by the name __main__, and we by another.
    known = {(r.module, r.name.removeprefix(f"{r.module}.")): r for r in resources_made}
    wanted = [(module, name.removeprefix("__main__.").removeprefix(f"{module}."))
              for module, name in setup.resources]  # fmt: skip
    return [known[key] for key in wanted if key in known]


def _import(module: str, setup: Setup) -> None:
    if module == MAIN:
        _load_main(setup.main or "", setup.package)
    else:
        importlib.import_module(module)


def _load_main(path: str, package: str) -> None:
    """Run the script as a module of another name, with the imports that it has as a script."""
    name = f"{package}.{MAIN}" if package else MAIN
    loader = importlib.machinery.SourceFileLoader(MAIN, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__name__ = MAIN
    sys.modules[name] = sys.modules[MAIN] = sys.modules["__main__"] = module
    loader.exec_module(module)


def _why(module: str, error: BaseException) -> str:
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename == __file__:
        own = own.tb_next
    lines = traceback.format_exception(type(error), error, own)
    return f"module {module!r} cannot be imported by workers:\n{''.join(lines)}".rstrip()

"""Every task that was made in this process: what a worker looks its tasks up in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from ..errors import WorkersFailed
from .context import RunnableTask

made: WeakSet[RunnableTask] = WeakSet()

_OWN = __name__.partition(".")[0]

_importing: str | None = None


def calling_module() -> str:
    """The module of the first caller outside this package: where a task is made."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_own(str(frame.f_globals.get("__name__"))):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == _OWN and not module.startswith(f"{_OWN}.demo")


@contextmanager
def importing(module: str) -> Iterator[None]:
    """While the fork server imports the application's module."""
    global _importing
    _importing = module
    try:
        yield
    finally:
        _importing = None


def check_not_importing() -> None:
    """Refuse to start a runner in the fork server: its workers would start one again, and again.

    Raises:
        WorkersFailed: a module without main guard is being imported.
    """
    if _importing is not None:
        raise WorkersFailed(
            f"module {_importing!r} starts a runner as soon as it is imported, and workers must "
            "import it to find their tasks: put what starts the program under "
            "if __name__ == '__main__':"
        )

"""The functions that tasks are made of: which will do, what they are called, what runs them."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

from ..errors import InvalidOption
from ..rules.limits import check_choice, check_flag
from .executors.process.settings import MAIN

EXECUTORS = ("coroutine", "thread", "process", "isolated")


def check_function(function: object, *others: type) -> None:
    """Something that a task is made from: no class, and none of the ``others``."""
    if not callable(function) or isinstance(function, (type, *others)):
        raise InvalidOption(f"a task is made from a function, got {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidOption(f"{where(function)} yields; a task returns its result")


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def check_executor(executor: str | None, *, asynchronous: bool) -> str:
    """What the jobs run in; if not said, as its function is written."""
    if executor is None:
        return "coroutine" if asynchronous else "thread"
    return check_choice(executor, "executor", EXECUTORS)


def check_retry_timeouts(value: bool | None, executor: str) -> bool:
    """Whether a job is tried again that took too long; if not said, unless it is in a thread."""
    # A thread runs on after its time is up: a second one beside it is for the user to ask for.
    return executor != "thread" if value is None else check_flag(value, "retry_timeouts")


def default_name(function: Any) -> str:
    """``module.qualname``."""
    qualname = getattr(function, "__qualname__", None)
    if qualname is None or "<lambda>" in qualname:
        raise InvalidOption(f"{function!r} has no name of its own; give name=")
    module = function.__module__
    if module in ("__main__", MAIN):
        module = _imported_name(module)
    return f"{module}.{qualname}"


def _imported_name(main: str) -> str:
    """What the program's own module is called by who imports it: one name for both.

    The stem of its file, in the package that ``python -m`` has started it in. A script that is
    started by its path tells no package.
    """
    module = sys.modules[main]
    file = getattr(module, "__file__", None)
    if not file:
        return main
    stem = os.path.splitext(os.path.basename(file))[0]
    spec = getattr(module, "__spec__", None)
    return f"{spec.parent}.{stem}" if spec is not None and spec.parent else stem


def where(function: Any) -> str:
    """Its name and the place where it is written, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name

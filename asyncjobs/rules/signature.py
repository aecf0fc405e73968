"""A task's parameters: binding a call to names, and calling with what was stored.

``inspect.Signature.bind`` costs several microseconds a call, so the shape is worked out once
a task and a job's arguments are zipped to names.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from ..errors import InvalidArguments, InvalidOption


class Signature:
    """The parameters of one function, in order, with their types."""

    def __init__(self, function: Callable[..., Any], task: str) -> None:
        self._task = task
        self._positional: list[str] = []
        self._positional_only = 0
        self._named: set[str] = set()
        self._required: set[str] = set()
        self._defaults: dict[str, Any] = {}
        self._rest: str | None = None
        self._extra: str | None = None
        hints = _type_hints(function, task)
        self.types: dict[str, Any] = {}
        self.returns: Any = hints.get("return", Any)
        for name, parameter in inspect.signature(function).parameters.items():
            self._add(name, parameter, hints.get(name, Any))

    def _add(self, name: str, parameter: inspect.Parameter, kind: Any) -> None:
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                self._rest = name
                self.types[name] = list[kind]
                return
            case inspect.Parameter.VAR_KEYWORD:
                self._extra = name
                self.types[name] = dict[str, kind]
                return
            case inspect.Parameter.KEYWORD_ONLY:
                self._named.add(name)
            case inspect.Parameter.POSITIONAL_ONLY:
                self._positional.append(name)
                self._positional_only += 1
            case _:
                self._positional.append(name)
                self._named.add(name)
        self.types[name] = kind
        if parameter.default is inspect.Parameter.empty:
            self._required.add(name)
        else:
            self._defaults[name] = parameter.default

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments by parameter name; what follows ``*`` and ``**`` under those names.

        Raises:
            InvalidArguments: too many, missing, unknown or doubled arguments.
        """
        if not args and not kwargs and not self._required:
            return {}
        bound = dict(zip(self._positional, args, strict=False))
        if len(args) > len(self._positional):
            if self._rest is None:
                raise self._wrong(
                    f"takes {len(self._positional)} positional arguments, got {len(args)}"
                )
            bound[self._rest] = list(args[len(self._positional) :])
        if kwargs:
            self._bind_named(bound, kwargs)
        missing = self._required - bound.keys()
        if missing:
            raise self._wrong(f"needs the argument {_names(missing)}")
        return bound

    def bind_with_defaults(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The same with the parameters that the call has left to their defaults."""
        return {**self._defaults, **self.bind(args, kwargs)}

    def _bind_named(self, bound: dict[str, Any], kwargs: dict[str, Any]) -> None:
        extra = {}
        for name, value in kwargs.items():
            if name not in self._named:
                extra[name] = value
            elif name in bound:
                raise self._wrong(f"got the argument {name!r} twice")
            else:
                bound[name] = value
        if not extra:
            return
        if self._extra is None:
            raise self._wrong(f"has no argument {_names(extra)}")
        bound[self._extra] = extra

    def call_arguments(self, stored: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Stored arguments as ``(args, kwargs)`` for the call. What is not stored is left out.

        A default that was skipped before something that can only go by position is filled in.

        Raises:
            InvalidArguments: the signature has got a parameter that is not stored.
        """
        if not self._required <= stored.keys():
            raise self._wrong(f"needs the argument {_names(self._required - stored.keys())}")
        if not self._positional_only and self._rest is None and self._extra is None:
            return [], stored
        stored = dict(stored)
        rest = stored.pop(self._rest, []) if self._rest else []
        extra = stored.pop(self._extra, {}) if self._extra else {}
        by_position = self._positional if rest else self._positional[: self._positional_only]
        if not rest:
            while by_position and by_position[-1] not in stored:
                by_position = by_position[:-1]
        args = [
            stored.pop(name) if name in stored else self._defaults[name] for name in by_position
        ]
        return [*args, *rest], {**stored, **extra}

    def _wrong(self, what: str) -> InvalidArguments:
        return InvalidArguments(f"task {self._task!r} {what}")


def _names(names: typing.Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _type_hints(function: Callable[..., Any], task: str) -> dict[str, Any]:
    if isinstance(function, functools.partial):
        return _type_hints(function.func, task)
    if not (inspect.isroutine(function) or hasattr(function, "__annotations__")):
        function = type(function).__call__  # an object that can be called
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise InvalidOption(
            f"the annotations of task {task!r} cannot be resolved ({error}); "
            "import the names that they use where the function is defined, outside TYPE_CHECKING"
        ) from error

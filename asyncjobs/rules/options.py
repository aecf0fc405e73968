"""The objects that options are given as: ``Retry``, ``Limit``, ``Cron`` and the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct, StructMeta

from ..errors import InvalidOption


class _Named(StructMeta):
    # Type checkers would take this signature in place of each class's own.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().__call__(*args, **kwargs)
            except TypeError:
                check_call(self, args, kwargs)
                raise


class Option(Struct, metaclass=_Named, frozen=True):
    """A struct that says by :class:`InvalidOption` also which attributes it does not have."""


def check_call(made: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what does not fit the attributes of a class.

    Raises:
        InvalidOption: naming those that it has.
    """
    parameters = inspect.signature(made).parameters
    by_name = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    takes = f"; it takes {', '.join(parameters)}"
    if by_name:
        takes += f" by name, such as {made.__name__}({by_name[0]}=...)"
    for name in kwargs:
        if name not in parameters:
            raise InvalidOption(f"{made.__name__} has no option {name!a}{takes}") from None
    try:
        inspect.signature(made).bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidOption(f"{made.__name__}: {error}{takes}") from None


def check_takes(function: Callable[..., Any], option: str, *arguments: str) -> None:
    """Refuse a function that cannot be called with these arguments, by their places.

    Raises:
        InvalidOption: naming those that it takes.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C do not tell
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise InvalidOption(
            f"{option} must be a function of ({', '.join(arguments)}), got one of "
            f"({', '.join(signature.parameters)})"
        ) from None

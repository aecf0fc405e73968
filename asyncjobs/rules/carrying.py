"""Context variables that travel from where a job is enqueued into the job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from ..errors import InvalidOption
from .limits import KEY_MAX, check_text

Carry = Mapping[str, "ContextVar[Any]"]
"""The variables by name."""


def check_carry(variables: object) -> Carry:
    """The variables of ``Runner(carry=...)``, by name."""
    if isinstance(variables, (str, ContextVar)) or not isinstance(variables, Iterable):
        raise InvalidOption(
            f"carry must be a sequence of ContextVar, got {type(variables).__name__}"
        )
    carry: dict[str, ContextVar[Any]] = {}
    for variable in variables:
        if not isinstance(variable, ContextVar):
            raise InvalidOption(f"carry must hold ContextVars, got {type(variable).__name__}")
        name = check_text(variable.name, "carry")
        if carry.setdefault(name, variable) is not variable:
            raise InvalidOption(f"carry has two variables of the name {name!r}")
    return carry


def with_carried(stored: str | None, carry: Carry) -> str | None:
    """A job's stored options with the values that the variables have here.

    Raises:
        InvalidOption: a value is no text, or too long. The message names the variable alone.
    """
    values = {
        name: _check_value(name, value)
        for name, variable in carry.items()
        if (value := variable.get(None)) is not None
    }
    if not values:
        return stored
    return with_values(stored, values)


def with_values(stored: str | None, values: Mapping[str, str]) -> str:
    """A job's stored options, which hold no values yet, with these."""
    carried = msgspec.json.encode(values).decode()
    return f'{{"carried":{carried}' + ("}" if stored is None else f",{stored[1:]}")


def _check_value(name: str, value: object) -> str:
    if type(value) is not str:
        raise InvalidOption(
            f"the context variable {name!r} holds no str but {type(value).__name__}; only str "
            "travels"
        )
    if len(value) > KEY_MAX:
        raise InvalidOption(
            f"the context variable {name!r} holds {len(value)} characters; at most {KEY_MAX} are "
            "carried"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOption(f"the context variable {name!r} holds unpaired surrogates") from None
    return value

"""Which jobs count as the same, for how long, and what becomes of one that comes too many."""

from __future__ import annotations

import inspect
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ..clock import to_microseconds, to_seconds
from ..errors import InvalidOption, shown
from ..records import UNIQUE, Hold
from .codec import ordered_json
from .limits import KEY_MAX, check_choice, check_text
from .options import Option

WHILE = ("queued", "unfinished")
ON_CONFLICT = ("existing", "raise", "replace")
CHOICES_MAX = 1_024
_EMPTY_DIGEST = blake2b(digest_size=16)
"""To be copied: making one anew takes longer than the digest."""
DEBOUNCE_MAX_TIMES = 10
"""How many times its ``debounce`` a job is pushed back at most, where no maximum is given."""


class Unique(Option, frozen=True, kw_only=True):
    """At most one job of a task that is the same, for as long as said.

    Attributes:
        by: what makes jobs the same: the names of arguments, ``("user_id",)``; a text of your own,
            up to 1,024 characters; ``()`` for any two jobs of the task. By default all arguments.
        while_: how long a job stands for itself: ``queued`` (until it first starts),
            ``unfinished`` (until it has an outcome; the default), or for so many seconds from its
            acceptance, however it ends. A job that is cancelled or deleted stands for nothing.
        on_conflict: what the next one gets meanwhile: ``existing``, that job's handle (the
            default); ``raise``, a ``DuplicateJob``; or ``replace``: a job that has not started yet
            takes over its arguments and options, and keeps its id. One that has is left alone.

    Raises:
        InvalidOption: naming the attribute and its value.
    """

    by: str | tuple[str, ...] | None = None
    while_: Literal["queued", "unfinished"] | float | timedelta | None = None
    on_conflict: Literal["existing", "raise", "replace"] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.by, str):
            check_text(self.by, "Unique(by)", longest=KEY_MAX)
        elif self.by is not None:
            _check_names(self.by)
        if isinstance(self.while_, str):
            check_choice(self.while_, "Unique(while_)", WHILE)
        elif self.while_ is not None:
            positive_seconds(self.while_, "Unique(while_)")
        if self.on_conflict is not None:
            check_choice(self.on_conflict, "Unique(on_conflict)", ON_CONFLICT)


class Uniqueness:
    """What ``unique``, ``throttle`` or ``debounce`` say for the jobs of one function."""

    def __init__(
        self,
        function: Callable[..., Any],
        by: str | tuple[str, ...] | None,
        *,
        held: str,
        on_conflict: str,
        seconds: float = 0.0,
        longest: float = 0.0,
    ) -> None:
        self._text = by if isinstance(by, str) else None
        names = None if by is None or isinstance(by, str) else tuple(sorted(by))
        self._choice = _choice(function, names)
        self.microseconds = to_microseconds(seconds)
        self.debounces = on_conflict == "debounce"
        self.hold = Hold(held, on_conflict, self.microseconds, to_microseconds(longest))

    def check_fixed(self) -> None:
        """Of a task's own: a text that is an argument's name is meant to be the argument."""
        if self._text in self._choice.names:
            raise InvalidOption(
                f"Unique(by={self._text!r}) is one key for all jobs of the task; for the argument "
                f"of this name write by=({self._text!r},)"
            )

    def key(self, arguments: str) -> str:
        """What a job with these arguments, as ordered JSON, goes by."""
        if self._text is not None:
            return f"{UNIQUE}={self._text}"
        # A digest: they may be long, and what they hold may be secret.
        digest = _EMPTY_DIGEST.copy()
        digest.update(self._choice.of(arguments))
        return UNIQUE + b2a_base64(digest.digest())[:22].decode()


class _Choice:
    """The arguments of a function by which its jobs are the same; all of them for ``None``."""

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...] | None) -> None:
        parameters = inspect.signature(function).parameters
        self.names = tuple(parameters) if names is None else names
        self._check(parameters)
        missing = {name: _default(parameters[name].default) for name in self.names}
        self._whole = names is None and not any(missing.values())
        fields = [(name, msgspec.Raw, msgspec.Raw(value)) for name, value in missing.items()]
        self._pick = msgspec.json.Decoder(msgspec.defstruct("Chosen", fields)).decode
        # No JSON holds a line break: where one value ends is never in doubt.
        self._lines = b"\n".join(name.encode() + b"\n%b" for name in self.names)

    def _check(self, parameters: Iterable[str]) -> None:
        names = list(parameters)
        for name in self.names:
            if name not in names:
                raise InvalidOption(
                    f"Unique(by) names the argument {name!r}, which the task does not have; it "
                    f"has {', '.join(names) or 'none'}"
                )

    def of(self, arguments: str) -> bytes:
        """Their values in given arguments, defaults included, in the order of their names."""
        if self._whole:
            return arguments.encode()
        return self._lines % msgspec.structs.astuple(self._pick(arguments))


@lru_cache(maxsize=CHOICES_MAX)
def _choice(function: Callable[..., Any], names: tuple[str, ...] | None) -> _Choice:
    """One for all ``options(unique=...)`` with the same names: a decoder takes long to make."""
    return _Choice(function, names)


def uniqueness(
    function: Callable[..., Any],
    unique: object,
    throttle: float | timedelta | None,
    debounce: float | timedelta | None,
    debounce_max: float | timedelta | None,
) -> Uniqueness | None:
    """What the options say together; ``None`` when none is given.

    Raises:
        InvalidOption: naming the option and its value.
    """
    if unique is not None and not isinstance(unique, Unique):
        raise InvalidOption(f"unique must be a Unique, got {shown(unique)}")
    if debounce_max is not None and debounce is None:
        raise InvalidOption("debounce_max needs debounce: it bounds how far that pushes a job back")
    if throttle is None and debounce is None:
        return None if unique is None else _unique(function, unique)
    if throttle is not None and debounce is not None:
        raise InvalidOption("throttle and debounce contradict each other; give one of them")
    rule = Unique() if unique is None else unique
    option = "throttle" if debounce is None else "debounce"
    if rule.while_ is not None:
        raise InvalidOption(f"Unique(while_) and {option} contradict: both say for how long")
    if debounce is None:
        return _window(function, rule, positive_seconds(throttle, "throttle"))
    if rule.on_conflict is not None:
        raise InvalidOption("Unique(on_conflict) and debounce contradict: the last arguments win")
    return _debounce(function, rule, debounce, debounce_max)


def next_uniqueness(
    function: Callable[..., Any],
    unique: object,
    throttle: float | timedelta | UnsetType | None,
    debounce: float | timedelta | UnsetType | None,
    debounce_max: float | timedelta | None,
) -> Uniqueness | UnsetType | None:
    """The same of one ``options(...)``, in place of the task's, which stays when none is given.

    Raises:
        InvalidOption: naming the option and its value.
    """
    if unique is throttle is debounce is UNSET and debounce_max is None:
        return UNSET
    return uniqueness(
        function,
        None if unique is UNSET else unique,
        None if throttle is UNSET else throttle,
        None if debounce is UNSET else debounce,
        debounce_max,
    )


def _unique(function: Callable[..., Any], rule: Unique) -> Uniqueness:
    if rule.while_ is None or isinstance(rule.while_, str):
        held = rule.while_ or "unfinished"
        return Uniqueness(function, rule.by, held=held, on_conflict=rule.on_conflict or "existing")
    return _window(function, rule, positive_seconds(rule.while_, "Unique(while_)"))


def _window(function: Callable[..., Any], rule: Unique, seconds: float) -> Uniqueness:
    return Uniqueness(
        function,
        rule.by,
        held="window",
        on_conflict=rule.on_conflict or "existing",
        seconds=seconds,
    )


def _debounce(
    function: Callable[..., Any],
    rule: Unique,
    debounce: float | timedelta,
    debounce_max: float | timedelta | None,
) -> Uniqueness:
    seconds = positive_seconds(debounce, "debounce")
    longest = seconds * DEBOUNCE_MAX_TIMES
    if debounce_max is not None:
        longest = positive_seconds(debounce_max, "debounce_max")
    if longest < seconds:
        raise InvalidOption(f"debounce_max={longest:g} is shorter than debounce={seconds:g}")
    return Uniqueness(
        function,
        rule.by,
        held="queued",
        on_conflict="debounce",
        seconds=seconds,
        longest=longest,
    )


def positive_seconds(value: object, option: str) -> float:
    """A duration that is longer than nothing."""
    seconds = to_seconds(value, option)  # type: ignore[arg-type] # which it refuses itself
    if seconds == 0:
        raise InvalidOption(f"{option}=0 would hold for no time at all; leave it out")
    return seconds


def _check_names(names: object) -> None:
    if not isinstance(names, (tuple, list)):
        raise InvalidOption(
            f"Unique(by) must be a text or a tuple of argument names, got {shown(names)}"
        )
    for name in names:
        check_text(name, "Unique(by)")
    if len(set(names)) < len(names):
        raise InvalidOption("Unique(by) names an argument twice")


def _default(value: object) -> bytes:
    """What stands for an argument that is left out: its default, where that can be stored."""
    if value is inspect.Parameter.empty:
        return b""
    try:
        return ordered_json(value)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return b""

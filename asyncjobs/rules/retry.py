"""When a failed attempt is followed by another."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from random import Random
from typing import Any

import msgspec

from ..clock import to_seconds
from ..errors import InvalidOption, shown
from .limits import ATTEMPTS_MAX, check_flag, check_integer
from .options import Option, check_takes

RetryFunction = Callable[[int, BaseException], "float | timedelta | None"]
"""``(attempt, exception) -> seconds`` until the next attempt, or ``None`` to give up."""


class Retry(Option, frozen=True, kw_only=True):
    """How often, and how long between: exponential backoff with full jitter.

    The wait before attempt ``n + 1`` is drawn evenly from 0 to ``min(cap, base * factor**(n-1))``
    seconds ("full jitter": Brooker, AWS Architecture Blog, 2015), so that jobs that failed
    together do not come back together. ``jitter=False`` takes the upper end itself.

    Attributes:
        attempts: runs in all, the first included; 1 to 10,000.
        base: seconds; upper end of the first wait.
        factor: each wait is that much longer; at least 1.
        cap: seconds; the longest wait.
        jitter: draw the wait at random.
        per_exception: another policy for some exception types; the closest base class decides.
            ``{ValueError: Retry(attempts=1)}`` gives up at once on a ValueError.

    Raises:
        InvalidOption: naming the attribute and its value.
    """

    attempts: int = 1
    base: float | timedelta = 1.0
    factor: float = 2.0
    cap: float | timedelta = 3600.0
    jitter: bool = True
    per_exception: Mapping[type[BaseException], Retry] = {}

    def __post_init__(self) -> None:
        check_integer(self.attempts, "Retry(attempts)", least=1, most=ATTEMPTS_MAX)
        to_seconds(self.base, "Retry(base)")
        to_seconds(self.cap, "Retry(cap)")
        if isinstance(self.factor, timedelta):
            raise InvalidOption("Retry(factor) is a number, not a duration")
        to_seconds(self.factor, "Retry(factor)", at_least=1.0)
        check_flag(self.jitter, "Retry(jitter)")
        if not isinstance(self.per_exception, Mapping):
            raise InvalidOption(
                "Retry(per_exception) must be a mapping such as {ValueError: Retry(attempts=1)}, "
                f"got {type(self.per_exception).__name__}"
            )
        for kind, policy in self.per_exception.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise InvalidOption(f"Retry(per_exception) has the key {kind!r}: no exception type")
            if not isinstance(policy, Retry):
                raise InvalidOption(f"Retry(per_exception)[{kind.__name__}] must be a Retry")

    def delay_after(self, attempt: int, exception: BaseException, random: Random) -> float | None:
        """Seconds until the attempt after ``attempt`` (from 1); ``None`` when it was the last."""
        policy = self._for(type(exception))
        if attempt >= policy.attempts:
            return None
        base, cap = to_seconds(policy.base, "base"), to_seconds(policy.cap, "cap")
        try:
            upper = min(cap, base * policy.factor ** (attempt - 1))
        except OverflowError:
            upper = cap if base else 0.0
        return random.uniform(0.0, upper) if policy.jitter else upper

    def _for(self, kind: type[BaseException]) -> Retry:
        for base in kind.__mro__:
            if base in self.per_exception:
                return self.per_exception[base]
        return self


RetryPolicy = Retry | RetryFunction


def check_retry(value: object, *, stored: bool = False) -> Any:
    """``value`` if it is a policy. One that travels with a job (``stored``) must be plain data."""
    if isinstance(value, Retry):
        if stored and value.per_exception:
            raise InvalidOption(
                "retry= with per_exception cannot travel with one job; give it to the task"
            )
        return value
    if callable(value) and not isinstance(value, type):
        if stored:
            raise InvalidOption("a retry function cannot travel with one job; give it to the task")
        if inspect.iscoroutinefunction(value):
            raise InvalidOption("retry must not be an async function: it decides without waiting")
        check_takes(value, "retry", "attempt", "exception")
        return value
    raise InvalidOption(f"retry must be a Retry or a function, got {shown(value)}")


def next_delay(
    policy: RetryPolicy, attempt: int, exception: BaseException, random: Random
) -> float | None:
    """Seconds until the next attempt by any kind of policy; ``None`` to give up."""
    if isinstance(policy, Retry):
        return policy.delay_after(attempt, exception, random)
    delay = policy(attempt, exception)
    return None if delay is None else to_seconds(delay, "what the retry function returned")


def retry_to_builtins(policy: Retry) -> dict[str, Any]:
    """The policy as plain data, for a job's stored options."""
    plain: dict[str, Any] = msgspec.to_builtins(policy, builtin_types=(timedelta,))
    plain.pop("per_exception")
    plain["base"] = to_seconds(policy.base, "base")
    plain["cap"] = to_seconds(policy.cap, "cap")
    return plain

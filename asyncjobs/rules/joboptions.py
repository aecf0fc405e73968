"""Options of jobs: what those of a task or of one ``options(...)`` share, and how it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from ..clock import to_instant, to_microseconds, to_seconds
from ..errors import InvalidOption
from ..records import Callback, Occurrence
from .expiry import check_expires, check_job_expires, check_order
from .limiting import Limit
from .limits import (
    KEY_MAX,
    OPTIONS_MAX,
    check_crashes,
    check_flag,
    check_meta,
    check_priority,
    check_tags,
    check_text,
)
from .retry import Retry, check_retry, retry_to_builtins
from .uniqueness import Uniqueness
from .window import Window, check_window


class JobOptions(Struct, frozen=True, kw_only=True):
    """What every job of a task, or of one ``options(...)``, has in common; checked once."""

    queue: str = "default"
    priority: int = 0
    max_crashes: int = 3
    run_at: int | None = None
    delay: int | None = None
    key: str | None = None
    uniqueness: Any = None
    """A :class:`Uniqueness`, or ``None``."""
    trigger: str | None = None
    tags: tuple[str, ...] = ()
    meta: str | None = None
    expires: int | None = None
    expires_at: int | None = None
    own_retention: bool = False
    keep_result: bool = True
    window: Window | None = None
    on_complete: Callback | None = None
    on_failure: Callback | None = None
    limit: Limit | None = None
    stored: str | None = None
    """What is kept with the job's row, as JSON."""


class StoredOptions(Struct, omit_defaults=True):
    """Options that one job carries in place of its task's."""

    timeout: float | UnsetType | None = UNSET
    """``None``: none, whatever the task has."""
    retry: Retry | None = None
    carried: dict[str, str] | None = None
    """Values of context variables where it was enqueued, by name."""
    on_complete: Callback | None = None
    on_failure: Callback | None = None
    scheduled: Occurrence | None = None
    limited: bool = False
    """Whether it has a limit, so that others may wait for its end."""
    keep_result: bool = True

    @property
    def followed(self) -> bool:
        """Whether another job may follow its outcome: a callback, or the next of its schedule."""
        return not (self.on_complete is None and self.on_failure is None and self.scheduled is None)


_decode = msgspec.json.Decoder(StoredOptions).decode


def read_options(stored: str) -> StoredOptions | None:
    """A job's stored options; ``None`` for what somebody else has written there."""
    try:
        return _decode(stored)
    except msgspec.MsgspecError:
        return None


def first_options(
    *,
    queue: str,
    priority: int,
    on_crash: str,
    max_crashes: int | None,
    uniqueness: Uniqueness | None,
    expires: float | timedelta | None,
    own_retention: bool,
    keep_result: bool,
    window: Window | None,
    on_complete: Callback | None,
    on_failure: Callback | None,
    limit: Limit | None,
) -> JobOptions:
    """A task's own options.

    Raises:
        InvalidOption: naming the option and its value.
    """
    if uniqueness is not None:
        uniqueness.check_fixed()
    due = _due(None, None, uniqueness)
    expires_in = None if expires is None else check_expires(expires)
    check_order(expires_in, None, run_at=None, delay=due.delay, now=0, by=due.option)
    return JobOptions(
        queue=check_text(queue, "queue"),
        priority=check_priority(priority),
        max_crashes=check_crashes(on_crash, max_crashes),
        expires=expires_in,
        own_retention=own_retention,
        keep_result=check_flag(keep_result, "keep_result"),
        delay=due.delay,
        uniqueness=uniqueness,
        window=window,
        on_complete=on_complete,
        on_failure=on_failure,
        limit=limit,
        stored=stored_options(
            keep_result=keep_result,
            window=window,
            on_complete=on_complete,
            on_failure=on_failure,
            limited=limit is not None,
        ),
    )


def next_options(
    own: JobOptions,
    *,
    delay: float | timedelta | None,
    at: datetime | None,
    priority: int | None,
    queue: str | None,
    key: str | None,
    uniqueness: Uniqueness | UnsetType | None,
    tags: Iterable[str],
    meta: Mapping[str, Any] | None,
    trigger: str | None,
    timeout: float | timedelta | UnsetType | None,
    retry: Retry | UnsetType | None,
    on_crash: str | None,
    max_crashes: int | None,
    expires: float | timedelta | datetime | UnsetType | None,
    keep_result: bool | None,
    window: Window | UnsetType | None,
    on_complete: Callback | UnsetType | None,
    on_failure: Callback | UnsetType | None,
    limit: Limit | UnsetType | None,
    now: int,
) -> JobOptions:
    """A task's ``own`` options with those of one ``options(...)`` in their place.

    Raises:
        InvalidOption: naming the option and its value.
    """
    uniqueness = _what_is_the_same(own, key, uniqueness)
    due = _due(delay, at, uniqueness)
    keep_result = check_flag(own.keep_result if keep_result is None else keep_result, "keep_result")
    window = own.window if window is UNSET else window
    on_complete = own.on_complete if on_complete is UNSET else on_complete
    on_failure = own.on_failure if on_failure is UNSET else on_failure
    limit = own.limit if limit is UNSET else limit
    expires_in, expires_at = _expiry(own, expires, due, now)
    return replace(
        own,
        queue=own.queue if queue is None else check_text(queue, "queue"),
        priority=own.priority if priority is None else check_priority(priority),
        max_crashes=_crashes(own, on_crash, max_crashes),
        run_at=due.run_at,
        delay=due.delay,
        key=None if key is None else check_text(key, "key", longest=KEY_MAX),
        uniqueness=uniqueness,
        trigger=None if trigger is None else check_text(trigger, "trigger"),
        tags=check_tags(tags),
        meta=None if meta is None else check_meta(meta),
        expires=expires_in, expires_at=expires_at,
        keep_result=keep_result,
        window=window,
        on_complete=on_complete,
        on_failure=on_failure,
        limit=limit,
        stored=stored_options(
            timeout=timeout, retry=retry, window=window, keep_result=keep_result,
            on_complete=on_complete, on_failure=on_failure, limited=limit is not None,
        ),
    )  # fmt: skip


def _what_is_the_same(
    own: JobOptions, key: str | None, given: Uniqueness | UnsetType | None
) -> Uniqueness | None:
    if key is None:
        return own.uniqueness if given is UNSET else given
    if given:
        raise _same_twice()
    return None


def _crashes(own: JobOptions, on_crash: str | None, max_crashes: int | None) -> int:
    if on_crash is None and max_crashes is None:
        return own.max_crashes
    return check_crashes("retry" if on_crash is None else on_crash, max_crashes)


class _Due(NamedTuple):
    """When a job is due, and which option says so."""

    option: str
    run_at: int | None = None
    delay: int | None = None


def _due(
    delay: float | timedelta | None, at: datetime | None, uniqueness: Uniqueness | None
) -> _Due:
    if uniqueness is not None and uniqueness.debounces:
        if delay is not None or at is not None:
            raise _due_twice()
        return _Due("debounce", delay=uniqueness.microseconds)
    if delay is not None and at is not None:
        raise InvalidOption("delay and at contradict each other; give one of them")
    if at is not None:
        return _Due("at", run_at=to_instant(at, "at"))
    return _Due(
        "delay", delay=None if delay is None else to_microseconds(to_seconds(delay, "delay"))
    )


def _expiry(
    own: JobOptions, given: float | timedelta | datetime | UnsetType | None, due: _Due, now: int
) -> tuple[int | None, int | None]:
    expires, expires_at = own.expires, None
    if given is None:
        return None, None
    if given is not UNSET:
        expires, expires_at = check_job_expires(given)
    check_order(expires, expires_at, run_at=due.run_at, delay=due.delay, now=now, by=due.option)
    return expires, expires_at


def _same_twice() -> InvalidOption:
    return InvalidOption(
        "key contradicts unique, throttle and debounce: each says which jobs are the same and for "
        "how long; give one of them"
    )


def _due_twice() -> InvalidOption:
    return InvalidOption("delay and at contradict debounce, which says itself when a job is due")


def stored_options(
    *,
    timeout: float | timedelta | UnsetType | None = UNSET,
    retry: object = UNSET,
    window: object = None,
    keep_result: bool = True,
    on_complete: Callback | None = None,
    on_failure: Callback | None = None,
    limited: bool = False,
) -> str | None:
    """What differs from the task's own, and what follows, as JSON; ``None`` for nothing."""
    stored: dict[str, object] = {}
    if timeout is not UNSET:
        stored["timeout"] = None if timeout is None else check_timeout(timeout)
    if retry is not UNSET:
        policy = Retry() if retry is None else check_retry(retry, stored=True)
        stored["retry"] = retry_to_builtins(policy)
    if not keep_result:
        stored["keep_result"] = False
    if window is not None:
        stored["window"] = check_window(window)
    if on_complete is not None:
        stored["on_complete"] = on_complete
    if on_failure is not None:
        stored["on_failure"] = on_failure
    if limited:
        stored["limited"] = True
    if not stored:
        return None
    encoded = msgspec.json.encode(stored).decode()
    if len(encoded) > OPTIONS_MAX:
        raise InvalidOption(
            f"on_complete and on_failure, with all that follows them, take {len(encoded)} bytes in "
            f"each job's row; at most {OPTIONS_MAX}: enqueue later steps from the earlier ones"
        )
    return encoded


def check_timeout(timeout: float | timedelta) -> float:
    """Seconds for one attempt."""
    seconds = to_seconds(timeout, "timeout")
    if seconds == 0:
        raise InvalidOption("timeout=0 would end every attempt at once; leave it out for none")
    return seconds

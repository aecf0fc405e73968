"""What is to follow a job's outcome: another job, which gets the outcome as its only argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ..clock import new_id
from ..errors import InvalidOption
from ..records import Callback, JobLimit, JobOutcome, NewJob, Occurrence
from ..states import State
from .carrying import with_values

RESULT_MAX = 512 * 1024
"""Bytes of a result that go into a callback's arguments, which may take 1 MiB in all."""

MARK = '"limit":'
"""What stored options hold in which a callback has a limit."""


class Callbacks(msgspec.Struct):
    """Of a job's stored options, those that say what follows it."""

    on_complete: Callback | None = None
    on_failure: Callback | None = None
    carried: dict[str, str] | None = None
    """Values of context variables: they go on into what follows."""
    scheduled: Occurrence | None = None
    """Another time of its schedule may wait for its end."""

    def after(self, state: State) -> Callback | None:
        """What follows an outcome: a job that was cancelled has not completed."""
        return self.on_complete if state is State.COMPLETED else self.on_failure


_decode = msgspec.json.Decoder(Callbacks).decode


def read_callbacks(options: str) -> Callbacks:
    """The callbacks among stored options; none in what somebody else has written there."""
    try:
        return _decode(options)
    except msgspec.MsgspecError:
        return Callbacks()


def outcome_parameter(function: Callable[..., Any], option: str, task: str) -> str:
    """The parameter of a callback's task that takes the outcome: its first, and the only needed.

    Raises:
        InvalidOption: it has none, or needs more.
    """
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    needed = [p.name for p in parameters if p.default is p.empty]
    name = needed[0] if needed else parameters[0].name if parameters else None
    if name is None or len(needed) > 1:
        raise InvalidOption(
            f"{option}: task {task!r} must take one argument, the JobOutcome; it needs "
            f"{', '.join(map(repr, needed)) or 'none'}"
        )
    return name


def follow(
    callbacks: Callbacks, outcome: JobOutcome, result: str | None, now: int
) -> NewJob[Any] | None:
    """The job that follows. ``result`` is JSON, and takes the place of the outcome's own."""
    callback = callbacks.after(outcome.state)
    if callback is None:
        return None
    stored = bytes(callback.options).decode()
    options = None if stored == "null" else stored
    if callbacks.carried is not None:
        options = with_values(options, callbacks.carried)
    if result is not None and len(result) > RESULT_MAX:
        result = None
        outcome = msgspec.structs.replace(outcome, result_left_out=True)
    plain = msgspec.to_builtins(outcome)
    plain["result"] = msgspec.Raw(b"null" if result is None else result.encode())
    arguments = msgspec.json.encode({callback.parameter: plain}).decode()
    return NewJob(
        new_id(now),
        callback.task,
        arguments,
        callback.queue,
        now,
        priority=callback.priority,
        max_crashes=callback.max_crashes,
        trigger=f"job:{outcome.job_id}",
        options=options,
        expires=callback.expires,
        own_retention=callback.own_retention,
        limit=kept(callback.limit),
    )


def kept(limit: JobLimit | None) -> JobLimit | None:
    """The limit of a job that is made now, and was given earlier: newer code may say another."""
    return None if limit is None else msgspec.structs.replace(limit, kept=True)


def limits_to_come(options: str | None) -> Iterator[JobLimit]:
    """The limits of all that may follow a job with these stored options."""
    if options is None or MARK not in options:
        return
    callbacks = read_callbacks(options)
    if callbacks.scheduled is not None:
        return  # given with the schedule
    for callback in (callbacks.on_complete, callbacks.on_failure):
        if callback is not None:
            if callback.limit is not None:
                yield callback.limit
            yield from limits_to_come(bytes(callback.options).decode())

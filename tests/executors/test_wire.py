"""Frames and messages between host, fork server and workers."""

from __future__ import annotations

import msgspec
import pytest

from asyncjobs import AsyncJobsError, JobFailed, KeyConflict
from asyncjobs.records import ErrorRecord
from asyncjobs.rules.outcome import (
    Cancelled,
    Crashed,
    Happened,
    Raised,
    Released,
    Returned,
    Snoozed,
)
from asyncjobs.running.executors.process.remote import error_from, refusal_of
from asyncjobs.running.executors.process.wire import (
    FRAME_MAX,
    Answer,
    Done,
    Frames,
    Garbage,
    Outcome,
    Start,
    Stop,
    Usage,
    frame,
    from_worker,
    happened_of,
    outcome_of,
    to_worker,
)

EVERYTHING: list[Happened] = [
    Returned(None),
    Returned('{"a": 1}'),
    Raised(ErrorRecord("ValueError", "no", "Traceback"), 1.5, "error"),
    Raised(ErrorRecord("ValueError", "no"), None),
    Raised(ErrorRecord("asyncjobs.RetryLater", "no"), 1.5, "error", 1.5),
    Snoozed(60.0),
    Snoozed(60.0, 60.0),
    Cancelled("user"),
    Released("shutdown"),
]


@pytest.mark.parametrize("happened", EVERYTHING)
def test_what_happened_comes_back_equal(happened: Happened) -> None:
    done = Done(outcome_of(happened), Usage(0.5, 1, 2, 0.25), None, goes_on=False)
    (body,) = Frames().feed(frame(done))

    assert happened_of(from_worker(body).outcome) == happened


def test_crash_is_nothing_that_a_worker_can_say() -> None:
    with pytest.raises(AssertionError):
        outcome_of(Crashed("gone", 0, 3))


@pytest.mark.parametrize("outcome", [Outcome("raised"), Outcome("snoozed"), Outcome("other")])
def test_outcome_that_no_worker_of_ours_says_is_garbage(outcome: Outcome) -> None:
    with pytest.raises(Garbage, match=outcome.kind):
        happened_of(outcome)


def test_frames_are_put_together_whatever_the_pieces() -> None:
    messages = [Stop(1, 1, "user"), Stop(2, 1, "x" * 1000), Stop(2, 2, "timeout")]
    stream = b"".join(map(frame, messages))
    for size in (1, 3, 4, 5, 1000, len(stream)):
        frames = Frames()
        heard = [
            to_worker(body)
            for start in range(0, len(stream), size)
            for body in frames.feed(stream[start : start + size])
        ]
        assert heard == messages


@pytest.mark.parametrize("length", [0, FRAME_MAX + 1, 2**32 - 1])
def test_length_that_no_frame_has_is_garbage_at_once(length: int) -> None:
    with pytest.raises(Garbage, match=str(length)):
        list(Frames().feed(length.to_bytes(4, "big")))


def test_frame_of_the_largest_length_is_waited_for() -> None:
    assert list(Frames().feed(FRAME_MAX.to_bytes(4, "big") + b"x")) == []


@pytest.mark.parametrize("body", [b"\xc1", b"\x91\x63", b"\x93\x0b\xc0\xc0", b"text"])
def test_body_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        from_worker(body)


def test_messages_show_nothing_of_what_they_carry() -> None:
    canary = "canary-7f"
    outcome = outcome_of(Returned(canary))
    done = Done(outcome, Usage(0, 0, 0, 0), None, goes_on=False)
    shown = [done, outcome, Answer(1, canary), Stop(1, 1, canary)]

    assert canary not in repr(shown)
    assert repr(Start) == "<class 'asyncjobs.running.executors.process.wire.Start'>"


@pytest.mark.parametrize(
    "error",
    [
        KeyConflict("taken", job_id="j"),
        JobFailed("failed", job_id="j", reason="error", error_type="ValueError"),
        TimeoutError("late"),
    ],
)
def test_error_of_the_host_is_raised_in_the_worker_as_itself(error: Exception) -> None:
    back = error_from(msgspec.msgpack.decode(
        msgspec.msgpack.encode(refusal_of(error)), type=type(refusal_of(error))
    ))  # fmt: skip

    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_error_of_another_kind_keeps_its_text() -> None:
    back = error_from(refusal_of(ZeroDivisionError("by nought")))

    assert type(back) is AsyncJobsError
    assert str(back) == "ZeroDivisionError: by nought"

"""What host, fork server and workers say to each other: msgpack messages in frames.

A frame is four bytes of length and a message. The length is checked before anything is kept, so
that garbage (a job that writes to a descriptor that is not its own) is found at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from ....records import Claimed, ErrorRecord, Note
from ....rules.limits import RESULT_MAX
from ....rules.outcome import Cancelled, Crashed, Happened, Raised, Released, Returned, Snoozed

FRAME_MAX = RESULT_MAX + 1024 * 1024
"""Bytes of one message: the largest result, and room for what stands around it."""
HEAD = 4


class Garbage(Exception):
    """What arrived is no frame, or no message of ours."""


class Message(Struct, frozen=True, array_like=True, gc=False):
    """One thing to say. What carries arguments or results does not show them."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


# The host to a worker. End of file means: leave.


class Setup(Message, frozen=True, tag=1):
    """What a fork server or a spawned worker needs before anything else."""

    argv: list[str]
    modules: list[str]
    """To be imported, in this order. ``__asyncjobs_main__`` is the script at ``main``."""
    main: str | None
    """The file of the application's own script, when one of the modules is that."""
    package: str
    """The package of that script when it was started with ``python -m``."""
    tasks: list[tuple[str, str]]
    """(module, name) of every task that workers run."""
    resources: list[tuple[str, str]]
    """(module, name) of what a worker sets up before its first job, in this order."""
    start: str
    """``fork`` or ``spawn``."""
    lease_seconds: float


class Start(Message, frozen=True, tag=2):
    """Run a job."""

    job: Claimed
    instance: str
    memory_limit: int | None
    log_level: int
    mark: bytes = b""
    """Not empty when jobs are sent ahead: say when this one begins, and write this before its
    output, since the host may read that of several jobs at once."""


class Stop(Message, frozen=True, tag=3):
    """Ask this run of a job to stop."""

    seq: int
    claim: int
    reason: str


class Answer(Message, frozen=True, tag=4):
    """The answer to what a job asked."""

    number: int
    value: Any
    error: Refusal | None = None


class Refusal(Struct, frozen=True, array_like=True, gc=False):
    """An error of the library on its way into a worker."""

    kind: str
    args: list[str]
    data: dict[str, Any]


class GoOn(Message, frozen=True, tag=5):
    """The host has heard what the job said of itself, and wants to hear more."""


class Recall(Message, frozen=True, tag=6):
    """Give back all jobs that have not begun."""


# A worker to the host.


class Usage(Struct, frozen=True, array_like=True, gc=False):
    """What one run has used."""

    cpu_seconds: float
    peak_rss: int
    """Bytes."""
    rss: int
    """Bytes that the worker has now."""
    seconds: float
    """How long it took."""


class Done(Message, frozen=True, tag=11):
    """How the job ended."""

    outcome: Outcome
    usage: Usage
    spent: str | None
    """Why the worker cannot be used again; ``None`` when it can."""
    goes_on: bool
    """Whether the next job that it was sent has begun."""


class Outcome(Struct, frozen=True, array_like=True, gc=False):
    """What happened, as data."""

    kind: str
    result: str | None = None
    error: ErrorRecord | None = None
    seconds: float | None = None
    reason: str = ""
    key_closed_for: float | None = None

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Ask(Message, frozen=True, tag=12):
    """Something that only the host can do: enqueue, await, cancel."""

    number: int
    what: str
    subject: msgspec.Raw


class Log(Message, frozen=True, tag=13):
    """A log record of the job."""

    level: int
    text: str
    created: float
    trace: str | None


class Said(Message, frozen=True, tag=14):
    """What the job says of itself: how far it is, and lines of its log."""

    note: Note


class Begun(Message, frozen=True, tag=15):
    """A job has begun in a worker that had none."""


class Recalled(Message, frozen=True, tag=16):
    """So many jobs, the last that were sent, will not begin here."""

    jobs: int


# The host to the fork server, which gets descriptors along with Fork and Guard.


class Fork(Message, frozen=True, tag=21):
    """Make a worker. With its end of a socket, and of a pipe for its output."""

    worker: int


class Kill(Message, frozen=True, tag=22):
    """Send a signal to a worker and to every process that it has started."""

    worker: int
    signal: int


class Guard(Message, frozen=True, tag=23):
    """Hold this lock, by its descriptor, as long as a worker lives: of the host's instance."""


# The fork server to the host.


class Ready(Message, frozen=True, tag=31):
    """Everything is imported."""

    start: str
    threads: list[str]
    """Threads that the modules started, because of which workers are spawned, not forked."""


class Unready(Message, frozen=True, tag=32):
    """The tasks cannot be had, and why."""

    text: str


class Born(Message, frozen=True, tag=33):
    """A worker has this process id."""

    worker: int
    pid: int


class Exited(Message, frozen=True, tag=34):
    """A worker is gone, and so is everything that it had started."""

    worker: int
    status: int
    """As of ``os.waitstatus_to_exitcode``: the exit code, or a signal's number below zero."""


ToWorker = Setup | Start | Stop | Answer | GoOn | Recall
FromWorker = Ready | Unready | Done | Ask | Log | Said | Begun | Recalled
ToServer = Setup | Fork | Kill | Guard
FromServer = Ready | Unready | Born | Exited

_encode = msgspec.msgpack.Encoder().encode
to_worker = msgspec.msgpack.Decoder(ToWorker).decode
from_worker = msgspec.msgpack.Decoder(FromWorker).decode
to_server = msgspec.msgpack.Decoder(ToServer).decode
from_server = msgspec.msgpack.Decoder(FromServer).decode


def frame(message: Message) -> bytes:
    """``message``, ready to be sent."""
    body = _encode(message)
    return len(body).to_bytes(HEAD, "big") + body


class Frames:
    """Puts together what arrives in pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The messages that are whole by now, one by one. To be heard out.

        Raises:
            Garbage: this is no frame; nothing after it can be trusted.
        """
        buffer = self._buffer
        buffer += piece
        start = 0
        while len(buffer) - start >= HEAD:
            length = int.from_bytes(buffer[start : start + HEAD], "big")
            if not 0 < length <= FRAME_MAX:
                raise Garbage(f"a frame of {length} bytes")
            end = start + HEAD + length
            if len(buffer) < end:
                break
            yield bytes(buffer[start + HEAD : end])
            start = end
        if start:
            del buffer[:start]


def outcome_of(happened: Happened) -> Outcome:
    """What happened, as data."""
    match happened:
        case Returned():
            return Outcome("returned", result=happened.result)
        case Raised(error, retry_in, reason, key_closed_for):
            return Outcome("raised", None, error, retry_in, reason, key_closed_for)
        case Snoozed(seconds, key_closed_for):
            return Outcome("snoozed", seconds=seconds, key_closed_for=key_closed_for)
        case Cancelled(reason):
            return Outcome("cancelled", reason=reason)
        case Released(reason):
            return Outcome("released", reason=reason)
        case Crashed():  # pragma: no branch - nothing else is left
            raise AssertionError("a worker that crashes cannot say so")


def happened_of(outcome: Outcome) -> Happened:
    """The other way.

    Raises:
        Garbage: no worker of ours says this.
    """
    match outcome:
        case Outcome("returned", result):
            return Returned(result)
        case Outcome("raised", _, ErrorRecord() as error, seconds, reason, key_closed_for):
            return Raised(error, seconds, reason, key_closed_for)
        case Outcome("snoozed", _, _, float(seconds), _, key_closed_for):
            return Snoozed(seconds, key_closed_for)
        case Outcome("cancelled", _, _, _, reason):
            return Cancelled(reason)
        case Outcome("released", _, _, _, reason):
            return Released(reason)
    raise Garbage(f"an outcome of kind {outcome.kind[:20]!r}")

"""The host's end of a socket: what it says of how the other end has ended."""

from __future__ import annotations

import asyncio
import socket

import pytest

from asyncjobs.running.executors.process.link import CLOSED, RESET, Link
from asyncjobs.running.executors.process.wire import (
    Begun,
    FromWorker,
    Recalled,
    Stop,
    frame,
    from_worker,
)


class Ends:
    """A link, the other end of its socket, and why the link has ended."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.said: list[FromWorker] = []
        self.link = Link(ours, from_worker, self.said.append, self.reason.set_result)


async def test_end_that_has_read_everything_is_closed() -> None:
    ends = Ends()
    ends.link.send(Stop(1, 1, "user"))
    ends.other.recv(1000)
    ends.other.close()

    assert await ends.reason == CLOSED


@pytest.mark.parametrize("read", [0, 3])
async def test_end_that_has_not_read_everything_is_reset(read: int) -> None:
    ends = Ends()
    ends.link.send(Stop(1, 1, "user"))
    ends.other.recv(read)
    ends.other.close()

    assert await ends.reason == RESET


async def test_end_that_was_gone_before_it_could_be_told_is_reset() -> None:
    ends = Ends()
    ends.other.close()
    ends.link.send(Stop(1, 1, "user"))

    assert await ends.reason == RESET


async def test_end_that_was_told_the_beginning_alone_is_reset() -> None:
    ends = Ends()
    ends.link.send(Stop(1, 1, "x" * 10_000_000))
    while _readable(ends.other):  # all that the system has taken
        ends.other.recv(1_000_000)
    ends.other.close()

    assert await ends.reason == RESET


async def test_what_was_said_before_garbage_is_heard() -> None:
    ends = Ends()
    ends.other.send(frame(Begun()) + frame(Recalled(3)) + b"no frame" + frame(Recalled(4)))

    assert "garbage" in await ends.reason
    assert ends.said == [Begun(), Recalled(3)]
    ends.other.close()


def _readable(end: socket.socket) -> bool:
    try:
        return bool(end.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except BlockingIOError:
        return False

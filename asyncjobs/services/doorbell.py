"""The doorbell: processes on one file tell each other at once what they have written.

Each has a unix datagram socket, whose address stands in its lock file. A ring is a hint and never
the truth: it may be lost when the other's queue is full, so whoever hears it asks the database, and
behind it stands the look at ``PRAGMA data_version`` once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

PREFIX, SUFFIX = "asyncjobs-", ".bell"
RECEIVE_MAX = 262_144
AUDIENCE_SECONDS = 3.0
"""How long a process that listens is told of every move; it says so again once a second."""
RINGS_A_PASS = 64
"""Rings that are read before others in the event loop have their turn."""

log = logging.getLogger("asyncjobs")


class Ring(Struct, array_like=True):
    """What one process tells the others; filled until it is sent."""

    hello: bool = False
    """It has come, and wants to be rung too."""
    jobs: bool = False
    """It has written jobs that it does not run itself."""
    cancels: bool = False
    """It has asked for the cancellation of jobs that run elsewhere."""
    everything: bool = False
    """An earlier ring was lost, or this one too long: look at all that matters to you."""
    ended: list[str] = []
    """Ids of jobs that ended."""
    moved: bool = False
    """It has written to the journal."""
    listens: bool = False
    """Somebody there listens to events: tell it when the journal moves."""
    schedules: bool = False
    """It has changed schedules."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Ring).decode


class Doorbell:
    """The own bell of this process, and how to ring the others'. Silent until opened."""

    def __init__(self, on_ring: Callable[[Ring], None]) -> None:
        self._on_ring = on_ring
        self._loop = asyncio.get_running_loop()
        self.others: Mapping[str, str] = {}
        """Who is there besides this process: instance to address."""
        self._missed: set[str] = set()
        """Addresses that did not take the last ring."""
        self._next = Ring()
        self._audience_until = 0.0
        """Loop time until which somebody elsewhere listens to events, as far as we know."""
        self._sending: asyncio.Handle | None = None
        self._socket: socket.socket | None = None
        self._warned = False
        self.address = ""
        """Where this process can be rung."""

    def open(self, instance: str, folder: str) -> None:
        """Listen, beside the lock files or where temporary files go.

        Where neither has room for a socket the others are heard once a second.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        for place in (folder, os.environ.get("TMPDIR", "/tmp")):  # noqa: S108 - a name at random
            address = os.path.join(place, f"{PREFIX}{instance}{SUFFIX}")
            # A file system without sockets, or a path that is too long for one.
            with contextlib.suppress(OSError):
                self._socket.bind(address)
                os.chmod(address, 0o600)
                self.address = address
                self._loop.add_reader(self._socket.fileno(), self._hear)
                return
        log.warning("no place for a socket in %s: other processes are heard once a second", folder)

    def close(self) -> None:
        """Tell what is left to tell, and listen no more."""
        if self._sending is not None:
            self._sending.cancel()
            self._send()
        if self._socket is None:
            return
        if self.address:
            self._loop.remove_reader(self._socket.fileno())
            remove_bell(self.address)
        self._socket.close()
        self._socket = None

    def meet(self, others: Mapping[str, str]) -> None:
        """Who is there now: instance to address."""
        self.others = others
        self._missed &= set(others.values())

    # Telling. What is told in one pass of the event loop goes in one datagram.

    def tell_hello(self) -> None:
        """Say that this process is there."""
        self._next.hello = True
        self._soon()

    def tell_jobs(self) -> None:
        """Say that jobs were written for whoever has room."""
        if self.others:
            self._next.jobs = True
            self._soon()

    def tell_schedules(self) -> None:
        """Say that a schedule's next time may be another."""
        if self.others:
            self._next.schedules = True
            self._soon()

    def tell_cancels(self) -> None:
        """Say that somebody else is to cancel a job that it runs."""
        if self.others:
            self._next.cancels = True
            self._soon()

    def tell_ended(self, job_id: str) -> None:
        """Say that a job has ended."""
        if self.others:
            self._next.ended.append(job_id)
            self._soon()

    def tell_listens(self) -> None:
        """Say that somebody here listens to events; to be repeated before it is forgotten."""
        if self.others:
            self._next.listens = True
            self._soon()

    def tell_moved(self) -> None:
        """Say that the journal has moved, if anybody listens."""
        if self.others and not self._next.moved and self._loop.time() < self._audience_until:
            self._next.moved = True
            self._soon()

    def _soon(self) -> None:
        if self._sending is None:
            self._sending = self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending = None
        if self._socket is None:
            return
        ring, self._next = self._next, Ring()
        encoded = _encode(ring)
        everything = _encode(Ring(ring.hello, True, True, True, moved=True, listens=ring.listens))
        for address in self.others.values():
            if address in self._missed:
                self._ring(self._socket, address, everything, everything)
            else:
                self._ring(self._socket, address, encoded, everything)

    def _ring(self, own: socket.socket, address: str, encoded: bytes, everything: bytes) -> None:
        try:
            own.sendto(encoded, address)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and encoded is not everything:
                self._ring(own, address, everything, everything)
            else:
                # Its queue is full, or it is gone: the rescuer will see to that.
                self._missed.add(address)
        else:
            self._missed.discard(address)

    # Hearing

    def _hear(self) -> None:
        for _ in range(RINGS_A_PASS):
            if self._socket is None:  # closed by what was heard
                return
            try:
                encoded = self._socket.recv(RECEIVE_MAX)
            except (BlockingIOError, InterruptedError):
                return
            try:
                ring = _decode(encoded)
            except ValueError:  # msgspec's own, or text that is no UTF-8
                if not self._warned:
                    log.warning("the doorbell got %d bytes that are no ring", len(encoded))
                self._warned = True
                continue
            if ring.listens:
                was_told = self._loop.time() < self._audience_until
                self._audience_until = self._loop.time() + AUDIENCE_SECONDS
                if not was_told:
                    self.tell_moved()  # since its last look, perhaps
            self._on_ring(ring)


def remove_bell(address: str) -> None:
    """Remove the socket of a process that is gone. Nothing else, whatever its lock file says."""
    name = os.path.basename(address)
    if name.startswith(PREFIX) and name.endswith(SUFFIX):
        with contextlib.suppress(OSError):
            os.unlink(address)

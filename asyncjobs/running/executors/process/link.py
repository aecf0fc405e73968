"""One end of a socket in the host's event loop: whole messages in, whole messages out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from .wire import Frames, Garbage, Message, frame

RECEIVE_BYTES = 256 * 1024
CLOSED = "closed"
RESET = "reset"
"""Closed by an end that had not read all of what it was sent."""


_open_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _to_nobody(said: object) -> None:
    """The link is closed."""


class Link:
    """Calls ``heard`` with each message, and ``ended`` once, with the reason, at the end."""

    def __init__(
        self,
        connection: socket.socket,
        decode: Callable[[bytes], Any],
        heard: Callable[[Any], None],
        ended: Callable[[str], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._descriptor = connection.fileno()
        self._decode = decode
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._refused = False
        """True once something could not be sent any more."""
        self.open = True
        _open_links.add(self)
        self._loop.add_reader(self._descriptor, self._readable)

    def send(self, *messages: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Say it, in its turn; ``descriptors`` go along and are closed here.

        Nobody hears it after the end.
        """
        if not self.open:
            _close(descriptors)
            return
        self._unsent.append((b"".join(map(frame, messages)), list(descriptors)))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            try:
                if descriptors:
                    sent = socket.send_fds(self._connection, [data], descriptors)
                else:
                    sent = self._connection.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._descriptor, self._writable)
                return
            except OSError:
                # The other end has gone, and what it said last is still to be read.
                self._refused = True
                self._drop_unsent()
                return
            _close(descriptors)
            if sent < len(data):
                self._unsent[0] = (data[sent:], [])
            else:
                self._unsent.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._flush()

    def _drop_unsent(self) -> None:
        while self._unsent:
            _close(self._unsent.popleft()[1])

    def pause(self) -> None:
        """Hear nothing, until :meth:`read` or :meth:`resume`."""
        if self.open:
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Hear what arrives as it does."""
        if self.open:
            self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        self.read()

    def read(self) -> bool:
        """Hear what has arrived; False when that was nothing."""
        if not self.open:
            return False
        try:
            piece = self._connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self._end(RESET)
            return False
        except OSError as error:
            self._end(error.strerror or CLOSED)
            return False
        if not piece:
            self._end(RESET if self._unsent or self._refused else CLOSED)
            return False
        messages = []
        garbage = None
        try:
            for body in self._frames.feed(piece):
                messages.append(self._decode(body))
        except (Garbage, msgspec.MsgspecError) as error:
            garbage = f"garbage ({str(error)[:100]})"
        for message in messages:
            self._heard(message)
        if garbage is not None:
            self._end(garbage)
            return False
        return True

    def hear_out(self) -> None:
        """Hear what was said until now, and have the other end know that no more is heard.

        A worker may live on for a moment after its fork server. It must not begin a job of which
        nobody hears, and which is about to begin elsewhere.
        """
        if self.open:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)
        while self.read():
            pass

    def _end(self, reason: str) -> None:
        ended = self._ended
        self.close()
        ended(reason)

    def close(self) -> None:
        """Close this end; ``ended`` is not called for that."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._drop_unsent()
            self._connection.close()
            _open_links.discard(self)
            # Who is called holds this link: a circle, and isolated jobs would leave one each.
            self._heard = self._ended = _to_nobody

    def close_in_child(self) -> None:
        """A forked child of the application must not keep the other end from seeing ours go."""
        self._connection.close()


def _close(descriptors: tuple[int, ...] | list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _close_in_child() -> None:
    for link in list(_open_links):
        link.close_in_child()


os.register_at_fork(after_in_child=_close_in_child)

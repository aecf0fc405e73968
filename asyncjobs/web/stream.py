"""Server-sent events: one job, followed by a browser over as many connections as it takes.

What is sent is where the job stands now, not each of the steps to it: the first event of a
connection is a snapshot, and each later one brings it up to date. All streams of a process share
the runner's one feed of the journal.
"""

from __future__ import annotations

from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import CursorTooOld, InvalidOption, StoreError
from ..records import Job
from ..services.engine import Engine
from ..services.feed import Listener
from ..states import Event as Kind
from ..store.journal import Event, JournalQuery, Place, cursor_of, place_of
from ..watching import check_kinds
from .answers import HEADERS, no_such_job, to_json
from .status import progress_of, status_of

STREAM_SECONDS = 20.0
"""How long a connection lasts: an open one holds up the shutdown of uvicorn."""
STREAM_SECONDS_MAX = 30.0
KEEP_ALIVE_SECONDS = 10.0
"""Without an event for so long a comment is sent, for proxies that close what is silent."""
RETRY_MILLISECONDS = 500
"""When a browser connects again; and up to as much later, so that not all come at once."""
LAST_SECONDS = 1.0
"""How long a client that reads nothing may take for the end of the stream."""
REPLAY_ROWS_MAX = 5_000
"""Who is further behind in the journal gets a snapshot, which is cheaper than to look for what it
has missed."""

_KINDS = check_kinds(None)


async def open_stream(
    engine: Engine, job_id: str, last_event_id: str | None, *, seconds: float, jitter: float
) -> Response:
    """The stream of a job, from the last event on that the client has, or from a snapshot on.

    A client that has heard of the outcome and asks again is told by 204 not to.

    Args:
        jitter: from 0 to 1.

    Raises:
        Refused: there is no such job.
    """
    end = await engine.feed.end()  # before the look, so that nothing comes between
    current = await engine.store.glance(job_id)
    if current is None:
        raise no_such_job()
    place = await _place_after(engine, last_event_id, end)
    if place is not None and current.finished and not await _has_more(engine, place, current.seq):
        return Response(status_code=204, headers=HEADERS)
    retry = round(RETRY_MILLISECONDS * (1 + jitter))
    opening = [f"retry: {retry}\n\n".encode()]
    over = False
    if place is None:
        cursor = cursor_of(engine.store.database_id, end)
        # Finished, it has no id: who has got the snapshot alone shall ask again for the outcome.
        opening.append(_message("snapshot", None if current.finished else cursor, current))
        if current.finished:
            opening.append(_message("outcome", cursor, current))
            over = True
    listener = Listener(engine.feed, place or end, seq=current.seq, kinds=_KINDS)
    return EventStream(engine, job_id, None if over else listener, b"".join(opening), seconds)


async def _place_after(engine: Engine, last_event_id: str | None, end: Place) -> Place | None:
    """Where a client goes on; ``None`` when it is shown a snapshot instead."""
    if not last_event_id:
        return None
    try:
        place = place_of(last_event_id, engine.store.database_id)
        await engine.feed.check(place)
    except (InvalidOption, CursorTooOld):
        return None
    return place if end.position - place.position <= REPLAY_ROWS_MAX else None


async def _has_more(engine: Engine, place: Place, seq: int) -> bool:
    """Whether something has happened to the job since then."""
    while True:
        page = await engine.store.read_journal(
            JournalQuery(place, frozenset((seq,)), _KINDS, None, 1)
        )
        if page.entries or page.complete:
            return bool(page.entries)
        place = page.following


class EventStream(Response):
    """One connection."""

    def __init__(
        self,
        engine: Engine,
        job_id: str,
        listener: Listener | None,
        opening: bytes,
        seconds: float,
    ) -> None:
        super().__init__(
            headers={**HEADERS, "x-accel-buffering": "no"}, media_type="text/event-stream"
        )
        del self.headers["content-length"]
        self._engine = engine
        self._job_id = job_id
        self._listener = listener
        """``None`` when all is said with the opening."""
        self._opening = opening
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what happens until the outcome, the time is up, or the client or the runner goes."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            await _send(send, self._opening)
            if self._listener is not None:
                await self._follow(self._listener, receive, send)
        # Also to a client that is slow; but to one that reads nothing, no longer than this.
        with anyio.move_on_after(LAST_SECONDS):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, listener: Listener, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.cancel_scope.deadline = anyio.current_time() + self._seconds
                group.start_soon(_cancel_when_gone, receive, group.cancel_scope)
                await self._tell(listener, send)
                group.cancel_scope.cancel()
        finally:
            listener.close()

    async def _tell(self, listener: Listener, send: Send) -> None:
        """Every event, or of several that wait the last: a slow client hears less, not later."""
        try:
            while (event := await _next(listener, send)) is not None:
                if event.kind == Kind.PROGRESS:
                    if not listener.has_more:
                        progress = progress_of(event.progress)
                        await _send(send, _text("progress", event.cursor, progress))
                    continue
                if self._engine.feed.closed:
                    return  # there is nothing more to look into
                job = await self._engine.store.glance(self._job_id)
                if job is None:
                    await _send(send, _text("gone", event.cursor, None))
                    return
                await _send(
                    send, _message("outcome" if job.finished else "state", event.cursor, job)
                )
                if job.finished:
                    return
        except (StoreError, CursorTooOld):
            return  # the client asks again, and is told then what is wrong


async def _next(listener: Listener, send: Send) -> Event | None:
    while True:
        with anyio.move_on_after(KEEP_ALIVE_SECONDS):
            return await listener.next()
        await _send(send, b": keep-alive\n\n")


async def _cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _message(event: str, cursor: str | None, job: Job) -> bytes:
    return _text(event, cursor, status_of(job))


def _text(event: str, cursor: str | None, data: Any) -> bytes:
    """An event. Its data is one line whatever the job has said: nobody adds an event to ours."""
    head = f"event: {event}\n" if cursor is None else f"id: {cursor}\nevent: {event}\n"
    return f"{head}data: {to_json(data)}\n\n".encode("ascii")

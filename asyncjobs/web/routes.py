"""The routes: where a job stands, the stream of it, its result, and to cancel it."""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..clock import to_seconds
from ..errors import InvalidOption, RunnerFailed, RunnerNotStarted, StoreError, UnknownJob
from ..records import Job, in_one_line
from ..rules.files import MARK
from ..runner import Runner
from ..states import FINISHED, NOT_KEPT, State
from .access import Authorize, Door, check_authorize, check_origins
from .actions import CANCEL, OPENAPI, RESULT, STATUS
from .answers import HEADERS, Refused, answer, answer_stored, check_id, no_such_job
from .openapi import status_openapi
from .status import download_name, status_of
from .stream import STREAM_SECONDS, STREAM_SECONDS_MAX, open_stream
from .tokens import Secrets, check_secrets

if TYPE_CHECKING:
    from ..services.engine import Engine

Answer = Callable[[Request, str], Awaitable[Response]]

log = logging.getLogger("asyncjobs")

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
READ = ("GET", "HEAD")
_SOON = {"retry-after": "1"}


class NotGiven(Enum):
    """Apart from ``None``, which is what a setting gives that was forgotten."""

    NOT_GIVEN = "not given"


def status_routes(
    runner: Runner,
    *,
    authorize: Authorize | None = None,
    secret: Secrets | NotGiven = NotGiven.NOT_GIVEN,
    prefix: str = "/jobs",
    origins: Iterable[str] = (),
    stream_seconds: float | timedelta = STREAM_SECONDS,
) -> list[Route]:
    """Routes for a Starlette or FastAPI application, or for a ``Router``, which is one by itself.

    Without ``authorize`` and ``secret`` all of them answer 403.

    Args:
        authorize: ``authorize(request, job_id, action)`` says True or False, or is a coroutine
            function that does; the actions are ``status``, ``result``, ``cancel``, and, with an
            empty ``job_id``, ``openapi``. Asked before anything is looked up, in the event loop,
            of requests that bring no token. ``UnknownJob`` from it is a no.
        secret: what ``job_token`` signs with, or several: then tokens are taken.
        prefix: before each path.
        origins: pages of these may cancel as well, such as ``https://app.example.com``.
        stream_seconds: how long a stream lasts before the browser asks again; up to 30. An open
            one holds up a server that waits for open requests when it stops.

    Raises:
        InvalidOption: no runner; a secret of less than 32 bytes, or ``None`` where one is given; a
            prefix, an origin or a duration that is none.
    """
    if not isinstance(runner, Runner):
        raise InvalidOption(f"status_routes takes a Runner, got {type(runner).__name__}")
    check_authorize(authorize)
    keys = () if isinstance(secret, NotGiven) else check_secrets(secret)
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidOption(f"prefix={prefix!a} must begin with / and not end so, as /jobs does")
    seconds = to_seconds(stream_seconds, "stream_seconds", at_least=0.01)
    if seconds > STREAM_SECONDS_MAX:
        raise InvalidOption(
            f"stream_seconds={seconds:g} is out of range: up to {STREAM_SECONDS_MAX:g}"
        )
    door = Door(authorize, keys, check_origins(origins), runner.clock)
    desk = StatusDesk(runner, prefix, seconds)
    job = f"{prefix}/{{job_id}}"
    return [
        _route(f"{prefix}/openapi.json", OPENAPI, READ, door, desk.describe),
        _route(job, STATUS, READ, door, desk.status),
        _route(f"{job}/events", STATUS, READ, door, desk.events),
        _route(f"{job}/result", RESULT, READ, door, desk.result),
        _route(f"{job}/cancel", CANCEL, ("POST",), door, desk.cancel),
    ]


def _route(path: str, action: str, methods: tuple[str, ...], door: Door, answer: Answer) -> Route:
    name = f"asyncjobs-{answer.__name__}"
    return Route(path, Endpoint(action, methods, door, answer), name=name)


class Endpoint:
    """Where requests for one path arrive: an ASGI application."""

    def __init__(self, action: str, methods: tuple[str, ...], door: Door, answer: Answer) -> None:
        self._action = action
        self._methods = methods
        self._door = door
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever becomes of it."""
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except Refused as refused:
            response = refused.answer()
        except (RunnerNotStarted, RunnerFailed, StoreError) as error:
            log.warning("a status route answers 503: %s", in_one_line(str(error)))
            response = Refused(503, "unavailable", "try again soon", _SOON).answer()
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        job_id = request.path_params.get("job_id", "")
        await self._door.admit(request, job_id, self._action)
        if request.method not in self._methods:
            allow = {"allow": ", ".join(self._methods)}
            raise Refused(405, "method_not_allowed", f"this takes {allow['allow']}", allow)
        return await self._answer(request, job_id)


class StatusDesk:
    """What each path answers."""

    def __init__(self, runner: Runner, prefix: str, stream_seconds: float) -> None:
        self._runner = runner
        self._prefix = prefix
        self._stream_seconds = stream_seconds

    async def status(self, request: Request, job_id: str) -> Response:
        """A snapshot."""
        return answer(status_of(await self._glance(job_id)))

    async def events(self, request: Request, job_id: str) -> Response:
        """A stream of what happens, up to the outcome."""
        return await open_stream(
            self._engine(),
            check_id(job_id),
            request.headers.get("last-event-id"),
            seconds=self._stream_seconds,
            jitter=random.random(),
        )

    async def result(self, request: Request, job_id: str) -> Response:
        """The result of a job that has completed: JSON, or a file."""
        engine = self._engine()
        state = (await self._glance(job_id)).state
        if state not in FINISHED:
            raise Refused(409, "not_finished", "the job is not finished yet")
        if state is not State.COMPLETED:
            raise Refused(409, f"job_{state.value}", f"the job has {state.value}: see its status")
        outcome = (await engine.store.outcomes([job_id])).get(job_id)
        stored = None if outcome is None else outcome.result
        if stored is None and outcome is not None and outcome.reason == NOT_KEPT:
            raise Refused(410, NOT_KEPT, "the job completed; what it returned was not kept")
        if stored is None or not stored.startswith(MARK):
            return answer_stored(stored or "null")
        file = engine.files.stored(stored)
        try:
            found = await anyio.to_thread.run_sync(os.stat, file.path)
        except FileNotFoundError:
            raise no_such_job() from None
        return FileResponse(
            file.path,
            headers={**HEADERS},
            media_type=file.media_type,
            filename=download_name(file.name),
            stat_result=found,
        )

    async def cancel(self, request: Request, job_id: str) -> Response:
        """Cancel the job: ``cancelled``, ``requested`` or ``finished``, as ``handle.cancel``."""
        try:
            return answer({"answer": await self._runner.registry.cancel(check_id(job_id))})
        except UnknownJob:
            raise no_such_job() from None

    async def describe(self, request: Request, job_id: str) -> Response:
        """The OpenAPI document."""
        root = request.scope.get("root_path", "")
        return answer({**status_openapi(self._prefix), "servers": [{"url": root or "/"}]})

    async def _glance(self, job_id: str) -> Job:
        job = await self._engine().store.glance(check_id(job_id))
        if job is None:
            raise no_such_job()
        return job

    def _engine(self) -> Engine:
        engine = self._runner.engine()
        engine.check_loop()
        return engine

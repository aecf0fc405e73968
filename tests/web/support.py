"""An application around the routes, asked as a server asks it, and server-sent events read back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from asyncjobs import Runner
from asyncjobs.web import status_routes

SECRET = "a secret of the tests, long enough for all of them"
ORIGIN = "http://test"
SAME_ORIGIN = {"origin": ORIGIN}
PATIENCE_SECONDS = 10.0


def application(runner: Runner, **options: Any) -> Starlette:
    return Starlette(routes=status_routes(runner, **options))


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ORIGIN)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which has the shape of all errors."""
    content = answer.json()
    assert set(content) == {"error"}, content
    assert set(content["error"]) == {"code", "message"}
    assert content["error"]["message"]
    return answer.status_code, content["error"]["code"]


class Told(NamedTuple):
    """One event of a stream, as a browser would hand it out."""

    event: str
    data: Any
    id: str


class Stream:
    """One open connection. ``async with`` closes it as a browser does that goes away."""

    def __init__(self, app: ASGIApp, url: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        given = {"host": "test", **(headers or {})}
        self._scope = {
            "type": "http", "method": "GET", "path": parts.path, "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(), "root_path": "", "scheme": "http",
            "http_version": "1.1", "server": ("test", 80), "client": ("test", 1),
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
        }  # fmt: skip
        self._app = app
        self._left = asyncio.Event()
        self._sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._started = asyncio.Event()
        self.reads = asyncio.Event()
        """Cleared, the client takes nothing more."""
        self.reads.set()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._serve(), name="stream")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._serving

    def leave(self) -> None:
        self._left.set()

    async def _serve(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self._started.set()
            self._sent.put_nowait(None)

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            self._started.set()
        elif message["body"]:
            self._sent.put_nowait(bytes(message["body"]))

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as it was handed to the server."""
        while True:
            async with asyncio.timeout(PATIENCE_SECONDS):
                piece = await self._sent.get()
            if piece is None:
                return
            yield piece

    async def blocks(self) -> AsyncIterator[str]:
        """What stands between empty lines, until the stream ends."""
        rest = ""
        async for piece in self.pieces():
            self.text += piece.decode("ascii")
            *whole, rest = (rest + piece.decode("ascii")).split("\n\n")
            for block in whole:
                yield block
        assert rest == ""

    async def events(self) -> AsyncIterator[Told]:
        """The events, without comments and hints."""
        async for block in self.blocks():
            told = parse(block)
            if told is not None:
                yield told


def parse(block: str) -> Told | None:
    """As the specification says: any line may set a field, whatever was meant."""
    fields = {"event": "message", "id": ""}
    for line in block.splitlines():
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
    if "data" not in fields:
        return None
    return Told(fields["event"], json.loads(fields["data"]), fields["id"])

"""Answers: JSON that is harmless wherever it ends up, errors in one shape, headers on all."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import Response, StreamingResponse

from ..errors import InvalidOption
from ..rules.limits import check_text

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Nothing of ours is a page; should a browser take an answer for one, it may do nothing.
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
}
JSON = "application/json"
PIECE_CHARACTERS = 16 * 1024
"""Of a long result that are made harmless at once, so that the event loop is not held up."""

_NOT_ASCII = re.compile(r"[^\x00-\x7e]+")


class Refused(Exception):
    """A request gets an error for an answer."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}

    def answer(self) -> Response:
        """The one shape of all errors."""
        headers = dict(self.headers)
        if self.status == 401:
            headers["www-authenticate"] = 'Bearer error="invalid_token"'
        content = {"error": {"code": self.code, "message": str(self)}}
        return answer(content, self.status, headers)


def no_such_job() -> Refused:
    """The same for one that never was, one that is gone, and an id that cannot be one."""
    return Refused(404, "unknown_job", "there is no such job, or not any more")


def check_id(job_id: str) -> str:
    """An id that there may be.

    Raises:
        Refused: there cannot be such a job.
    """
    try:
        return check_text(job_id, "job_id")
    except InvalidOption:
        raise no_such_job() from None


def to_json(value: Any) -> str:
    """JSON in one line of ASCII, in which nothing is markup.

    Control characters and bidi marks are escaped, and it may stand inside HTML or an event.
    """
    return harmless(json.dumps(value, allow_nan=False, separators=(",", ":")))


def harmless(text: str) -> str:
    """A piece of JSON with the same meaning: these characters stand only inside its strings."""
    if not text.isascii() or "\x7f" in text:
        text = _NOT_ASCII.sub(lambda found: _escaped(found[0]), text)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``content`` as JSON."""
    return Response(to_json(content), status, {**HEADERS, **(headers or {})}, JSON)


def answer_stored(stored: str) -> Response:
    """JSON that is stored as text, a piece at a time."""

    async def pieces() -> AsyncIterator[str]:
        for start in range(0, len(stored), PIECE_CHARACTERS):
            yield harmless(stored[start : start + PIECE_CHARACTERS])

    return StreamingResponse(pieces(), 200, HEADERS, JSON)

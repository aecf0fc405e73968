"""Who may: nobody, unless the application's callable or a token of the application says so."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request

from ..clock import Clock
from ..errors import InvalidOption, UnknownJob
from .actions import CANCEL, OPENAPI
from .answers import Refused, check_id
from .tokens import PREFIX, check_token

Authorize = Callable[[Request, str, str], bool | Awaitable[bool]]
"""``authorize(request, job_id, action)``: True lets the request pass; who raises ``UnknownJob``,
as the registry does, does not let it."""

_ORIGIN = re.compile(r"https?://[a-z0-9.:\[\]_-]+")


class Door:
    """Lets requests pass, or refuses them before anything is looked up."""

    def __init__(
        self,
        authorize: Authorize | None,
        keys: tuple[bytes, ...],
        origins: frozenset[str],
        clock: Clock,
    ) -> None:
        self._authorize = authorize
        self._keys = keys
        self._origins = origins
        self._clock = clock

    async def admit(self, request: Request, job_id: str, action: str) -> None:
        """Return if the request may pass.

        Raises:
            Refused: it may not.
        """
        if self._authorize is None and not self._keys:
            raise Refused(
                403, "forbidden", "status_routes was given neither authorize= nor secret="
            )
        bearer = _bearer_of(request)
        if action == CANCEL and bearer is None:
            self._check_origin(request)
        token = self._token_of(request, bearer)
        if token is not None:
            now = self._clock.now()
            check_token(self._keys, token, job_id=job_id, action=action, now=now)
        elif not await self._asked(request, job_id, action):
            raise Refused(403, "forbidden", "this is not allowed")

    def _token_of(self, request: Request, bearer: str | None) -> str | None:
        """The token that the request brings; not what is somebody else's ``Authorization``."""
        if not self._keys:
            return None
        if bearer is not None and (self._authorize is None or bearer.startswith(PREFIX)):
            return bearer
        given = request.query_params.getlist("token")
        if len(given) > 1:
            raise Refused(401, "malformed_token", "there is more than one token")
        return given[0] if given else None

    async def _asked(self, request: Request, job_id: str, action: str) -> bool:
        if self._authorize is None:
            return False
        if action != OPENAPI:
            check_id(job_id)  # it may be looked up
        try:
            allowed = self._authorize(request, job_id, action)
            if inspect.isawaitable(allowed):
                allowed = await allowed
        except UnknownJob:
            return False
        if not isinstance(allowed, bool):
            raise InvalidOption(
                f"authorize must answer True or False, got {type(allowed).__name__}"
            )
        return allowed

    def _check_origin(self, request: Request) -> None:
        """Refuse a change that another site's page may have asked for with the user's cookies.

        Browsers send one of these headers with every POST. Who sends none is no browser, and is
        asked for an ``Authorization``, which no other site's page can add.
        """
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() in self._origins:
            return
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            same = site == "same-origin"
        else:
            same = origin is not None and _host_of(origin) == request.headers.get("host", "")
        if not same:
            raise Refused(
                403,
                "cross_origin",
                "this change must come from a page of the same origin, or with the header "
                "Authorization: Bearer",
            )


def check_origins(origins: object) -> frozenset[str]:
    """Other origins whose pages may cancel."""
    if isinstance(origins, str) or not isinstance(origins, Iterable):
        raise InvalidOption(f"origins must be a sequence of str, got {type(origins).__name__}")
    return frozenset(_check_origin(origin) for origin in origins)


def _check_origin(origin: object) -> str:
    if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin.lower()):
        raise InvalidOption(f"origins={origin!a} is none; such as https://app.example.com")
    return origin.lower()


def check_authorize(authorize: object) -> None:
    """Something to be called."""
    if authorize is not None and not callable(authorize):
        raise InvalidOption(f"authorize must be callable, got {type(authorize).__name__}")


def _bearer_of(request: Request) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def _host_of(origin: str) -> str | None:
    """``None`` for what names no host, such as the ``null`` of a page in a sandbox."""
    return origin.partition("://")[2] if _ORIGIN.fullmatch(origin.lower()) else None

"""Status for the front end: routes that let a browser follow a job. Needs the extra ``web``."""

from __future__ import annotations

from ..errors import MissingExtra

try:
    import starlette as _starlette  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra(
        "asyncjobs.web needs Starlette, which is not installed: pip install 'asyncjobs[web]'"
    ) from error

from .access import Authorize
from .actions import ACTIONS
from .openapi import status_openapi
from .routes import status_routes
from .tokens import job_token

__all__ = ["ACTIONS", "Authorize", "job_token", "status_openapi", "status_routes"]

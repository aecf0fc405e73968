"""Handle tokens: a signed and expiring permission to follow one job, and nothing else.

A token is ``ajt1.PAYLOAD.MAC``, both parts in URL-safe base64: the payload is JSON (the job, when
it expires, what may be done), the MAC is HMAC-SHA256 over all that stands before it. It is no
secret of the library's but of the application's, which may rotate it: tokens are signed with the
first of several secrets and taken with any.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from datetime import timedelta

import msgspec
from msgspec import Struct

from ..clock import Clock, SystemClock, check_clock, to_microseconds, to_seconds
from ..errors import InvalidOption
from ..rules.limits import check_choice, check_text
from .actions import JOB_ACTIONS, READING
from .answers import Refused

PREFIX = "ajt1."
"""Tells our tokens from others that an application may send as its ``Authorization``."""
SECRET_BYTES_MIN = 32
_TOKEN = re.compile(r"(ajt1\.([A-Za-z0-9_-]{1,4096}))\.([A-Za-z0-9_-]{43})")

Secrets = str | bytes | Iterable[str | bytes]


class Permission(Struct, frozen=True, array_like=True):
    """What a token says."""

    job_id: str
    expires_at: int
    """Microseconds UTC."""
    actions: tuple[str, ...]


_decode = msgspec.json.Decoder(Permission).decode


def job_token(
    secret: Secrets,
    job_id: str,
    *,
    expires_in: float | timedelta = 3600.0,
    actions: Iterable[str] = READING,
    clock: Clock | None = None,
) -> str:
    """A token for one job, to be given to whoever may follow it: text that fits into a URL.

    Args:
        secret: at least 32 bytes that only the application knows, the same after a restart and in
            all its processes; of several the first signs.
        job_id: the job's id.
        expires_in: seconds or timedelta; from 1. A longer job needs a new token, or a longer one.
        actions: ``status``, ``result`` and ``cancel``; by default the first two.
        clock: for tests.

    Raises:
        InvalidOption: a secret that is too short or none, an unknown action, a wrong duration.
    """
    key = check_secrets(secret)[0]
    check_text(job_id, "job_id")
    seconds = to_seconds(expires_in, "expires_in", at_least=1.0)
    if isinstance(actions, str) or not isinstance(actions, Iterable):
        raise InvalidOption(f"actions must be a sequence of str, got {type(actions).__name__}")
    allowed = tuple(check_choice(action, "actions", JOB_ACTIONS) for action in actions)
    now = (SystemClock() if clock is None else check_clock(clock)).now()
    payload = msgspec.json.encode(Permission(job_id, now + to_microseconds(seconds), allowed))
    signed = PREFIX + _to_text(payload)
    return f"{signed}.{_mac(key, signed)}"


def check_secrets(secret: object) -> tuple[bytes, ...]:
    """The application's secrets as keys, the signing one first.

    Raises:
        InvalidOption: there is none, or one is too short. It is never shown.
    """
    several = [secret] if isinstance(secret, (str, bytes)) else secret
    if not isinstance(several, Iterable):
        raise InvalidOption(
            f"secret must be a str, bytes or a sequence of them, got {type(secret).__name__}: is "
            "the setting that it comes from there?"
        )
    keys = tuple(_to_key(one) for one in several)
    if not keys:
        raise InvalidOption("secret=[] signs nothing; give one, such as secrets.token_bytes(32)")
    return keys


def _to_key(secret: object) -> bytes:
    if not isinstance(secret, (str, bytes)):
        raise InvalidOption(f"secret must be a str or bytes, got {type(secret).__name__}")
    key = secret.encode() if isinstance(secret, str) else secret
    if len(key) < SECRET_BYTES_MIN:
        raise InvalidOption(
            f"a secret has {len(key)} bytes; it needs {SECRET_BYTES_MIN} at least, such as "
            "secrets.token_hex(32)"
        )
    return key


def check_token(keys: tuple[bytes, ...], token: str, *, job_id: str, action: str, now: int) -> None:
    """Let a request pass whose token allows it.

    Raises:
        Refused: 401 for one that is none or has expired, 403 for one of others, for another job
            or that does not allow the action.
    """
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise Refused(401, "malformed_token", "this is not a token; send it as it was given out")
    signed, payload, mac = found.groups()
    if not any(hmac.compare_digest(mac, _mac(key, signed)) for key in keys):
        raise Refused(403, "foreign_token", "the token was not given out by this application")
    permission = _read(payload)
    if permission.job_id != job_id:
        raise Refused(403, "foreign_token", "the token is for another job")
    if now >= permission.expires_at:
        raise Refused(401, "expired_token", "the token has expired; ask the application anew")
    if action not in permission.actions:
        raise Refused(403, "forbidden", f"the token does not allow {action!r}")


def _read(payload: str) -> Permission:
    """What the application has signed; of another version it may be something else."""
    try:
        return _decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, msgspec.DecodeError) as error:
        raise Refused(401, "malformed_token", "the token cannot be read") from error


def _mac(key: bytes, signed: str) -> str:
    return _to_text(hmac.digest(key, signed.encode(), "sha256"))


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

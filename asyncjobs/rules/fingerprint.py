"""Which failures are the same: by task, type of exception, and place in the user's own code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

FINGERPRINT_LENGTH = 16
"""Hexadecimal digits: 64 bits, so that two of a million groups meet once in forty million."""


class Frame(NamedTuple):
    """One step of a traceback."""

    module: str
    function: str
    line: int
    file: str


def fingerprint_of(task: str, error_type: str, place: str) -> str:
    """What all failures of one kind share. Not the message: that mostly holds an id or a time."""
    text = "\0".join((task, error_type, place)).encode("utf-8", "backslashreplace")
    return blake2b(text, digest_size=FINGERPRINT_LENGTH // 2).hexdigest()


def place_of(frames: Sequence[Frame], libraries: Sequence[str]) -> str:
    """The innermost frame of the user's own code, as ``module:function:line``.

    ``frames`` begins with the task's function. Its top package is the user's own also where the
    application itself is installed among the ``libraries``, which are folders.
    """
    if not frames:
        return ""
    top = frames[0].module.partition(".")[0]
    own = frames[0]
    for frame in frames:
        foreign = frame.file.startswith(("<", *libraries))
        if not foreign or frame.module.partition(".")[0] == top:
            own = frame
    module = own.module
    if module.startswith("__"):  # a script, which has another name in workers
        module = os.path.splitext(os.path.basename(own.file))[0]
    return f"{module}:{own.function}:{own.line}"

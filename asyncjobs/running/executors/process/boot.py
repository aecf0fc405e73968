"""How a new interpreter becomes a fork server, or a spawned worker."""

from __future__ import annotations

import json
import subprocess
import sys

_BEGIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from asyncjobs.running.executors.process.server import {}; {}(*map(int, sys.argv[2:]))"
)


def command(function: str, *descriptors: int) -> list[str]:
    """The command line of an interpreter that calls ``function`` of the server's module.

    It finds modules where this one does, also where a program has changed ``sys.path``.
    """
    return [
        sys.executable,
        *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
        "-c",
        _BEGIN.format(function, function),
        json.dumps([path for path in sys.path if isinstance(path, str)]),
        *map(str, descriptors),
    ]

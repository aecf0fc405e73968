"""Reading Python sources as trees."""

from __future__ import annotations

import ast
from pathlib import Path

TRIES = 5


def tree_of(path: Path) -> ast.Module:
    """The tree of a source file.

    Before Python 3.11.8 and 3.12.2 whoever formats a traceback at the same time, in another thread
    or in a finalizer, disturbs the parser's one counter (python/cpython#106905): then again.
    """
    for _ in range(TRIES - 1):
        try:
            return ast.parse(path.read_text("utf-8"), str(path))
        except SystemError:
            continue
    return ast.parse(path.read_text("utf-8"), str(path))

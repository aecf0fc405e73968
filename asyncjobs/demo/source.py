"""Python source files: which there are, and what stands in one."""

from __future__ import annotations

import ast
import os
import threading
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__"})

# Nothing is lost by parsing one file at a time, since parsing holds the GIL anyway; and before
# Python 3.12.1 two threads in ``ast.parse`` could trip over one counter (python/cpython#106905).
_parsing = threading.Lock()


@dataclass(frozen=True)
class FileFacts:
    """What was counted in one file."""

    path: str
    lines: int
    functions: int
    classes: int
    longest: str
    """Name of the longest function; empty when there is none."""
    longest_lines: int


class Unparsable(Exception):
    """A file is no Python, or cannot be read. The text says why, in one line."""


def python_files(directory: Path) -> list[str]:
    """The .py files below ``directory``, as sorted relative names."""
    names = []
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        names += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    return sorted(_as_text(os.path.relpath(name, directory)) for name in names)


def facts_of(path: str) -> FileFacts:
    """Parse one file and count.

    Raises:
        Unparsable: saying why.
    """
    try:
        source = Path(path).read_bytes()
        with _parsing:
            # Bytes, not text: the parser itself knows how Python files declare their encoding.
            tree = ast.parse(source)
        return _count(path, source, tree)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise Unparsable(f"{where}{error.msg}") from error
    except OSError as error:
        raise Unparsable(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # null bytes, before Python 3.12
        raise Unparsable(str(error)) from error
    except (RecursionError, MemoryError) as error:  # both mean "nested too deeply" to the parser
        raise Unparsable("nested too deeply for the parser") from error


def _count(path: str, source: bytes, tree: ast.AST) -> FileFacts:
    functions = classes = longest_lines = 0
    longest = ""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions += 1
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > longest_lines:
                longest, longest_lines = node.name, lines
    return FileFacts(path, len(source.splitlines()), functions, classes, longest, longest_lines)


def _as_text(name: str) -> str:
    # A job's arguments are UTF-8. A file whose name is not cannot be opened under the name shown
    # here: its job fails and says so, rather than leaving it out in silence.
    return os.fsencode(name).decode("utf-8", "backslashreplace")

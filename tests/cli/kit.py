"""The command line, called as a shell would, but within this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncjobs.__main__ import main


@dataclass
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        """The one JSON document that it printed."""
        (line,) = self.lines
        return json.loads(line)

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class Shell:
    """Calls commands on one database."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def __call__(self, *words: object) -> Ran:
        return run("--db", str(self.database), *words)

    def start(self, *words: object) -> subprocess.Popen[str]:
        """A process of its own; its standard input is nobody's."""
        return subprocess.Popen(
            [sys.executable, "-m", "asyncjobs", "--db", str(self.database), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def run(*words: object) -> Ran:
    """Call the command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:  # argparse ends the process by itself
            code = int(ended.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def files_of(folder: Path) -> dict[str, int]:
    """What is in a folder, with sizes: for "nothing was left behind"."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*")}

"""Ledgers outside the database: what was acknowledged, and what user code did."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """One acknowledgement."""

    word: str
    """``job`` (enqueue returned), ``cancelled``, ``retried``, ``deleted`` or ``result``."""
    job_id: str
    value: str


class _Appender:
    """A file to which whole lines are appended, also by several processes at once."""

    def __init__(self, path: Path, write: Callable[[int, bytes], object] = os.write) -> None:
        self.path = path
        self._append = write
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)

    def _write(self, *words: object) -> None:
        self._append(self._descriptor, (" ".join(map(str, words)) + "\n").encode())

    def _lines(self) -> list[list[str]]:
        lines = self.path.read_text().splitlines()
        return [line.split(" ") for line in lines]

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class AckLedger(_Appender):
    """What the library said has happened: written after its call returned."""

    def ack(self, word: str, job_id: str, value: object = "-") -> None:
        """Note one answer."""
        self._write(word, job_id, value)

    def lines(self) -> list[Line]:
        """All answers so far."""
        return [Line(*words) for words in self._lines()]

    def ids(self, word: str) -> set[str]:
        """Ids that got this answer."""
        return {line.job_id for line in self.lines() if line.word == word}


class Start(NamedTuple):
    """One run of a job's code."""

    job_id: str
    instance: str
    claim: int
    pid: int
    started: float
    """Of the machine's monotonic clock, which all processes share."""
    ended: float | None
    seen: float
    """When it gave its last sign of life."""


class EffectLedger(_Appender):
    """What user code did: a line when it starts, a line when it ends."""

    def start(self, job_id: str, fence: tuple[str, int]) -> None:
        """The job's code begins."""
        self._write(job_id, *fence, os.getpid(), "start", repr(time.monotonic()))

    def alive(self, job_id: str, fence: tuple[str, int]) -> None:
        """The job's code goes on."""
        self._write(job_id, *fence, os.getpid(), "alive", repr(time.monotonic()))

    def end(self, job_id: str, fence: tuple[str, int]) -> None:
        """The job's code ends, however."""
        self._write(job_id, *fence, os.getpid(), "end", repr(time.monotonic()))

    def runs(self) -> dict[str, list[Start]]:
        """By job id the runs, in order of their start."""
        begun: list[tuple[tuple[str, str, int, int], float]] = []
        ended: dict[tuple[str, str, int, int], float] = {}
        seen: dict[tuple[str, str, int, int], float] = {}
        for job_id, instance, claim, pid, word, instant in self._lines():
            run = (job_id, instance, int(claim), int(pid))
            if word == "start":
                begun.append((run, float(instant)))
            elif word == "end":
                ended[run] = float(instant)
            seen[run] = float(instant)
        runs: dict[str, list[Start]] = {}
        for run, started in begun:
            runs.setdefault(run[0], []).append(Start(*run, started, ended.get(run), seen[run]))
        return runs

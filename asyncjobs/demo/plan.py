"""What one run of the demo is to do, as its processes hand it to each other."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the demo."""

    run: str
    """Tag and queue of its jobs, so that runs on one database do not see each other's."""
    directory: str
    files: list[str]
    database: str
    folder: str
    """Where report, ledger and log are written."""
    crash_at: int
    """The host dies when this many jobs have started; 0 for never."""

    @property
    def report(self) -> str:
        """Where the report is written."""
        return os.path.join(self.folder, "report.html")

    @property
    def log(self) -> str:
        """Where the hosts write their log."""
        return os.path.join(self.folder, "host.log")

    def without_crash(self) -> Self:
        """The same plan for the host that is to finish it."""
        return replace(self, crash_at=0)

    def save(self) -> Path:
        """Write the plan into its folder; returns the file."""
        path = Path(self.folder, "plan.json")
        path.write_text(json.dumps(asdict(self), indent=1))
        return path

    @classmethod
    def load(cls, path: str) -> Self:
        """Read a saved plan."""
        return cls(**json.loads(Path(path).read_text()))

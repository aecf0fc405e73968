"""What a runner counts for whoever watches it."""

from __future__ import annotations


class Tally:
    """What this process has seen since its start."""

    def __init__(self) -> None:
        self.started = 0
        self.late_values = 0
        """Values of jobs whose outcome was already decided (a thread past its timeout)."""
        self.lost_reports = 0
        """Outcomes refused because the run had been given up: rescued, or retried by hand."""

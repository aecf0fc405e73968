"""A module of an application that ends every worker right after its birth, while told to."""

from __future__ import annotations

import os

from asyncjobs import Tasks

STILLBORN = "ASYNCJOBS_TEST_STILLBORN"
"""In the environment: the file that tells it."""

tasks = Tasks()


def _end_if_told() -> None:
    if os.path.exists(os.environ.get(STILLBORN, "")):
        os._exit(9)


os.register_at_fork(after_in_child=_end_if_told)


@tasks.task(executor="process", on_crash="fail")
def live() -> int:
    return os.getpid()

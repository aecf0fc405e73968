"""Seeds of random tests: printed, so that a failure can be had again."""

from __future__ import annotations

import os
import secrets

VARIABLE = "ASYNCJOBS_SEED"


def seed_of(test: str) -> int:
    """A new seed, or the one that ASYNCJOBS_SEED names. pytest shows the line on failure."""
    given = os.environ.get(VARIABLE)
    seed = int(given) if given else secrets.randbits(32)
    print(f"{test}: {VARIABLE}={seed}")
    return seed

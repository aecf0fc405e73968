"""What all tests share: our own plugin, files in memory, and compiled modules."""

import os
import shutil
import sys
from pathlib import Path

from hypothesis import settings

pytest_plugins = ["asyncjobs.testing"]

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 * 1024**3
"""Containers often have 64 MB there, which is not enough."""

# Two thirds of what a test of a runner takes on a disk is waiting for it to be flushed. The calls
# are the same on a file system in memory, and so is what another process finds after a kill.
# PYTEST_DEBUG_TEMPROOT=/tmp has them on the disk all the same.
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# How long an example takes is the machine's affair, which may have other work; see "timed".
settings.register_profile("asyncjobs", deadline=None)
settings.load_profile("asyncjobs")

# Where the environment forbids to keep compiled modules, each of some hundred processes would
# compile the library anew, which takes it longer than all else that it does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

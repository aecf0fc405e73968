"""Deletes files of jobs that are gone: the row first, then the file, so that a crash loses none."""

from __future__ import annotations

import asyncio
import logging

from ..errors import StoreError
from ..running.context import Run
from ..running.files import FileFolder
from ..store.base import Store
from ..store.group_commit import GroupCommit
from ..store.journal import ForgetFiles

SLICE_FILES = 1_000
SWEEP_SECONDS = 60.0
SWEEPS_A_LOOK = 60
"""Sweeps between two looks at the whole folder."""

log = logging.getLogger("asyncjobs")


class Sweeper:
    """Looks after the folder of files."""

    def __init__(self, folder: FileFolder, store: Store, commit: GroupCommit[Run]) -> None:
        self._folder = folder
        self._store = store
        self._commit = commit

    async def run(self) -> None:
        """Sweep for ever: now and then what is gone, more rarely what nobody owns."""
        while True:
            await self.sweep_orphans()
            for _ in range(SWEEPS_A_LOOK):
                await asyncio.sleep(SWEEP_SECONDS)
                await self.sweep()

    async def sweep(self) -> None:
        """Delete the files of jobs that were deleted, pruned or started anew."""
        try:
            while gone := await self._store.gone_files(SLICE_FILES):
                await asyncio.to_thread(self._folder.remove, gone)
                await self._commit.execute(ForgetFiles(gone))
        except (StoreError, OSError) as error:
            log.warning("files of deleted jobs stay for now: %s", error)

    async def sweep_orphans(self) -> None:
        """Delete files that no outcome speaks of: a process died, or a run had been given up."""
        try:
            keys = self._folder.keys()
            for start in range(0, len(keys), SLICE_FILES):
                orphans = await self._store.orphaned_files(keys[start : start + SLICE_FILES])
                if orphans:
                    await asyncio.to_thread(self._folder.remove, orphans)
        except (StoreError, OSError) as error:
            log.warning("files that no job owns stay for now: %s", error)

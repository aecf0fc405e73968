"""CPU-heavy work on real files: compress every file of a folder, in subprocesses.

    python examples/compress.py [DATABASE] [FOLDER]

The event loop stays free, all CPUs are used, and a file that takes too long or needs too much
memory fails alone. Without a folder: the sources of Python's own `email` package.
"""

from __future__ import annotations

import asyncio
import email
import lzma
import sys
from dataclasses import dataclass
from pathlib import Path

from asyncjobs import JobFailed, Runner, current_job

runner = Runner(sys.argv[1] if len(sys.argv) > 1 else "compress.db", max_jobs=1_000)


@dataclass
class Compressed:
    """What became of one file."""

    path: str
    before: int
    after: int


@runner.task(executor="process", timeout=60, memory_limit=512 * 1024 * 1024)
def compress(path: str) -> Compressed:
    """One file. Runs in a worker: a plain function, as heavy as it likes."""
    data = Path(path).read_bytes()
    if not data:
        raise ValueError("an empty file")
    current_job().logger.info("compressing %d bytes", len(data))
    return Compressed(path, len(data), len(lzma.compress(data)))


async def main() -> None:
    """Compress them all, and say what it took."""
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else Path(email.__file__).parent)
    files = sorted(path for path in folder.glob("**/*") if path.is_file())
    async with runner:
        handles = await runner.enqueue_many([compress.job(str(path)) for path in files])
        done = []
        for handle in handles:
            try:
                done.append(await handle)
            except JobFailed as failed:
                print(f"failed: {failed.error_message}")
        before, after = sum(one.before for one in done), sum(one.after for one in done)
        attempts = [run for handle in handles for run in await runner.registry.attempts(handle.id)]
        cpu_seconds = sum(run.cpu_seconds or 0 for run in attempts)
        print(f"{len(done)} of {len(files)} files: {before:,} bytes became {after:,}")
        print(f"{cpu_seconds:.1f} CPU seconds in workers")


# Workers import this file to find the task: what starts the program stands under the guard.
if __name__ == "__main__":
    asyncio.run(main())

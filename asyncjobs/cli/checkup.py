"""What ``doctor`` looks at besides the content: versions, files, disk, processes.

Each finding is ``ok``, a ``note`` (worth knowing), or ``wrong``, and then says what to do.
"""

from __future__ import annotations

import os
import platform
import stat
import time
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from .. import __version__
from ..clock import to_datetime
from ..store.overview import InstanceRow
from ..store.sqlite.migrate import migrations
from .times import amount, size, when

WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
WAL_BYTES_MAX = 64 * 2**20
FREE_BYTES_MIN = 2 * WAL_BYTES_MAX
LEASE_SECONDS = 30.0
"""What a runner has by default; one that was given more may be taken for stopped here."""
INCREMENTAL = 2
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs",
                     "fuse.glusterfs", "glusterfs", "lustre", "ocfs2", "gfs2"})  # fmt: skip
SIDE_FILES = ("", "-wal", "-shm", "-turn", "-runners", "-files")


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    level: str
    subject: str
    text: str


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding("ok", subject, text)


def note(subject: str, text: str) -> Finding:
    """Nothing is wrong, but somebody may want to know."""
    return Finding("note", subject, text)


def wrong(subject: str, text: str) -> Finding:
    """Something is wrong; the text says what to do."""
    return Finding("wrong", subject, text)


def versions(sqlite: tuple[int, int, int]) -> Iterator[Finding]:
    """The programs. SQLite's is that of this very Python."""
    yield ok("versions", f"asyncjobs {__version__}, Python {platform.python_version()}")
    version = ".".join(map(str, sqlite))
    if WAL_RESET_BUG[0] <= sqlite <= WAL_RESET_BUG[1]:
        yield note(
            "sqlite",
            f"SQLite {version} has the WAL-reset bug (3.7.0 to 3.51.2): two connections that "
            "checkpoint at the same moment can damage the file. asyncjobs does it under a lock; on "
            "your own connections to this file set wal_autocheckpoint = 0",
        )
    else:
        yield ok("sqlite", f"SQLite {version}")


def schema(version: int | None) -> Finding:
    """The version of the tables."""
    newest = migrations()[-1][0]
    if version == newest:
        return ok("schema", f"version {version}")
    if version is None:
        text = "no asyncjobs_ tables; give the path that the application gives its Runner"
        return wrong("schema", f"a database of something else: {text}")
    if version == 0:
        return wrong("schema", "empty: no application has started a Runner on it yet")
    if version > newest:
        text = f"newer than this asyncjobs, which knows {newest}; install the newer asyncjobs here"
    else:
        text = (
            f"older than this asyncjobs, which needs {newest}; start the application once with it, "
            "or use the asyncjobs that the application has"
        )
    return wrong("schema", f"version {version} is {text}")


def file_settings(found: Mapping[str, int]) -> Finding:
    """The settings that are kept in the file."""
    if found["auto_vacuum"] != INCREMENTAL:
        return note(
            "settings",
            "auto_vacuum is not incremental, as other tables were there first: the file does not "
            "shrink when jobs are pruned",
        )
    pages = size(found["page_size"] * found["page_count"])
    return ok("settings", f"auto_vacuum is incremental, {pages}")


def files(database: str) -> Iterator[Finding]:
    """Who may read and write the database and what stands beside it."""
    owner = os.stat(database).st_uid
    fine = True
    for ending in SIDE_FILES:
        path = database + ending
        try:
            found = os.stat(path)
        except FileNotFoundError:
            continue
        if found.st_mode & 0o077:
            fine = False
            mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
            yield wrong("files", f"{path} is open to other users ({mode}): chmod go= {path}")
        if found.st_uid != owner:
            fine = False
            text = f"{path} belongs to user {found.st_uid}, the database to {owner}"
            yield wrong("files", f"{text}, who cannot open it: chown {owner} {path}")
    if fine:
        yield ok("files", "only their owner can read them")


def log_file(database: str, *, live: bool) -> Finding:
    """How large the log is."""
    try:
        found = os.stat(f"{database}-wal").st_size
    except FileNotFoundError:
        if live:
            text = "no -wal, although a runner is live: somebody has deleted or switched it off"
            return wrong("log", f"{text}; stop the application, and restore a backup")
        return ok("log", "no -wal: nothing has the database open")
    if found > WAL_BYTES_MAX:
        text = f"the -wal has {size(found)}, more than {size(WAL_BYTES_MAX)}"
        return wrong("log", f"{text}: somebody reads without an end; look for long transactions")
    if found and not live:
        text = f"a -wal of {size(found)} and no live runner: it is part of the database"
        return note("log", f"{text}, so copy both together; the next start takes it in")
    return ok("log", f"the -wal has {size(found)}")


def disk(database: str, mounts: str = "/proc/self/mountinfo") -> Iterator[Finding]:
    """Whether there is room, on a file system that keeps its promises."""
    folder = os.path.dirname(database)
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        yield wrong("disk", f"the file system of {folder} is read-only; mount it writable")
    elif free < FREE_BYTES_MIN:
        text = f"{size(free)} free in {folder}, less than {size(FREE_BYTES_MIN)}"
        yield wrong("disk", f"{text}: make room, or enqueues will fail with StoreFull")
    else:
        yield ok("disk", f"{size(free)} free")
    kind = file_system(folder, mounts)
    if kind in NETWORK:
        text = f"{folder} is on a network file system ({kind}), whose locks are not reliable"
        yield wrong("disk", f"{text}; move the database to a local disk")


def file_system(folder: str, mounts: str) -> str | None:
    """The kind of file system of a folder, where the machine says (Linux)."""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            fields = [line.split() for line in lines]
    except OSError:
        return None
    best, kind = "", None
    for line in fields:
        point = line[4].replace("\\040", " ").rstrip("/")
        if (folder + "/").startswith(point + "/") and len(point) >= len(best):
            best, kind = point, line[line.index("-") + 1]
    return kind


def instances(database: str, rows: Sequence[InstanceRow]) -> tuple[bool, list[Finding]]:
    """Whether a runner is live, and how those are that have not ended."""
    # Only here: locks and doorbells bring asyncio along, and other commands start without it.
    from ..services.instance import SUFFIX, Neighbours

    neighbours = Neighbours(f"{database}-runners", LEASE_SECONDS)
    findings, live = [], False
    for row in rows:
        lock = f"{database}-runners/{row.id}{SUFFIX}"
        try:
            alive = row.ended_at is None and neighbours.is_alive(row.id)
            silent_seconds = time.time() - os.stat(lock).st_mtime if alive else 0.0
        except OSError as error:  # another user's, or gone at this moment
            findings.append(note("runners", f"{lock}: {error.strerror}"))
            continue
        live = live or alive
        finding = _live(row, silent_seconds) if alive else _gone(row)
        if finding is not None:
            findings.append(finding)
    if not live:
        findings.append(note("runners", "none is live: jobs wait until the application starts"))
    return live, findings


def _live(row: InstanceRow, silent_seconds: float) -> Finding:
    if silent_seconds > LEASE_SECONDS:
        text = f"{_who(row)} is stopped since {amount(silent_seconds)}: continue it, or end it"
        return wrong("runners", text)
    since = when(to_datetime(row.started_at))
    return ok("runners", f"{_who(row)}, since {since}, runs {row.running:,} jobs")


def _gone(row: InstanceRow) -> Finding | None:
    """One that has ended is no finding, unless it has left something behind."""
    if row.running:
        text = f"{_who(row)} is gone, and {row.running:,} jobs count as running there"
        return wrong("runners", f"{text}: start the application, or give another runner a second")
    if row.ended_at is None:
        return note("runners", f"{_who(row)} died and ran nothing; the next runner notes it")
    return None


def _who(row: InstanceRow) -> str:
    return f"process {row.pid} on {row.host}, instance {row.id}"

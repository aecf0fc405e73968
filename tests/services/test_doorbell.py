"""The doorbell: what one process tells another arrives, and what is lost is made good."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from asyncjobs.services.doorbell import Doorbell, Ring, remove_bell

PATIENCE_SECONDS = 10.0


class Ear:
    """A bell, and what it hears."""

    def __init__(self, name: str, folder: Path) -> None:
        self.heard: asyncio.Queue[Ring] = asyncio.Queue()
        self.bell = Doorbell(self.heard.put_nowait)
        self.bell.open(name, str(folder))

    async def next(self) -> Ring:
        """The next ring."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.heard.get()


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Ear, Ear]]:
    one, other = Ear("one", tmp_path), Ear("other", tmp_path)
    one.bell.meet({"other": other.bell.address})
    yield one, other
    one.bell.close()
    other.bell.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tell", "ring"),
    [
        (Doorbell.tell_hello, Ring(hello=True)),
        (Doorbell.tell_jobs, Ring(jobs=True)),
        (Doorbell.tell_cancels, Ring(cancels=True)),
        (lambda bell: bell.tell_ended("a"), Ring(ended=["a"])),
        (Doorbell.tell_listens, Ring(listens=True)),
        (Doorbell.tell_schedules, Ring(schedules=True)),
    ],
    ids=["hello", "jobs", "cancels", "ended", "listens", "schedules"],
)
async def test_what_is_told_is_heard(
    two: tuple[Ear, Ear], tell: Callable[[Doorbell], None], ring: Ring
) -> None:
    one, other = two
    tell(one.bell)
    assert await other.next() == ring


async def test_what_is_told_in_one_pass_of_the_loop_is_one_ring(two: tuple[Ear, Ear]) -> None:
    one, other = two
    for number in range(1_000):
        one.bell.tell_ended(str(number))
        one.bell.tell_jobs()
    ring = await other.next()
    assert (ring.jobs, len(ring.ended)) == (True, 1_000)
    assert other.heard.empty()


async def test_moves_of_the_journal_are_told_to_those_who_listen_alone(
    two: tuple[Ear, Ear],
) -> None:
    one, other = two
    one.bell.tell_moved()
    one.bell.tell_jobs()
    assert await other.next() == Ring(jobs=True)

    other.bell.meet({"one": one.bell.address})
    other.bell.tell_listens()
    assert (await one.next()).listens
    assert await other.next() == Ring(moved=True)  # since its last look, perhaps
    for _ in range(100):
        one.bell.tell_moved()
    assert await other.next() == Ring(moved=True)
    assert other.heard.empty()


async def test_a_ring_too_long_for_a_datagram_says_to_look_at_everything(
    two: tuple[Ear, Ear],
) -> None:
    one, other = two
    for number in range(100_000):
        one.bell.tell_ended(f"{number:036}")
    ring = await other.next()
    assert (ring.everything, ring.ended) == (True, [])


async def test_who_missed_a_ring_is_told_to_look_at_everything_with_the_next(
    two: tuple[Ear, Ear], tmp_path: Path
) -> None:
    one, other = two
    full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    full.bind(str(tmp_path / "asyncjobs-full.bell"))
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sender.sendto(b"", full.getsockname())
    one.bell.meet({"other": other.bell.address, "full": full.getsockname()})
    one.bell.tell_ended("lost to one")
    assert (await other.next()).ended == ["lost to one"]

    full.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            full.recv(100)
    one.bell.tell_ended("another")
    assert (await other.next()).ended == ["another"]
    assert b"another" not in full.recv(10_000)
    one.bell.tell_ended("third")
    assert (await other.next()).ended == ["third"]
    assert b"third" in full.recv(10_000)
    sender.close()
    full.close()
    remove_bell(str(tmp_path / "asyncjobs-full.bell"))


async def test_neighbour_that_is_gone_hurts_nobody(two: tuple[Ear, Ear], tmp_path: Path) -> None:
    one, other = two
    one.bell.meet({"gone": str(tmp_path / "asyncjobs-gone.bell"), "other": other.bell.address})
    one.bell.tell_jobs()
    assert (await other.next()).jobs


async def test_garbage_is_not_a_ring(
    two: tuple[Ear, Ear], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = two
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for garbage in (b"\xc1 no msgpack", b"", b"\x95\xc2\xc2\xc2\xc2\x91\xa2\xff\xfe"):
            sender.sendto(garbage, other.bell.address)
    one.bell.tell_jobs()
    assert (await other.next()).jobs
    assert caplog.text.count("are no ring") == 1  # whoever floods it does not fill the log


async def test_alone_nothing_is_sent(tmp_path: Path) -> None:
    ear = Ear("alone", tmp_path)
    ear.bell.tell_jobs()
    ear.bell.tell_ended("a")
    assert ear.bell._sending is None
    ear.bell.close()


async def test_bell_of_a_database_with_a_long_path_hangs_in_the_temporary_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    ear = Ear(f"long-{os.getpid()}", folder)
    assert Path(ear.bell.address).parent == Path(os.environ.get("TMPDIR", "/tmp"))
    other = Ear("other", tmp_path)
    other.bell.meet({"long": ear.bell.address})
    other.bell.tell_jobs()
    assert (await ear.next()).jobs
    ear.bell.close()
    other.bell.close()
    assert not Path(ear.bell.address).exists()


async def test_bell_can_be_rung_by_its_owner_alone(two: tuple[Ear, Ear]) -> None:
    for ear in two:
        assert stat.S_IMODE(Path(ear.bell.address).stat().st_mode) == 0o600


def test_only_bells_are_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    remove_bell(str(precious))
    assert precious.exists()

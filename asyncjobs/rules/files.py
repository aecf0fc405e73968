"""Files as results: what a job returns, and what its handle gives back."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

import msgspec
from msgspec import Struct

from ..errors import InvalidOption
from .limits import check_text

MARK = '{"asyncjobs_file":'
"""How the stored result of a file begins. No other result may begin so."""
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)
_KEY = re.compile(r"[0-9]+-[0-9]+", re.ASCII)


class File:
    """A file for a job to return: it is moved beside the database, and goes with the job.

    Args:
        path: where it is; its folder must be writable, since it is taken from there.
        name: for whoever downloads it; by default its own.
        media_type: the same.

    Raises:
        InvalidOption: a name with a folder in it, or that is none; a media type that is none.
    """

    __slots__ = ("media_type", "name", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        media_type: str = "application/octet-stream",
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidOption(f"path must be a path, got {type(path).__name__}")
        self.path = os.fspath(path)
        if not isinstance(self.path, str) or "\x00" in self.path:
            raise InvalidOption(f"path={self.path!a} names no file; it must be text without NUL")
        self.name = check_text(os.path.basename(self.path) if name is None else name, "name")
        if self.name in (".", "..") or "/" in self.name or "\\" in self.name:
            raise InvalidOption(f"name={self.name!a} must be a file's name, without a folder")
        self.media_type = check_text(media_type, "media_type")
        if not _MEDIA_TYPE.fullmatch(self.media_type):
            raise InvalidOption(f"media_type={media_type!a} is none; such as text/csv")

    @property
    def size(self) -> int:
        """Bytes."""
        return os.path.getsize(self.path)

    def open(self) -> BinaryIO:
        """The file, to be read.

        Raises:
            OSError: it is not there, as when its job was deleted meanwhile.
        """
        return open(self.path, "rb")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!a}, {self.media_type}>"


class StoredFile(File):
    """A file that a job has returned, where it is kept: for as long as the job."""

    __slots__ = ("_size",)

    def __init__(self, path: str, name: str, media_type: str, size: int) -> None:
        super().__init__(path, name, media_type)
        self._size = size

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size


class FileRecord(Struct, frozen=True):
    """What is stored as the result."""

    key: str
    """Its name on disk: the job's row and the run that returned it."""
    name: str
    media_type: str
    size: int


class _Marked(Struct, frozen=True):
    asyncjobs_file: FileRecord


_decode = msgspec.json.Decoder(_Marked).decode


def encode_file(record: FileRecord) -> str:
    """A file as a stored result."""
    return msgspec.json.encode(_Marked(record)).decode()


def decode_file(stored: str) -> FileRecord:
    """The other way. Its key never leads anywhere but into the folder of the files."""
    record = _decode(stored).asyncjobs_file
    if not is_key(record.key):
        raise InvalidOption("the stored result names no file of this database")
    return record


def is_key(name: str) -> bool:
    """Whether a file on disk may be one of a job."""
    return _KEY.fullmatch(name) is not None

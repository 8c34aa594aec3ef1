"""Read files and archives within limits: a small archive can unpack to any size."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dynal_fast.data.source import DatasetCorruptError, check_regular

DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}


class BoundedStream(io.RawIOBase):
    """A stream that raises after ``limit`` bytes.

    Parameters
    ----------
    stream
        What is read.
    limit
        In bytes.
    where
        Names the stream in errors.

    >>> BoundedStream(io.BytesIO(bytes(9)), 8, "x.gz").read()
    Traceback (most recent call last):
        ...
    dynal_fast.data.source.DatasetCorruptError: x.gz holds more than 8 bytes, more than it may
    """

    def __init__(self, stream: Any, limit: int, where: str) -> None:
        self._stream = stream
        self._left = limit
        self._refusal = f"{where} holds more than {limit:,} bytes, more than it may"

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill the buffer as far as the stream goes; return the number of bytes."""
        content = self._stream.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise DatasetCorruptError(self._refusal)
        buffer[: len(content)] = content
        return len(content)


def read_bounded(title: str, path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises
    ------
    DatasetCorruptError
        It is no regular file, or longer.
    """
    check_regular(title, path)
    with path.open("rb") as file:
        return BoundedStream(file, limit, f"{title}: {path}").readall()


def archive_files(
    title: str, path: Path, wanted: Callable[[str], bool], limit: int, file_limit: int
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the wanted files in a tar archive, packed or not.

    Nothing is written to disk, so a member's path cannot escape the folder. Links, devices and
    folders are skipped.

    Parameters
    ----------
    title
        Of the data set, for errors.
    path
        The archive.
    wanted
        Tells by its name whether a file is read.
    limit
        Of the whole unpacked archive, in bytes.
    file_limit
        Of a file in it, in bytes.

    Raises
    ------
    DatasetCorruptError
        The archive is damaged or exceeds a limit.
    """
    check_regular(title, path)
    where = f"{title}: {path}"
    try:
        with path.open("rb") as packed:
            start = packed.read(6)
            packed.seek(0)
            unpack = next(
                (DECOMPRESSORS[key] for key in DECOMPRESSORS if start.startswith(key)), None
            )
            stream = BoundedStream(packed if unpack is None else unpack(packed), limit, where)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # headers without end
                    if not wanted(member.name) or not member.isreg():
                        continue
                    if member.issparse() or not 0 <= member.size <= file_limit:
                        raise DatasetCorruptError(
                            f"{where}: {member.name} has {member.size:,} bytes, "
                            f"expected at most {file_limit:,}"
                        )
                    file = archive.extractfile(member)
                    assert file is not None  # a regular file, as checked
                    yield member.name, file.read()
    except DatasetCorruptError:
        raise
    except Exception as error:  # tarfile and the decompressors raise many types
        reason = str(error) or repr(error)
        raise DatasetCorruptError(f"{where} does not unpack: {reason}") from error

"""Atomic writes: a file appears whole or not at all. The package writes all its files here."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".dynal_fast.tmp"  # how the names of unfinished files and folders end

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path``: a reader, or a crash, finds the old or the new file.

    The content goes to a temporary file in the same folder, which is flushed to disk and renamed.
    A symbolic link stays; the file it leads to is replaced and keeps its permissions. Another hard
    link to that file keeps the old content.

    Raises
    ------
    ValueError
        What is at ``path`` is not a regular file but a folder, a device, a pipe or a socket.
    OSError
        The disk is full, or the file or its folder is read-only; the old file is as it was.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces ``path`` when the block ends, as `write_atomically` does.

    When the block raises, ``path`` is as it was.
    """
    target = regular_target(path)
    temporary = _temporary_beside(target)
    with _errors_that_name(path):
        try:
            with open(temporary, "xb") as file:
                _keep_permissions(target, temporary)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _flush_folder(target.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder for files, written with `atomic_file`, that becomes ``path`` at the end.

    If another process made ``path`` first, its folder stays and this one is deleted. It is deleted,
    too, when the block raises.
    """
    target = Path(path)
    temporary = _temporary_beside(target)
    try:
        with _errors_that_name(path):
            temporary.mkdir()
        yield temporary
        with _errors_that_name(path):
            try:
                temporary.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _flush_folder(target.parent)


def regular_target(path: str | Path) -> Path:
    """Return the file that writing to ``path`` makes or replaces: where its links lead.

    Raises
    ------
    ValueError
        Something else than a regular file is there, or an open file of a process: /dev/stdout.
    OSError
        Links lead in a circle, there is no such folder, or it or the file is read-only.
    """
    target = Path(os.path.realpath(path))
    needed = [target.parent]
    with _errors_that_name(path):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            os.stat(target.parent)
        else:
            if not stat.S_ISREG(mode):
                kind = _KINDS.get(stat.S_IFMT(mode), "something else")
                raise ValueError(f"cannot write {path}: it is {kind}, not a regular file")
            if _is_open_file(path):  # a new file in its place would lose what others write there
                raise ValueError(f"cannot write {path}: it is an open file, not one by its name")
            needed.append(target)
        for there in needed:
            if not os.access(there, os.W_OK):
                raise PermissionError(errno.EACCES, f"{there} is read-only")
    return target


def _is_open_file(path: str | Path) -> bool:
    """Whether links lead through the descriptors of a process, as /dev/stdout does."""
    while True:
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        path = os.path.join(folder, name)
        if re.fullmatch(r"/proc/\d+(/task/\d+)?/fd", folder):
            return True
        if not os.path.islink(path):
            return False
        path = os.path.join(folder, os.readlink(path))


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of `write_atomically` that a killed process left in ``folder``."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def _temporary_beside(target: Path) -> Path:
    """Return an unused name in the same folder, of fixed length however long the target's is."""
    return target.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")


def _keep_permissions(target: Path, temporary: Path) -> None:
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # only root may give a file away
            os.chown(temporary, old.st_uid, old.st_gid)
    os.chmod(temporary, old.st_mode & 0o777)


@contextmanager
def _errors_that_name(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write {path}: {reason}") from error


def _flush_folder(folder: Path) -> None:
    """Flush the rename to disk, where the file system can flush folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

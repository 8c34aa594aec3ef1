"""Files that appear whole or not at all: every file that the package writes is written here."""

import contextlib
import os
from pathlib import Path

TEMPORARY = ".dynal_fast.tmp"  # how the names of unfinished files end


def write_atomically(path: str | Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a reader, or a crash, finds the old or the new file.

    It is written beside ``path`` under a temporary name, flushed to the disk and renamed.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written; the old file is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"cannot write {path}: {reason}") from error
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself last; a file system that cannot flush folders is left alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of `write_atomically` that a killed process left in ``folder``."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)

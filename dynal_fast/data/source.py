"""Find the files of a data set; the errors where one is missing or damaged."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VERIFIED = "official checksums verified"
NOT_CHECKED = "checksums not checked (verify=False)"
NO_CHECKSUM = "no official checksum exists for these files"
UNPACKED = "not verified: official checksums, where there are any, are of the packed files"


class DatasetNotFoundError(FileNotFoundError):
    """A file of a data set is not there; the message says which, where, and where to get it."""


class DatasetCorruptError(ValueError):
    """A file of a data set exists, but its content is wrong."""


@dataclass(frozen=True)
class Source:
    """A data set as people keep it on disk.

    ``folders`` are searched in order, relative to the data root.
    """

    title: str
    home: str
    folders: tuple[str, ...]

    @property
    def how_to_get(self) -> str:
        """What to do about files that are missing or damaged, as a sentence."""
        return f"Nothing is downloaded: get it from {self.home} and pass the folder that holds it."

    def candidates(self, root: Path, names: Sequence[str]) -> list[Path]:
        """Every path at which one of the alternative names may lie."""
        return [root / folder / name for folder in self.folders for name in names]

    def find(self, root: Path, *names: str) -> Path:
        """Return the first existing path for any of the alternative names.

        Raises
        ------
        DatasetNotFoundError
            None exists.
        """
        candidates = self.candidates(root, names)
        for path in candidates:
            if path.exists():
                return path
        looked_for = "\n".join(f"  {path}" for path in candidates)
        raise DatasetNotFoundError(
            f"{self.title}: {' or '.join(names)} is missing. Looked for:\n{looked_for}\n"
            f"{self.how_to_get}"
        )


def check_regular(title: str, path: Path) -> None:
    """Raise DatasetCorruptError unless the path is a file: a pipe or a device has no end."""
    if not path.is_file():
        raise DatasetCorruptError(f"{title}: {path} is no regular file")


def md5(data: bytes | Path) -> str:
    """Return the MD5 of bytes, or of a file's content, in hexadecimal.

    >>> md5(b"abc")
    '900150983cd24fb0d6963f7d28e17f72'
    """
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(data, Path):
        with data.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    else:
        digest.update(data)
    return digest.hexdigest()


def check_md5(title: str, path: Path, content: bytes | Path, official: str) -> None:
    """Raise DatasetCorruptError unless the content has the official MD5."""
    if isinstance(content, Path):
        check_regular(title, content)
    actual = md5(content)
    if actual != official:
        raise DatasetCorruptError(
            f"{title}: {path} has MD5 {actual}, the official one is {official}: the file is "
            "damaged or a different version; verify=False reads it anyway."
        )

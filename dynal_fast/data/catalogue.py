"""The names of samples, and which sample a reference in somebody's file means."""

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from dynal_fast.plain import shown

# How Label Studio names what it serves from a folder, and what was uploaded to it.
LOCAL_FILES = "/data/local-files/"
_UPLOADED = re.compile(r"(?:.*/)?upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)")
_DRIVE = re.compile(r"[A-Za-z]:/")


class UnknownSampleError(LookupError):
    """A reference names no sample, or several."""


@dataclass(frozen=True)
class Catalogue:
    """What the samples are called.

    Attributes
    ----------
    root
        The folder in which the files are.
    names
        Of each sample, distinct: the path of its file below ``root``, with ``/``, or the identifier
        of a text.
    column
        How tables call the names: ``"file"`` or ``"text_id"``.
    states
        Of each sample: something that changes with its content, such as the size of a file.
    texts
        Of each sample, if the samples are texts.
    """

    root: Path
    names: tuple[str, ...]
    column: str
    states: tuple[str, ...]
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def find(self, reference: str) -> int:
        """Return the sample that a reference means.

        Beside its name, a file is found by its absolute path, here or on another machine, its path
        from the working folder, its name without folders, with backslashes, in the other Unicode
        form, and by the addresses that Label Studio gives it.

        Raises
        ------
        UnknownSampleError
            There is no such sample, or there are several.

        >>> files = Catalogue(Path("/photos"), ("b/x.png", "b/y z.png"), "file", ("", ""))
        >>> files.find("/photos/b/x.png"), files.find("/data/local-files/?d=photos/b/y%20z.png")
        (0, 1)
        >>> files.find("/data/upload/1/0a1b2c3d-y_z.png")
        1
        """
        reference = reference.strip()
        if reference in self._numbers:
            return self._numbers[reference]
        if self.column != "file":
            raise UnknownSampleError(f"no text is called {shown(reference)}")
        for form in (reference, reference.replace("\\", "/")):
            found = self._by_path(form)
            if found is not None:
                return found
        raise UnknownSampleError(f"{self.root} holds no image {shown(reference)}")

    def find_text(self, text: str) -> int:
        """Return the sample that has this text.

        Raises
        ------
        UnknownSampleError
            There is none, or there are several.
        """
        return self._only(self._by_text.get(text, []), text)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _composed(self) -> dict[str, int]:
        return {_composed(name): i for i, name in enumerate(self.names)}

    @cached_property
    def _by_last(self) -> dict[str, list[int]]:
        return _grouped(_composed(PurePosixPath(name).name) for name in self.names)

    @cached_property
    def _by_uploaded(self) -> dict[str, list[int]]:
        lasts = (_composed(PurePosixPath(name).name) for name in self.names)
        return _grouped(map(_as_uploaded, lasts))

    @cached_property
    def _by_text(self) -> dict[str, list[int]]:
        return _grouped(self.texts)

    def _by_path(self, reference: str) -> int | None:
        parts = urlsplit(reference) if "://" in reference or LOCAL_FILES in reference else None
        if parts is not None:
            served = parse_qs(parts.query).get("d") if parts.path.endswith(LOCAL_FILES) else None
            reference = "/" + (served[0] if served else unquote(parts.path)).lstrip("/")
        uploaded = _UPLOADED.fullmatch(reference)
        if uploaded:
            name = _as_uploaded(_composed(unquote(uploaded[1])))
            return self._only(self._by_uploaded.get(name, []), reference)
        normal = _composed(os.path.normpath(reference))
        if normal in self._composed:
            return self._composed[normal]
        if reference.startswith("/") or _DRIVE.match(reference):
            return self._by_tail(normal, reference)
        here = os.path.relpath(os.path.realpath(normal), os.path.realpath(self.root))
        if _composed(here) in self._composed:
            return self._composed[_composed(here)]
        if "/" not in normal and normal in self._by_last:
            return self._only(self._by_last[normal], reference)
        return None

    def _by_tail(self, normal: str, reference: str) -> int | None:
        """Return the sample whose name ends an absolute path, which may be another machine's."""
        below = os.path.relpath(normal, _composed(os.path.abspath(self.root)))
        if not below.startswith(".."):
            return self._composed.get(below)
        steps = normal.split("/")
        for begin in range(1, len(steps)):
            found = self._composed.get("/".join(steps[begin:]))
            if found is not None:
                return found
        return self._only(self._by_last.get(steps[-1], []), reference)

    def _only(self, numbers: list[int], reference: str) -> int:
        if len(numbers) == 1:
            return numbers[0]
        if not numbers:
            raise UnknownSampleError(f"no sample is {shown(reference)}")
        several = " and ".join(shown(self.names[i]) for i in numbers[:2])
        raise UnknownSampleError(f"{shown(reference)} may be {several}: name the folder, too")


def _grouped(keys: Iterable[str]) -> dict[str, list[int]]:
    """Return the positions of each key."""
    found: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return found


def _composed(name: str) -> str:
    """Return the Unicode form in which letters and their accents are one character."""
    return unicodedata.normalize("NFC", name)


def _as_uploaded(name: str) -> str:
    """Return a file's name as Label Studio stores an upload: no blanks, no other characters."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))

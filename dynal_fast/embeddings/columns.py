"""Which columns of a table are the features."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "list", "other"]

INDEXES = ("", "Unnamed: 0", "__index_level_0__")  # pandas' name for the index of a frame
NOT_FEATURES = frozenset(
    ("id", "ids", "idx", "index", "row", "rows", "fold", "split", "y")
    + ("label", "labels", "target", "targets", "class", "classes")
)
_SLICE = re.compile(r"(\d*):(\d*)")


@dataclass(frozen=True)
class Chosen:
    """The positions of the columns that are read, and the names of those that are not."""

    positions: list[int]
    is_list: bool
    left_out: tuple[str, ...]


def choose_columns(
    names: Sequence[str], kinds: Sequence[Kind], asked: Sequence[str] | None
) -> Chosen:
    """Choose the columns that ``asked`` names, or else the only list, or else every number.

    Columns of texts are left out, and so is the index that pandas writes. A column
    of numbers whose name suggests identifiers or labels is an error.

    Raises
    ------
    ValueError
        Nothing is left, several lists are, or a column's name makes the choice doubtful.

    Examples
    --------
    >>> choose_columns(["path", "e0", "e1"], ["other", "number", "number"], None)
    Chosen(positions=[1, 2], is_list=False, left_out=('path',))
    >>> choose_columns(["id", "e0", "e1"], ["number"] * 3, ["e*"]).positions
    [1, 2]
    """
    if asked is not None:
        positions = _asked(names, asked)
        chosen_kinds = {kinds[i] for i in positions}
        if "other" in chosen_kinds:
            name = next(names[i] for i in positions if kinds[i] == "other")
            raise ValueError(f"column {name!r} holds no numbers")
        if "list" in chosen_kinds and len(positions) > 1:
            raise ValueError("--columns (columns=) must be one column of lists, or numbers only")
        return _chosen(names, positions, chosen_kinds == {"list"})
    lists = [i for i, kind in enumerate(kinds) if kind == "list"]
    if len(lists) > 1:
        every = ", ".join(repr(names[i]) for i in lists)
        raise ValueError(f"several columns hold lists: {every}; choose one with --columns")
    if lists:
        return _chosen(names, lists, True)
    numbers = [i for i, kind in enumerate(kinds) if kind == "number" and names[i] not in INDEXES]
    if not numbers:
        raise ValueError("no column holds numbers")
    doubtful = [names[i] for i in numbers if _is_no_feature(names[i], names)]
    if doubtful and len(numbers) > 1:
        raise ValueError(
            f"column {doubtful[0]!r} may be no feature: name the features with --columns (columns=)"
            f", such as {_example(names, numbers)!r}"
        )
    return _chosen(names, numbers, False)


def _chosen(names: Sequence[str], positions: list[int], is_list: bool) -> Chosen:
    taken = set(positions)
    return Chosen(positions, is_list, tuple(n for i, n in enumerate(names) if i not in taken))


def _asked(names: Sequence[str], asked: Sequence[str]) -> list[int]:
    """Return positions for names, patterns such as ``e*`` and slices of positions, as asked."""
    positions: list[int] = []
    for word in asked:
        found = [i for i, name in enumerate(names) if name == word]
        if not found and (match := _SLICE.fullmatch(word)):
            first, last = match.groups()
            found = list(range(len(names)))[int(first or 0) : int(last or len(names))]
        if not found:
            found = [i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, word)]
        if not found:
            shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            raise ValueError(f"there is no column {word!r}; there are {len(names)}: {shown}")
        positions += [i for i in found if i not in positions]
    return positions


def _is_no_feature(name: str, names: Sequence[str]) -> bool:
    lower = name.strip().lower()
    if lower == "y" and any(other.strip().lower() == "x" for other in names):
        return False  # a coordinate
    return lower in NOT_FEATURES or lower.endswith(("_id", "_idx", "_label", "_index"))


def _example(names: Sequence[str], numbers: Sequence[int]) -> str:
    features = [names[i] for i in numbers if not _is_no_feature(names[i], names)] or ["NAME"]
    stem = re.sub(r"\d+$", "", features[-1])
    return f"{stem}*" if stem and stem != features[-1] else features[-1]

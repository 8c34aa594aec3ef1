"""Texts with the embedding of each: a table, a file of lines, or a folder of text files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynal_fast.data.catalogue import Catalogue
from dynal_fast.data.partly_labeled import NO_LABEL, class_names
from dynal_fast.data.source import DatasetCorruptError, DatasetNotFoundError
from dynal_fast.data.table import decoded, read_table

TABLES = frozenset({".csv", ".tsv"})
LINES = frozenset({".txt"})
SPLITS = {"": False, "train": False, "test": True}


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts in the order of their embeddings.

    Attributes
    ----------
    catalogue
        The names and the texts.
    labels
        ``(n,)`` int64: a class, or -1 where there is no label.
    held_out
        ``(n,)`` bool: texts to test on, all of them labeled.
    class_names
        The name of each class.
    """

    catalogue: Catalogue
    labels: np.ndarray
    held_out: np.ndarray
    class_names: tuple[str, ...]


def read_texts(path: Path, classes: Sequence[str] = ()) -> Texts:
    """Read texts, and the labels that they have already.

    Parameters
    ----------
    path
        A table (.csv, .tsv) with a column ``text``, and if they are there ``text_id`` or ``id`` (a
        name for each text, by default its row from 0), ``label``, empty where there is none, and
        ``split``, where ``test`` holds out a labeled text; a .txt with a text in each line; or a
        folder of .txt files in the order of their names.
    classes
        The names of the classes; by default the labels that are there, in alphabetical order.

    Raises
    ------
    ValueError
        There are fewer than two classes, or a label is none of ``classes``.
    DatasetNotFoundError
        There is no such file, or a folder holds no .txt file.
    DatasetCorruptError
        A column is missing, a text is empty, or a name is there twice.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if not file.name.startswith("."))
        if not files:
            raise DatasetNotFoundError(f"{path} holds no .txt files")
        names = [file.relative_to(path).as_posix() for file in files]
        return _texts(path, "file", names, [decoded(file) for file in files], [], [], classes)
    if not path.is_file():
        raise DatasetNotFoundError(f"texts need a file or a folder, {path} is none")
    if path.suffix.lower() in LINES:
        lines = decoded(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
        names = [str(i) for i in range(len(lines))]
        return _texts(path, "text_id", names, lines, [], [], classes)
    if path.suffix.lower() not in TABLES:
        raise DatasetCorruptError(f"texts must be .csv, .tsv, .txt or a folder, got {path}")
    table = read_table(path)
    column = table.column("text")
    if column is None:
        raise DatasetCorruptError(f"{path} has no column 'text'; it has {', '.join(table.names)}")
    called, label = table.column("text_id", "id"), table.column("label")
    split = table.column("split")
    return _texts(
        path,
        "text_id",
        [str(i) if called is None else row[called].strip() for i, row in enumerate(table.rows)],
        [row[column] for row in table.rows],
        [] if label is None else [row[label].strip() for row in table.rows],
        [] if split is None else [row[split].strip().lower() for row in table.rows],
        classes,
    )


def _texts(
    path: Path,
    column: str,
    names: list[str],
    texts: list[str],
    given: list[str],
    splits: list[str],
    classes: Sequence[str],
) -> Texts:
    if not texts:
        raise DatasetCorruptError(f"{path} holds no texts")
    seen: set[str] = set()
    for i, (name, text) in enumerate(zip(names, texts, strict=True)):
        if not name or name in seen:
            raise DatasetCorruptError(f"{path}, text {i}: {column} must be distinct, got {name!r}")
        if not text.strip():
            raise DatasetCorruptError(f"{path}: text {name} is empty")
        seen.add(name)
    given = given or [""] * len(texts)
    splits = splits or [""] * len(texts)
    found = class_names(classes, sorted({*given} - {""}), path, len(texts))
    numbers = {name: i for i, name in enumerate(found)} | {"": NO_LABEL}
    for name, label, split in zip(names, given, splits, strict=True):
        if label not in numbers:
            raise ValueError(f"classes must name every label, and text {name} of {path} is {label}")
        if split not in SPLITS:
            raise DatasetCorruptError(f"{path}: split must be train or test, text {name}: {split}")
        if SPLITS[split] and not label:
            raise DatasetCorruptError(f"{path}: text {name} is to test on and has no label")
    states = tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)
    return Texts(
        Catalogue(
            path if path.is_dir() else path.parent, tuple(names), column, states, tuple(texts)
        ),
        np.array([numbers[label] for label in given], np.int64),
        np.array([SPLITS[split] for split in splits], bool),
        found,
    )

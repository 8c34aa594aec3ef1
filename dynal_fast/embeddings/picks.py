"""The file of picks: row numbers, or a table that says which file each is from."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynal_fast.embeddings.load import Embeddings
from dynal_fast.files import write_atomically

TABLES = {".csv": ",", ".tsv": "\t"}


def places(output: Path, several: bool) -> list[Path]:
    """Return the files that the picks are written to.

    >>> [place.name for place in places(Path("picks.npy"), several=True)]
    ['picks.npy', 'picks.files.csv']
    """
    if several and output.suffix.lower() not in TABLES:
        return [output, output.with_suffix(".files.csv")]
    return [output]


def write_picks(
    output: Path, indices: Sequence[int], distances: Sequence[float], pool: Embeddings
) -> list[Path]:
    """Write the picks in their order, and return where.

    The suffix of ``output`` decides: .csv and .tsv are tables that include the distance of each
    pick when it was made, .txt has one row number per line, anything else is an int64 .npy. With
    several input files, row numbers count through all of them, and a second file, a table, says
    which file and row each pick is.
    """
    files = places(output, len(pool.files) > 1)
    for file in files:
        suffix = file.suffix.lower()
        if suffix in TABLES:
            content = _table(indices, distances, pool, TABLES[suffix])
        elif suffix == ".txt":
            content = "".join(f"{index}\n" for index in indices).encode()
        else:
            array = io.BytesIO()
            np.save(array, np.asarray(indices, dtype=np.int64))
            content = array.getvalue()
        write_atomically(file, content)
    return files


def _table(
    indices: Sequence[int], distances: Sequence[float], pool: Embeddings, delimiter: str
) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    several = len(pool.files) > 1
    writer.writerow(["position", "file", "row", "distance"] if several else ["row", "distance"])
    for index, distance in zip(indices, distances, strict=True):
        file, row = pool.locate(index)
        where = [index, str(file), row] if several else [row]
        writer.writerow([*where, f"{distance:.9g}"])
    return text.getvalue().encode()

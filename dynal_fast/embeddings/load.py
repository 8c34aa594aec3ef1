"""``load_embeddings``: one array from one file, or from several in order."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.embeddings.formats import READABLE, SUFFIXES, reader_of
from dynal_fast.embeddings.hugging_face import dataset_files, is_dataset_folder
from dynal_fast.embeddings.source import FileError, Source, Wanted, allocate

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings and where each row is from.

    ``array`` is (samples, features), a NumPy array or a memory map; a torch tensor of bfloat16,
    which NumPy lacks. ``files`` are in the order of their rows, ``sizes`` the numbers of rows.
    ``left_out`` names the columns of a table and the files of a folder that were not read.
    """

    array: Any
    files: tuple[Path, ...]
    sizes: tuple[int, ...]
    left_out: tuple[str, ...] = ()

    def locate(self, index: int) -> tuple[Path, int]:
        """Return the file of a row of ``array``, and the row in that file.

        >>> import numpy as np
        >>> parts = Embeddings(np.zeros((5, 2)), (Path("a.npy"), Path("b.npy")), (3, 2))
        >>> parts.locate(4)[0].name, parts.locate(4)[1]
        ('b.npy', 1)
        """
        total = sum(self.sizes)
        if not 0 <= index < total:
            raise IndexError(f"index must be from 0 to {total - 1}, got {index}")
        ends = np.cumsum(self.sizes)
        file = int(np.searchsorted(ends, index, side="right"))
        return self.files[file], int(index - (ends[file] - self.sizes[file]))


def load_embeddings(
    paths: Paths,
    *,
    key: str | None = None,
    columns: Sequence[str] | None = None,
    header: bool | None = None,
) -> Embeddings:
    """Load embeddings from files as people have them; the content decides what a file is.

    .npy, .pt and .safetensors are memory-mapped: one such file may be larger than memory. .npz,
    tables (.csv, .tsv, gzip too; .parquet, .arrow, .feather, with pyarrow) and several files are
    read into one array of the stored dtype, in batches or file by file: their numbers take their
    own size once, and with several files that of one more. Text is read as float64.

    Parameters
    ----------
    paths
        A file; a folder of such files, or a pattern such as ``"parts/*.npy"``, in the order of
        their names; a folder that Hugging Face's ``save_to_disk`` wrote; or a list of files.
    key
        The name of an array in a .npz, .pt or .safetensors file that holds several.
    columns
        The columns of a table that are features: names, patterns (``"e*"``) or slices of positions
        (``"1:513"``). By default the only column of lists of numbers, else every column of numbers;
        where a name is one of identifiers or labels, this has to be said.
    header
        Whether a text table begins with the names of its columns; found out by default.

    Raises
    ------
    ValueError
        A file is missing, damaged, or of a format that is not read, and the message says how to
        convert it; it holds several arrays, no numbers, missing values, or not (samples, features);
        files do not fit together.
    ImportError
        pyarrow is needed and missing: ``pip install 'dynal_fast[files]'``.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "a.npy", np.float32([[0, 0], [3, 4]]))
    >>> np.save(folder / "b.npy", np.float32([[6, 8]]))
    >>> embeddings = load_embeddings(folder)
    >>> embeddings.array.shape, embeddings.sizes
    ((3, 2), (2, 1))
    >>> file, row = embeddings.locate(2)
    >>> file.name, row
    ('b.npy', 0)
    """
    loaded = load_arrays(paths, Wanted(key, columns, header))
    shape = tuple(loaded.array.shape)
    if len(shape) != 2 or shape[1] == 0:
        raise FileError(f"{_shown(loaded.files)} must have shape (samples, features), got {shape}")
    return loaded


def load_arrays(paths: Paths, wanted: Wanted) -> Embeddings:
    """Load arrays of any shape, put together along their first axis."""
    sources, others = open_sources(paths, wanted)
    first = sources[0]
    sizes = tuple(source.shape[0] if source.shape else 1 for source in sources)
    array = first.read() if len(sources) == 1 else _joined(sources, sum(sizes))
    left_out = tuple(dict.fromkeys(name for source in sources for name in source.left_out))
    return Embeddings(array, tuple(source.path for source in sources), sizes, left_out + others)


def open_sources(paths: Paths, wanted: Wanted) -> tuple[list[Source], tuple[str, ...]]:
    """Open files that fit together, in order, and read no numbers; also name what is left out."""
    files, others = find_files(paths)
    sources = [reader_of(file)(file, wanted) for file in files]
    first = sources[0]
    for source in sources[1:]:
        if (source.shape[1:], source.dtype) != (first.shape[1:], first.dtype):
            raise FileError(
                f"files must be alike: {first.path} is {_form(first)}, "
                f"{source.path} {_form(source)}"
            )
    if len(sources) > 1 and not first.shape:
        raise FileError(f"{first.path} holds a single number")
    return sources, others


def find_files(paths: Paths) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files that ``paths`` stand for, and the names of those that are left out."""
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files: list[Path] = []
    others: tuple[str, ...] = ()
    for given in paths:
        if not str(given):
            raise FileError("a path must not be empty")
        path = Path(given)
        if path.is_dir():
            found, beside = _files_of_folder(path)
            files += found
            others += beside
        elif not os.path.lexists(path) and glob.has_magic(str(given)):
            matches = sorted(Path(match) for match in glob.glob(str(given), recursive=True))
            found = [match for match in matches if match.is_file()]
            if not found:
                raise FileError(f"no file matches {given}")
            files += found
        elif "://" in str(given):
            raise FileError(f"{given} is an address; download the file first")
        else:
            files.append(path)
    if not files:
        raise FileError("no file is given")
    return files, others


def _files_of_folder(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise FileError(f"{folder} cannot be read: {error.strerror}") from error
    if is_dataset_folder(folder):
        return dataset_files(folder), ()
    if "data.mdb" in names:
        raise FileError(f"{folder} is an LMDB database; convert its values with lmdb and np.save")
    if "saved_model.pb" in names or ".zarray" in names or "zarr.json" in names:
        raise FileError(f"{folder} is a Zarr array or a model; save embeddings with np.save")
    plain = [name for name in names if not name.startswith(".") and (folder / name).is_file()]
    suffixes = {name: _suffix(name) for name in plain if _suffix(name)}
    if not suffixes:
        what = f"; it holds {', '.join(names[:3])}{', ...' * (len(names) > 3)}" if names else ""
        raise FileError(f"{folder} holds no {READABLE} file{what}")
    formats = sorted({suffix.removesuffix(".gz") for suffix in suffixes.values()})
    if len(formats) > 1:
        raise FileError(
            f"{folder} holds files of several formats ({', '.join(formats)}); choose with a "
            f"pattern such as '{folder / ('*' + formats[0])}'"
        )
    return [folder / name for name in suffixes], tuple(n for n in plain if n not in suffixes)


def _suffix(name: str) -> str:
    lower = name.lower()
    return max((s for s in SUFFIXES if lower.endswith(s)), key=len, default="")


def _joined(sources: Sequence[Source], total: int) -> Any:
    first = sources[0]
    array = allocate((total, *first.shape[1:]), first.dtype, f"{first.path.parent} (joined)")
    begin = 0
    for source in sources:
        part = array[begin : begin + source.shape[0]]
        if source.fill is not None:
            source.fill(part)
        else:
            part[...] = source.read()
        begin += source.shape[0]
    return array


def _form(source: Source) -> str:
    return f"(n, {', '.join(map(str, source.shape[1:]))}) {source.dtype}".replace(", )", ",)")


def _shown(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"

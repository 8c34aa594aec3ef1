"""Decoded images kept between runs, in a folder that the user names."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dynal_fast.data.source import DatasetCorruptError


def cached_arrays(
    cache_dir: str | Path | None, key: str, names: tuple[str, ...], build: Callable[[], Mapping]
) -> dict[str, np.ndarray]:
    """Return the named arrays that ``build`` makes, from the cache where it has them.

    An entry is one folder ``cache_dir/key`` of .npy files. It is written beside and renamed when it
    is complete, so that a reader never sees a part of it, whatever is killed when; of two writers
    the first wins.

    Parameters
    ----------
    cache_dir
        Created when needed; None builds without a cache.
    key
        Names the entry: what was decoded, and how.
    names
        Of the arrays.
    build
        Returns a mapping that has every name.

    Raises
    ------
    DatasetCorruptError
        An entry exists and cannot be read.
    """
    if cache_dir is None:
        return dict(build())
    cache_dir = Path(cache_dir)
    entry = cache_dir / key
    if not entry.is_dir():
        arrays = build()
        cache_dir.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".unfinished", dir=cache_dir))
        try:
            for name in names:
                with (unfinished / f"{name}.npy").open("wb") as file:
                    np.save(file, arrays[name], allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
            try:
                unfinished.rename(entry)
            except OSError:
                if not entry.is_dir():  # no other run was faster: the disk is full or read-only
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return dict(arrays)
    try:
        return {name: np.load(entry / f"{name}.npy", allow_pickle=False) for name in names}
    except Exception as error:  # NumPy raises whatever the first damaged byte leads to
        reason = str(error) or repr(error)
        raise DatasetCorruptError(
            f"the cache {entry} cannot be read ({reason}): delete it, it will be made again"
        ) from error

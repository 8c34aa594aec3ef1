"""A cache of decoded images in a folder of the user's choice."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dynal_fast.data.source import DatasetCorruptError
from dynal_fast.files import atomic_file, atomic_folder


def cached_arrays(
    cache_dir: str | Path | None, key: str, names: tuple[str, ...], build: Callable[[], Mapping]
) -> dict[str, np.ndarray]:
    """Return the named arrays that ``build`` makes, from the cache where it has them.

    An entry is one folder ``cache_dir/key`` of .npy files. It is written under a temporary name and
    renamed when it is complete, so a reader never sees half of it, even after a crash. Of two
    writers the first wins.

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
    OSError
        The cache cannot be written.
    """
    if cache_dir is None:
        return dict(build())
    cache_dir = Path(cache_dir)
    entry = cache_dir / key
    if not entry.is_dir():
        arrays = build()
        cache_dir.mkdir(parents=True, exist_ok=True)
        with atomic_folder(entry) as folder:
            for name in names:
                with atomic_file(folder / f"{name}.npy") as file:
                    np.save(file, arrays[name], allow_pickle=False)
        return dict(arrays)
    try:
        return {name: np.load(entry / f"{name}.npy", allow_pickle=False) for name in names}
    except Exception as error:  # NumPy raises many types on damaged bytes
        reason = str(error) or repr(error)
        raise DatasetCorruptError(
            f"the cache {entry} cannot be read ({reason}): delete it, it will be made again"
        ) from error

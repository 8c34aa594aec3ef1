"""scikit-learn's handwritten digits: 1,797 images of 8x8, part of its installation."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dynal_fast.data.dataset import ImageDataset, dataset_in_memory

NUM_TEST = 500


def read_digits() -> ImageDataset:
    """Return the digits: 1,297 to train on, 500 to test on.

    The set has no official split: a fixed permutation decides, the same on every machine. Values
    from 0 to 16 are scaled to 0 to 255.

    >>> digits = read_digits()
    >>> digits.train_images.shape, digits.test_images.shape
    ((1297, 1, 8, 8), (500, 1, 8, 8))

    Raises
    ------
    ImportError
        Scikit-learn is not installed.
    """
    table = _table()
    values, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)
    images = np.rint(values * (255 / 16)).astype(np.uint8)
    # RandomState and not a Generator: its stream is the same in every version of NumPy.
    order = np.random.RandomState(0).permutation(len(images))
    test, train = order[:NUM_TEST], order[NUM_TEST:]
    return dataset_in_memory(
        "digits",
        (images[train], labels[train]),
        (images[test], labels[test]),
        [str(digit) for digit in range(10)],
        "bundled with scikit-learn; fixed random split",
    )


def _table() -> np.ndarray:
    """Return the pixels and, in the last column, the label of each image, float64 ``(n, 65)``.

    Importing scikit-learn takes seconds, so its file is read without it where it is known to lie.
    """
    spec = find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as file:
                return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return np.column_stack([bundle.data, bundle.target])

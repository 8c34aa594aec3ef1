"""scikit-learn's handwritten digits: 1,797 images of 8x8, part of its installation."""

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
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = np.rint(bundle.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bundle.target.astype(np.int64)
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

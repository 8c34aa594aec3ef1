"""Caltech-101: 101 folders of photographs."""

from functools import partial
from pathlib import Path

import numpy as np

from dynal_fast.data.dataset import IMAGENET_MEAN, IMAGENET_STD, ImageDataset, LazyStack
from dynal_fast.data.decode import decode_image
from dynal_fast.data.image_folder import check_image_size, list_class_folders, split_per_class
from dynal_fast.data.source import UNPACKED, DatasetNotFoundError, Source

CALTECH101 = Source(
    title="Caltech-101",
    home="https://data.caltech.edu/records/mzrjq-6wc02",
    folders=("caltech101", "caltech-101", "."),
)
ARCHIVES = ("101_ObjectCategories.tar.gz", "caltech-101.zip")  # the second holds the first
# Not a category: photographs of anything, kept with the set for detection experiments.
BACKGROUND = "BACKGROUND_Google"


def read_caltech101(root: Path, image_size: tuple[int, int] = (224, 224)) -> ImageDataset:
    """Return Caltech-101: 8,677 photographs of 101 categories, decoded as they are asked for.

    There is no official split: a fixed nine tenths of each category, rounded down, are to train on
    (as in the code of the output-discrepancy paper, which leaves 7,766). Images are scaled to 8/7
    of ``image_size``, whatever their shape, and the centre is cut out: 256 to 224. The mean and
    standard deviation are ImageNet's.

    Raises
    ------
    ValueError
        ``image_size`` is not two positive integers.
    DatasetNotFoundError
        There is no folder 101_ObjectCategories under the root, or a class in it has no images.
    DatasetCorruptError
        When it is decoded, an image cannot be read.
    """
    check_image_size(image_size)
    try:
        folder = CALTECH101.find(root, "101_ObjectCategories")
    except DatasetNotFoundError as error:
        packed = [path for path in CALTECH101.candidates(root, ARCHIVES) if path.exists()]
        if not packed:
            raise
        raise DatasetNotFoundError(f"{error}\n{packed[0]} is there: unpack it.") from None
    advice = f". {CALTECH101.how_to_get}"
    class_names, paths, labels = list_class_folders(folder, (BACKGROUND,), advice)
    train, test = split_per_class(labels)
    height, width = image_size
    decode = partial(
        decode_image, image_size=image_size, resize=(round(height * 8 / 7), round(width * 8 / 7))
    )
    return ImageDataset(
        CALTECH101.title,
        LazyStack([paths[i] for i in train], decode, (3, *image_size)),
        labels[train],
        LazyStack([paths[i] for i in test], decode, (3, *image_size)),
        labels[test],
        tuple(class_names),
        np.array(IMAGENET_MEAN, np.float32),
        np.array(IMAGENET_STD, np.float32),
        f"{UNPACKED}; fixed random split, a tenth of each category for the test",
    )

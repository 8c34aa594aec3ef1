"""Cityscapes: street scenes with a class for every pixel, fine annotations."""

from functools import partial
from pathlib import Path

import numpy as np

from dynal_fast.data.dataset import ImageDataset, LazyStack
from dynal_fast.data.decode import decode_image, opened_image
from dynal_fast.data.image_folder import check_image_size
from dynal_fast.data.source import UNPACKED, DatasetNotFoundError, Source

CITYSCAPES = Source(
    title="Cityscapes",
    home="https://www.cityscapes-dataset.com/",
    folders=("cityscapes", "Cityscapes", "."),
)
IGNORED = 255
# The 19 classes of the benchmark in the order of their train ids, by the label id in the files.
CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
TRAIN_IDS = np.full(256, IGNORED, np.uint8)
TRAIN_IDS[list(CLASSES)] = np.arange(len(CLASSES), dtype=np.uint8)
# Of the training images, as published with the dilated residual networks.
MEAN = (0.290101, 0.328081, 0.286964)
STD = (0.182954, 0.186566, 0.184475)


def read_cityscapes(root: Path, image_size: tuple[int, int] = (1024, 2048)) -> ImageDataset:
    """Return Cityscapes: 2,975 images to train on and the 500 of the validation set to test on.

    The official test set has no public labels. Images and label maps are decoded as they are asked
    for; label ids become the benchmark's 19 train ids, 255 where a pixel is ignored. Smaller sizes
    scale images bilinearly and label maps to the nearest.

    Raises
    ------
    ValueError
        ``image_size`` is not two positive integers.
    DatasetNotFoundError
        A folder is not under the root, or an image has no label map.
    DatasetCorruptError
        When it is decoded, a file cannot be read.
    """
    check_image_size(image_size)
    images, labels = CITYSCAPES.find(root, "leftImg8bit"), CITYSCAPES.find(root, "gtFine")
    decode = partial(decode_image, image_size=image_size)
    decode_map = partial(decode_label_map, image_size=image_size)
    train_paths, train_maps = _pairs(images / "train", labels / "train")
    test_paths, test_maps = _pairs(images / "val", labels / "val")
    return ImageDataset(
        CITYSCAPES.title,
        LazyStack(train_paths, decode, (3, *image_size)),
        LazyStack(train_maps, decode_map, image_size),
        LazyStack(test_paths, decode, (3, *image_size)),
        LazyStack(test_maps, decode_map, image_size),
        tuple(CLASSES.values()),
        np.array(MEAN, np.float32),
        np.array(STD, np.float32),
        UNPACKED,
    )


def decode_label_map(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """Return a ``*_labelIds.png`` as uint8 ``(height, width)`` train ids.

    Its values are label ids and never scaled: a file of 16 bits or with a palette is refused.

    Raises
    ------
    DatasetCorruptError
        Pillow cannot read it, or it has more than one channel of 8 bits.
    """
    from PIL import Image

    height, width = image_size
    with opened_image(path, what="label map") as opened:
        if opened.mode != "L":
            raise ValueError(f"expected one channel of 8 bits (mode L), got mode {opened.mode}")
        image = opened.resize((width, height), Image.Resampling.NEAREST)
    return TRAIN_IDS[np.asarray(image)]


def _pairs(images: Path, labels: Path) -> tuple[list[Path], list[Path]]:
    paths = sorted(images.glob("*/*_leftImg8bit.png"))
    if not paths:
        raise DatasetNotFoundError(
            f"Cityscapes: {images} holds no <city>/*_leftImg8bit.png; get leftImg8bit_trainvaltest "
            f"from {CITYSCAPES.home}. Nothing is downloaded."
        )
    maps = []
    for path in paths:
        stem = path.name.removesuffix("_leftImg8bit.png")
        label_map = labels / path.parent.name / f"{stem}_gtFine_labelIds.png"
        if not label_map.is_file():
            raise DatasetNotFoundError(
                f"Cityscapes: {label_map} is missing, the label map of {path}; get "
                f"gtFine_trainvaltest from {CITYSCAPES.home}. Nothing is downloaded."
            )
        maps.append(label_map)
    return paths, maps

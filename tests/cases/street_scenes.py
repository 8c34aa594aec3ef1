"""A Cityscapes tree of small scenes, which the tests write."""

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

HEIGHT, WIDTH = 16, 24


def write_streets(folder, train=12, val=3):
    """Write so many scenes of each split below ``folder`` and return it."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            write_scene(folder, split, number, rng)
    return folder


def write_scene(folder, split, number, rng):
    """A road below, sky above, a car somewhere, a void border; colours tell the classes apart."""
    labels = np.full((HEIGHT, WIDTH), 23, np.uint8)
    labels[HEIGHT // 2 :] = 7
    left = rng.integers(1, WIDTH - 8)
    labels[9:13, left : left + 6] = 26
    labels[0] = 0  # unlabeled in Cityscapes
    colours = np.zeros((256, 3), np.uint8)
    colours[[23, 7, 26]] = [(90, 140, 220), (90, 90, 90), (200, 30, 30)]
    pixels = colours[labels].astype(int) + rng.integers(-20, 20, (HEIGHT, WIDTH, 3))
    stem = f"aachen_{number:06}_000019"
    for kind, name, array in (
        ("leftImg8bit", f"{stem}_leftImg8bit.png", pixels.clip(0, 255).astype(np.uint8)),
        ("gtFine", f"{stem}_gtFine_labelIds.png", labels),
    ):
        path = folder / "cityscapes" / kind / split / "aachen" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

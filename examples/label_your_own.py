"""Label images of your own: two cycles on handwritten digits that lie in a folder as files.

A run whose oracle is a person ends when it needs labels. What it asks for is in ``to_label.csv``,
in the order in which the strategy picked. Here a script fills in the column ``label`` where you
would; then the same call goes on.

    pip install 'dynal_fast[experiment]'
    python examples/label_your_own.py
"""

import csv
import sys
import tempfile
from pathlib import Path

from PIL import Image

from dynal_fast.data import load
from dynal_fast.experiment import RunConfig, run_grid


def write_images(root: Path, unlabeled: int, labeled: int, tested: int) -> dict[str, str]:
    """Write digits as files, and return the true labels of those that are in ``unlabeled``."""
    digits = load("digits")
    truth = {}
    for i in range(unlabeled + labeled):
        label = str(digits.train_labels[i])
        name = f"unlabeled/{i}.png" if i < unlabeled else f"train/{label}/{i}.png"
        save(digits.train_images[i, 0], root / name)
        if i < unlabeled:
            truth[name] = label
    for i in range(tested):
        save(digits.test_images[i, 0], root / "test" / str(digits.test_labels[i]) / f"{i}.png")
    return truth


def save(pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill_in(table: Path, truth: dict[str, str]) -> None:
    """Do what a person does: write the label of each file into the table."""
    with open(table, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = truth[row["file"]]
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main(folder: Path, epochs: int = 40, unlabeled: int = 300) -> list[float]:
    """Return the accuracy on the hold-out after each training."""
    truth = write_images(folder / "digits", unlabeled, labeled=30, tested=200)
    config = RunConfig.from_mapping(
        {
            "oracle": "ask",
            "data": "image-folder",
            "data_root": str(folder / "digits"),
            "image_size": [8, 8],
            "model": "mlp",
            "strategies": ["margin"],
            "protocol": {"budget": 20, "cycles": 2},
            "training": {"epochs": epochs, "batch_size": 16},
        }
    )
    while True:
        grid = run_grid(config, folder / "run")
        (run,) = grid.runs
        print(f"{run.labeled[-1]} labels, accuracy {100 * run.accuracies[-1]:.1f} %")
        if grid.awaited is None:
            return run.accuracies
        print(grid.awaited.message())
        fill_in(folder / "run" / "to_label.csv", truth)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))

"""The data of a run whose oracle is a person, and the checks of its settings."""

from pathlib import Path

import torch

from dynal_fast.data.partly_labeled import PartlyLabeled, read_partly_labeled
from dynal_fast.data.source import DatasetNotFoundError
from dynal_fast.experiment.asking.desk import Desk
from dynal_fast.experiment.config import RunConfig
from dynal_fast.experiment.data import ExperimentData
from dynal_fast.experiment.texts import experiment_data, read_embedded_texts


def load_asked(
    config: RunConfig, folder: Path, device: torch.device
) -> tuple[ExperimentData, Desk]:
    """Return the data that ``config`` names, and the desk in the run's ``folder``.

    Raises
    ------
    ValueError
        The data are damaged or have changed since the run began, or labels contradict themselves.
    FileNotFoundError
        A file is missing.
    """
    root = Path(config.data_root).expanduser()
    if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"the output must not be in data_root, {root}, whose files are samples")
    given = [Path(path).expanduser() for path in config.labels]
    for path in given:
        if not path.is_file():
            raise DatasetNotFoundError(f"labels must be files, {path} is none")
    found = _read(config, root)
    labels = torch.from_numpy(found.labels)
    desk = Desk(folder, found.catalogue, labels, found.class_names, given)
    return experiment_data(found, desk.oracle, device), desk


def _read(config: RunConfig, root: Path) -> PartlyLabeled:
    if config.data == "texts":
        return read_embedded_texts(root, config.embeddings, config.classes)
    if not root.is_dir():
        raise DatasetNotFoundError(f"data_root must be a folder of images, {root} is none")
    height, width = config.image_size or (224, 224)
    holdout = Path(config.holdout).expanduser() if config.holdout else None
    return read_partly_labeled(root, (height, width), config.classes, holdout)

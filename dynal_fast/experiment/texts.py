"""Texts with embeddings as an experiment needs them: fixed features under a small head."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dynal_fast.data import ImageInputs
from dynal_fast.data.catalogue import Catalogue
from dynal_fast.data.image_folder import split_per_class
from dynal_fast.data.partly_labeled import NO_LABEL, PartlyLabeled
from dynal_fast.data.texts import read_texts
from dynal_fast.embeddings.load import load_embeddings
from dynal_fast.experiment.asking.oracle import AskingOracle
from dynal_fast.experiment.data import ExperimentData, kept_share
from dynal_fast.experiment.samples import SampleSet


def read_embedded_texts(
    path: Path,
    embeddings: str,
    classes: Sequence[str] = (),
    split: bool = False,
    share: float = 1.0,
) -> PartlyLabeled:
    """Return the texts at ``path`` with the rows of ``embeddings``, in the order of the texts.

    Parameters
    ----------
    path
        As :func:`~dynal_fast.data.texts.read_texts` takes.
    embeddings
        A file, a folder or a pattern, as :func:`~dynal_fast.embeddings.load.load_embeddings` takes.
    classes
        The names of the classes; by default those of the labels.
    split
        Every text must have a label; where none is held out, a fixed tenth of each class is.
    share
        Below 1 keeps that share of the texts that are not held out, always the same random ones.

    Raises
    ------
    ValueError
        There are more or fewer rows than texts, or one is not finite; a label is missing.
    DatasetNotFoundError
        A file is missing.
    """
    texts = read_texts(path, classes)
    loaded = load_embeddings(embeddings).array
    if len(loaded) != len(texts.catalogue):
        raise ValueError(
            f"embeddings must have a row for each of the {len(texts.catalogue)} texts of {path}, "
            f"got {len(loaded)} in {embeddings}"
        )
    if not isinstance(loaded, np.ndarray):  # a tensor of bfloat16
        loaded = loaded.float().numpy()
    features = np.array(loaded, np.float32)
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise ValueError(f"embeddings must be finite, row {bad[0]} of {embeddings} is not")
    held_out = texts.held_out
    if split:
        bare = np.flatnonzero(texts.labels == NO_LABEL)
        if len(bare):
            name = texts.catalogue.names[bare[0]]
            raise ValueError(
                f"{path} must have a label for every text, and {len(bare)} have none, such as "
                f"{name}; --oracle ask asks for them"
            )
        if not held_out.any():
            held_out = np.zeros(len(held_out), bool)
            held_out[split_per_class(texts.labels)[1]] = True
    pool, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if not len(pool):
        raise ValueError(f"{path} must hold texts to train on, and all of them are to test on")
    pool = kept_share(pool, share)
    whole = texts.catalogue
    catalogue = Catalogue(
        whole.root,
        tuple(whole.names[i] for i in pool),
        whole.column,
        tuple(whole.states[i] for i in pool),
        tuple(whole.texts[i] for i in pool),
    )
    return PartlyLabeled(
        path.stem,
        catalogue,
        features[pool],
        texts.labels[pool],
        features[test],
        texts.labels[test],
        texts.class_names,
    )


def experiment_data(
    found: PartlyLabeled, labels: torch.Tensor | AskingOracle, device: torch.device
) -> ExperimentData:
    """Return data as an experiment needs them, with batches on ``device``."""
    samples, test_samples = (
        SampleSet(
            torch.from_numpy(inputs).to(device)
            if isinstance(inputs, np.ndarray)
            else ImageInputs(inputs, found.mean, found.std, device)
        )
        for inputs in (found.inputs, found.test_inputs)
    )
    test_labels = torch.from_numpy(found.test_labels)
    names = found.class_names
    return ExperimentData(found.name, samples, labels, test_samples, test_labels, len(names), names)

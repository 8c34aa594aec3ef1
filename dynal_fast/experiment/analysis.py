"""Recordings for the papers' analyses: small arrays of each cycle, saved beside the checkpoint.

They use the labels of the pool, which the selection never sees, and do not change the run.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.experiment.checkpoint import Checkpoint
from dynal_fast.experiment.data import ExperimentData
from dynal_fast.experiment.gradients import gradient_norms
from dynal_fast.experiment.selection import ranked_scores
from dynal_fast.experiment.training import predict
from dynal_fast.plain import Count, checked
from dynal_fast.pool import PoolStats
from dynal_fast.strategies.strategy import SelectionContext

ANALYSIS = "analysis-{cycle}.safetensors"
FOLLOWED = 256
BATCH = 512
GRADIENTS = 32  # samples, each with a backward pass for every class


class AnalysisRecorder:
    """Follows one training and then writes ``analysis-<cycle>.safetensors``.

    The file holds, for the ``pool`` samples of the cycle in ascending order of ids:

    ``ids``
        int64 ``(pool,)``.
    ``correct``
        bool ``(pool,)``: the model, before the picks are labeled, predicts the label.
    ``loss``
        float32 ``(pool,)``: its cross-entropy, in nats.
    ``score.<name>``
        float32 ``(pool,)``: each statistic that the strategy tracks, over epochs, MC-dropout passes
        or committee members, and any other score that it reports in ``SelectionContext.scores``;
        NaN for samples that were not observed or not candidates (``Protocol.subset``).
    ``picks``
        int64 ``(budget,)``: ids, in the order in which the strategy gave them.
    ``followed_ids``, ``trajectories``
        int64 ``(followed,)`` and float32 ``(epochs, followed)``: the probability of the true class
        after each epoch, of evenly spread samples (Fig. 1 of prediction stability).
    ``gradient_ids``, ``gradient_norms``
        int64 and float32 ``(n,)``: the squared norm of the output's gradient with respect to the
        weights, of samples spread evenly over labeled and unlabeled ones (Fig. 1 of output
        discrepancy). Recordings of earlier versions have none.
    """

    def __init__(self, data: ExperimentData, pool: Tensor, device: torch.device) -> None:
        self.data = data
        self.pool = pool
        self.device = device
        self.followed = pool[_spread(len(pool), FOLLOWED)]
        self.trajectories: list[Tensor] = []
        self.observed: list[PoolStats] = []  # the selection appends to it

    def follow(self, model: nn.Module) -> None:
        """Record the followed samples after an epoch."""
        probabilities = [
            logits.softmax(1).cpu().gather(1, self.data.oracle.label(ids.cpu())[:, None])[:, 0]
            for ids, logits in predict(model, self.data.samples, self.followed, BATCH, self.device)
        ]
        self.trajectories.append(torch.cat(probabilities).float())

    def save(self, folder: Path, context: SelectionContext, picks: Tensor) -> None:
        """Write the recording of a selection's cycle into ``folder``, atomically."""
        cycle, model = context.cycle, context.model
        correct, losses = [], []
        for ids, logits in predict(model, self.data.samples, self.pool, BATCH, self.device):
            targets = self.data.oracle.label(ids.cpu())
            logits = logits.float().cpu()
            correct.append(logits.argmax(1) == targets)
            losses.append(functional.cross_entropy(logits, targets, reduction="none"))
        tensors = {
            "ids": self.pool,
            "correct": torch.cat(correct),
            "loss": torch.cat(losses),
            "picks": picks,
            "followed_ids": self.followed,
            "trajectories": torch.stack(self.trajectories),
            "gradient_ids": _spread(len(self.data.samples), GRADIENTS),
        }
        inputs = self.data.samples[tensors["gradient_ids"]][1].to(self.device)
        tensors["gradient_norms"] = gradient_norms(model, inputs).float()
        for name, given in ranked_scores(context, self.observed).items():
            scores = torch.full(self.pool.shape, torch.nan)
            scores[torch.searchsorted(self.pool, context.candidates)] = given
            tensors[f"score.{name}"] = scores
        Checkpoint(tensors, {"cycle": cycle}).save(folder / ANALYSIS.format(cycle=cycle))


def _spread(count: int, most: int) -> Tensor:
    """Return at most so many of ``range(count)``, evenly spread."""
    return torch.linspace(0, count - 1, min(most, count)).round().long().unique()


def recorded_cycles(folder: Path) -> set[int]:
    """Return the cycles whose recordings are in the folder of one run."""
    numbers = (re.fullmatch(r"analysis-(\d{1,9})", path.stem) for path in _recordings(folder))
    return {int(number[1]) for number in numbers if number}


def _recordings(folder: Path) -> list[Path]:
    return sorted(folder.glob(ANALYSIS.format(cycle="*")))


def recorded(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Return cycle → arrays, of all cycles recorded in the folder of one run.

    Raises
    ------
    ValueError
        A file is damaged, or is none that :class:`AnalysisRecorder` writes.
    """
    found = {}
    for path in _recordings(folder):
        checkpoint = Checkpoint.load(path)
        try:
            cycle = checked(checkpoint.facts.get("cycle"), Count, "cycle")
            if path.name != ANALYSIS.format(cycle=cycle):
                raise ValueError(f"the file is of cycle {cycle}")
            _check_arrays(checkpoint.tensors)
        except ValueError as error:
            raise ValueError(f"{path} is not a recording of a run: {error}") from error
        found[cycle] = checkpoint.tensors
    return dict(sorted(found.items()))


def _check_arrays(arrays: dict[str, Tensor]) -> None:
    """Check the arrays of one file: what is there, its shapes and its values."""
    for name, dtype in _ARRAYS.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        if arrays[name].dtype != dtype or not arrays[name].numel():
            raise ValueError(
                f"{name} must be {dtype} and not empty, got {arrays[name].dtype} of shape "
                f"{tuple(arrays[name].shape)}"
            )
    pool, followed = arrays["ids"].shape, arrays["followed_ids"].shape
    scores = [name for name in arrays if name.startswith("score.")]
    for name in ["ids", "picks", "correct", "loss", "followed_ids", *scores]:
        of_pool = name not in ("picks", "followed_ids")
        if arrays[name].ndim != 1 or (of_pool and arrays[name].shape != pool):
            raise ValueError(f"{name} has the shape {tuple(arrays[name].shape)}")
    trajectories = arrays["trajectories"]
    if trajectories.ndim != 2 or trajectories.shape[1:] != followed:
        raise ValueError(f"trajectories must be (epochs, {followed[0]})")
    ids, picks, loss = arrays["ids"], arrays["picks"], arrays["loss"]
    if int(ids[0]) < 0 or bool((ids.diff() <= 0).any()):
        raise ValueError("ids must ascend from 0 or more")
    if len(picks.unique()) < len(picks) or not bool(torch.isin(picks, ids).all()):
        raise ValueError("picks must be distinct samples of the pool")
    if not bool((loss.isfinite() & (loss >= 0)).all()):
        raise ValueError("loss must be finite and at least 0")
    if not bool(((trajectories >= 0) & (trajectories <= 1)).all()):
        raise ValueError("trajectories must be probabilities")
    norms = arrays.get("gradient_norms")
    if norms is not None and (
        norms.dtype != torch.float32
        or not norms.numel()
        or norms.shape != arrays.get("gradient_ids", torch.empty(0)).shape
        or not bool((norms.isfinite() & (norms >= 0)).all())
    ):
        raise ValueError("gradient_norms must be finite, at least 0, and one of each gradient_ids")
    for name in scores:
        if arrays[name].dtype != torch.float32:
            raise ValueError(f"{name} must be torch.float32, got {arrays[name].dtype}")


_ARRAYS = {
    "ids": torch.int64,
    "correct": torch.bool,
    "loss": torch.float32,
    "picks": torch.int64,
    "followed_ids": torch.int64,
    "trajectories": torch.float32,
}

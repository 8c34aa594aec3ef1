"""Train the model of one cycle, and evaluate it."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.data.augment import Augmentation
from dynal_fast.evaluating import evaluating
from dynal_fast.experiment.config import Training
from dynal_fast.experiment.data import ExperimentData
from dynal_fast.experiment.samples import SampleSet
from dynal_fast.experiment.segmentation import LabelMaps, class_ious
from dynal_fast.experiment.semi_supervised import Objective
from dynal_fast.models.loss_prediction import LossPredicting


class Trainer:
    """One training from a fresh optimizer: call :meth:`run_epoch` once for each epoch.

    ``steps`` counts the optimizer's steps.

    Parameters
    ----------
    objective
        Adds the loss of unlabeled batches; by default there is the cross-entropy alone.

    >>> from dynal_fast.experiment import Training
    >>> samples = SampleSet(torch.randn(8, 2))
    >>> trainer = Trainer(nn.Linear(2, 3), Training(epochs=2), torch.device("cpu"))
    >>> loss = trainer.run_epoch(samples, torch.arange(8), torch.zeros(8, dtype=torch.int64),
    ...                          torch.Generator().manual_seed(0))
    >>> loss > 0
    True
    """

    def __init__(
        self,
        model: nn.Module,
        training: Training,
        device: torch.device,
        objective: Objective | None = None,
    ) -> None:
        self.model = model
        self.training = training
        self.device = device
        self.objective = objective
        self.steps = 0
        self.augmentation = Augmentation(training.crop_padding, training.horizontal_flip)
        self.optimizer = build_optimizer(model, training)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, milestones=training.milestones, gamma=training.gamma
        )

    def run_epoch(
        self,
        samples: SampleSet,
        ids: Tensor,
        targets: Tensor | LabelMaps,
        generator: torch.Generator,
        pool: Tensor | None = None,
    ) -> float:
        """Train on every labeled sample once, in random order, and return the mean loss.

        With an objective, each labeled batch is paired with an unlabeled one of the same size, as
        long as the pool is not empty: the pool in random order, repeated as needed.

        Parameters
        ----------
        ids, targets
            int64 ``(labeled,)``: the labeled samples and their labels from the oracle, or their
            label maps, whose void pixels cross-entropy ignores.
        generator
            Draws the order and the augmentation.
        pool
            int64 ``(pool,)``: the unlabeled samples, for the objective.
        """
        self.model.train()
        batches = even_batches(len(ids), self.training.batch_size, generator)
        unlabeled = None
        if self.objective is not None and pool is not None and len(pool):
            unlabeled = repeated(pool, len(ids), generator)
        total, done = 0.0, 0
        for rows in batches:
            inputs = self._inputs(samples, ids[rows], generator)
            batch_targets = targets[rows].to(self.device)
            if self.objective is not None and unlabeled is not None:
                beside = self._inputs(samples, unlabeled[done : done + len(rows)], generator)
                loss = self.objective.loss(inputs, batch_targets, beside)
            elif isinstance(self.model, LossPredicting):
                done_share = self.scheduler.last_epoch / self.training.epochs
                loss = self.model.loss(inputs, batch_targets, done_share)
            else:
                loss = functional.cross_entropy(self.model(inputs), batch_targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.steps += 1
            if self.objective is not None:
                self.objective.after_step()
            total += loss.item() * len(rows)
            done += len(rows)
        self.scheduler.step()
        return total / len(ids)

    def _inputs(self, samples: SampleSet, ids: Tensor, generator: torch.Generator) -> Tensor:
        if self.augmentation.changes_nothing:
            return samples[ids][1].to(self.device)
        return samples.augmented(ids, self.augmentation, generator).to(self.device)


def build_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimizer that ``training`` names, over all parameters of ``model``."""
    if training.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )


def even_batches(count: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Split a random order of ``range(count)`` into the fewest batches, all about equally large.

    Full batches could leave a last batch of one sample, on which batch normalisation fails. Even
    ones cannot, if ``batch_size`` is at least 3.

    >>> [len(rows) for rows in even_batches(65, 32, torch.Generator().manual_seed(0))]
    [22, 22, 21]
    """
    order = torch.randperm(count, generator=generator)
    return order.tensor_split(-(-count // batch_size))


def repeated(ids: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` ids: all in random order, then again in another, and so on.

    >>> repeated(torch.tensor([7, 8]), 5, torch.Generator().manual_seed(0)).bincount()[7:].tolist()
    [2, 3]
    """
    orders = [torch.randperm(len(ids), generator=generator) for _ in range(-(-count // len(ids)))]
    return ids[torch.cat(orders)[:count]]


class Evaluation(NamedTuple):
    """The metric on the test set, overall and for each class; None without samples."""

    score: float | None
    by_class: list[float | None]


def accuracy(
    model: nn.Module,
    samples: SampleSet,
    labels: Tensor,
    num_classes: int,
    batch_size: int,
    device: torch.device,
) -> Evaluation:
    """Return the share of ``samples`` whose highest logit is that of their label."""
    correct = torch.zeros(num_classes, dtype=torch.int64)
    for ids, logits in predict(model, samples, torch.arange(len(labels)), batch_size, device):
        truth = labels[ids.cpu()]
        correct += truth[logits.argmax(1).cpu() == truth].bincount(minlength=num_classes)
    counts = labels.bincount(minlength=num_classes).tolist()
    shares = zip(correct.tolist(), counts, strict=True)
    return Evaluation(
        int(correct.sum()) / len(labels),
        [right / count if count else None for right, count in shares],
    )


def evaluate(
    model: nn.Module, data: ExperimentData, batch_size: int, device: torch.device
) -> Evaluation:
    """Return the accuracy on the test set of ``data``, or the mean IoU where pixels have labels."""
    samples, labels, classes = data.test_samples, data.test_labels, data.num_classes
    if not len(samples):
        return Evaluation(None, [])
    if data.segments:
        ratios = class_ious(model, samples, labels, classes, batch_size, device)
        by_class = [None if math.isnan(ratio) else ratio for ratio in ratios.tolist()]
        return Evaluation(float(ratios.nanmean()), by_class)
    return accuracy(model, samples, labels, classes, batch_size, device)


def predict(
    model: nn.Module, samples: SampleSet, ids: Tensor, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(sample_ids, logits)`` of ``ids`` in evaluation mode, in their order."""
    with evaluating(model), torch.no_grad():
        for batch_ids, inputs in samples.loader(ids, batch_size):
            yield batch_ids, model(inputs.to(device))

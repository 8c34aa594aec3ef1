"""Training with unlabeled batches beside labeled ones: output discrepancy, and pseudo-labels.

Section 4.3 of "Semi-Supervised Active Learning with Temporal Output Discrepancy": the distance
between the outputs of the model and of a baseline model bounds the loss of a sample from below, so
it can be minimised without a label.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.experiment.checkpoint import prefixed
from dynal_fast.experiment.config import Training
from dynal_fast.models import embed, penultimate
from dynal_fast.pool import EMATeacher


def unsupervised_loss(logits: Tensor, baseline_logits: Tensor) -> Tensor:
    """Return the mean squared distance between two models' outputs (eq. 7).

    ``1/|U| sum_x ||f(x; w) - f(x; w~)||^2``, where f is the softmax output, as it is for the
    discrepancies that select samples. The baseline is taken as a constant.

    Parameters
    ----------
    logits, baseline_logits
        ``(batch, classes)`` of the model and of the baseline model.

    >>> unsupervised_loss(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])).item()
    2.0
    """
    difference = logits.softmax(1) - baseline_logits.detach().softmax(1)
    return difference.square().sum(1).mean()


def overall_loss(
    logits: Tensor,
    targets: Tensor,
    unlabeled_logits: Tensor,
    baseline_logits: Tensor,
    weight: float,
) -> Tensor:
    """Return cross-entropy (eq. 8) plus ``weight`` times :func:`unsupervised_loss` (eq. 9).

    Parameters
    ----------
    logits, targets
        ``(labeled, classes)`` and ``(labeled,)`` int64 of a labeled batch.
    unlabeled_logits, baseline_logits
        ``(unlabeled, classes)`` of an unlabeled batch, from the model and the baseline model.
    weight
        The λ of eq. 9.
    """
    task = functional.cross_entropy(logits, targets)
    return task + weight * unsupervised_loss(unlabeled_logits, baseline_logits)


def pseudo_label_loss(
    logits: Tensor,
    targets: Tensor,
    unlabeled_logits: Tensor,
    baseline_logits: Tensor,
    confidence: float,
    weight: float,
) -> Tensor:
    """Return cross-entropy, and that of the labels which the baseline model is confident of.

    Section 6 of "Deep Active Learning over the Long Tail": pseudo-labels may "enrich the labeled
    training set at each iteration" (3), by "inferring true labels using high confidence
    principles". An unlabeled sample counts with the class of the highest softmax output if that is
    at least ``confidence``; the rest count as 0 in the mean over the batch.

    Parameters
    ----------
    logits, targets, unlabeled_logits, baseline_logits, weight
        As :func:`overall_loss` takes them.

    >>> sure = torch.tensor([[9.0, 0.0], [0.1, 0.0]])
    >>> zero = torch.zeros(2, 2)
    >>> pseudo_label_loss(zero, torch.tensor([0, 1]), zero, sure, 0.95, 1.0)  # log 2 and half of it
    tensor(1.0397)
    """
    task = functional.cross_entropy(logits, targets)
    highest = baseline_logits.detach().softmax(1).max(1)
    each = functional.cross_entropy(unlabeled_logits, highest.indices, reduction="none")
    return task + weight * (each * (highest.values >= confidence)).mean()


def tod_code_loss(
    labeled: tuple[Tensor, Tensor, Tensor],
    targets: Tensor,
    unlabeled: tuple[Tensor, Tensor, Tensor],
    weight: float,
) -> Tensor:
    """Return the objective that the authors' code minimises; it differs from the paper's.

    The model has a second head on its embedding. Per batch, labeled and unlabeled alike, the mean
    squared error between the two heads' logits (which trains both) and between the second head's
    and the baseline's first are added up, means being over samples and classes.

    Parameters
    ----------
    labeled, unlabeled
        Logits of the first head, of the second, and of the baseline's first, each
        ``(batch, classes)``.
    targets
        ``(labeled,)`` int64.
    weight
        Of the unsupervised part; the presets ``tod-code/...`` have the authors'.
    """
    loss = functional.cross_entropy(labeled[0], targets)
    for first, second, baseline in (labeled, unlabeled):
        between_heads = functional.mse_loss(first, second)
        loss = loss + weight * (between_heads + functional.mse_loss(second, baseline.detach()))
    return loss


class TwoHeads(nn.Module):
    """Any model with a second linear head on its embedding, for ``tod-code``.

    Called, it returns the first head's logits as the model alone does, so evaluation, observation
    and embeddings are the same.

    Parameters
    ----------
    model
        Its last ``nn.Linear`` gives the logits.
    input_shape
        Shape of one input; the model is run once to learn the embedding's width.
    num_classes
        Logits of the second head.

    >>> model = TwoHeads(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), (4,), 2)
    >>> model(torch.ones(5, 4)).shape, [logits.shape for logits in model.both(torch.ones(5, 4))]
    (torch.Size([5, 2]), [torch.Size([5, 2]), torch.Size([5, 2])])
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.model = model
        # Run a copy: batch statistics and modes of the model must not change.
        features = embed(copy.deepcopy(model).eval(), torch.zeros(1, *input_shape))
        self.second_head = nn.Linear(features.shape[1], num_classes)

    def forward(self, inputs: Any) -> Tensor:
        """Return the first head's logits."""
        return self.model(inputs)

    def both(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Return the logits of the first and of the second head."""
        with penultimate(self.model) as embedding:
            logits = self.model(inputs)
            return logits, self.second_head(embedding())


class Objective:
    """The loss of a step, and the baseline model it needs, over all cycles of a run.

    Call :meth:`begin_cycle` before each training, :meth:`loss` and :meth:`after_step` in each step.

    Parameters
    ----------
    training
        ``unsupervised`` names the variant; ``unsupervised_weight`` and ``ema_alpha`` are its
        constants.

        ``"ema"``: eq. 7-9 with the moving average of the weights (eq. 6), which starts from the
        weights at the beginning of each cycle; its batch statistics are the model's.

        ``"cyclic"``: eq. 7-9 with the model at the end of the last cycle throughout, in the first
        cycle the initial model (the CyclicOD loss of Fig. 10).

        ``"pseudo-labels"``: :func:`pseudo_label_loss` with the model at the end of the last cycle;
        in the first cycle there are no pseudo-labels, as no model is trained.

        ``"tod-code"``: :func:`tod_code_loss` on :class:`TwoHeads`. The baseline is a moving average
        with ``alpha = min(1 - 1/(t+1), ema_alpha)`` at step t = 1, 2, ... of the whole run, of
        parameters only, in training mode.
    initial
        What the average of ``"tod-code"`` starts from: the authors take an independently
        initialised network. The other variants ignore it.

    Raises
    ------
    TypeError
        The variant is ``"tod-code"`` and ``initial`` is not a :class:`TwoHeads`.
    """

    def __init__(self, training: Training, initial: nn.Module) -> None:
        self.variant = training.unsupervised
        self.weight = training.unsupervised_weight
        self.alpha = training.ema_alpha
        self.confidence = training.confidence
        self.first = False
        self.steps = 0
        self.baseline = initial
        self._teacher: EMATeacher | None = None
        if self.variant == "tod-code" and not isinstance(initial, TwoHeads):
            raise TypeError(f"initial must be TwoHeads, got {type(initial).__name__}")

    def begin_cycle(self, model: nn.Module, previous: nn.Module, first: bool = False) -> None:
        """Follow ``model``, which trains in this cycle.

        Parameters
        ----------
        model
            Its weights are followed as long as they are changed in place.
        previous
            The model at the end of the last cycle, or before the first training.
        first
            Whether this is the first training.

        Raises
        ------
        TypeError
            The variant is ``"tod-code"`` and ``model`` is not a :class:`TwoHeads`.
        """
        self.model = model
        self.first = first
        if self.variant in ("cyclic", "pseudo-labels"):
            self.baseline = copy.deepcopy(previous).eval().requires_grad_(False)
        elif self.variant == "ema":
            self._follow(EMATeacher(model, self.alpha))
        else:
            if not isinstance(model, TwoHeads):
                raise TypeError(f"model must be TwoHeads, got {type(model).__name__}")
            teacher = EMATeacher(model, self.alpha, warm_up=True, buffers="keep")
            teacher.model.load_state_dict(self.baseline.state_dict())
            teacher.model.train()
            teacher.num_updates = self.steps + 1
            self._follow(teacher)

    def loss(self, inputs: Tensor, targets: Tensor, unlabeled_inputs: Tensor) -> Tensor:
        """Return the loss of a labeled and an unlabeled batch; its gradient reaches the model only.

        Parameters
        ----------
        inputs, targets
            ``(labeled, ...)`` and ``(labeled,)`` int64.
        unlabeled_inputs
            ``(unlabeled, ...)``.
        """
        if self.variant == "tod-code":
            labeled, unlabeled = (
                (*self.model.both(batch), self._baseline_logits(batch))  # type: ignore[operator]
                for batch in (inputs, unlabeled_inputs)
            )
            return tod_code_loss(labeled, targets, unlabeled, self.weight)
        if self.variant == "pseudo-labels" and self.first:
            return functional.cross_entropy(self.model(inputs), targets)
        logits, unlabeled_logits = self.model(inputs), self.model(unlabeled_inputs)
        baseline_logits = self._baseline_logits(unlabeled_inputs)
        if self.variant == "pseudo-labels":
            seen = logits, targets, unlabeled_logits, baseline_logits
            return pseudo_label_loss(*seen, self.confidence, self.weight)
        return overall_loss(logits, targets, unlabeled_logits, baseline_logits, self.weight)

    def after_step(self) -> None:
        """Update the baseline after a step of the optimizer, if it is a moving average."""
        self.steps += 1
        if self._teacher is not None:
            self._teacher.update()

    def state(self) -> dict[str, Tensor]:
        """Return what the next cycle needs, as tensors for the checkpoint."""
        if self.variant != "tod-code":
            return {}
        return {
            "steps": torch.tensor(self.steps),
            **prefixed("baseline", self.baseline.state_dict()),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Set what :meth:`state` returned."""
        if self.variant == "tod-code":
            self.steps = int(tensors["steps"])
            start = "baseline."
            self.baseline.load_state_dict(
                {
                    name.removeprefix(start): t
                    for name, t in tensors.items()
                    if name.startswith(start)
                }
            )

    def _follow(self, teacher: EMATeacher) -> None:
        self._teacher = teacher
        self.baseline = teacher.model

    @torch.no_grad()
    def _baseline_logits(self, inputs: Tensor) -> Tensor:
        return self.baseline(inputs)

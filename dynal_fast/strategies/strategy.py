"""What a strategy may look at when it selects."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating

if TYPE_CHECKING:
    from dynal_fast.pool import PoolStats
    from dynal_fast.strategies.registry import Strategy


@dataclass
class SelectionContext:
    """What a strategy may look at. It tells labels of unlabeled samples to no strategy but those
    that declare ``needs=("oracle",)``, which are for analysis.

    Attributes
    ----------
    candidates
        int64 ``(pool,)``: ids of the unlabeled samples, ascending; picks are taken from these. In a
        compression (``Protocol.compress``) they are the labeled samples, those of ``labeled``.
    labeled, labeled_targets
        int64 ``(labeled,)``: ids of the labeled samples in the order of labeling, and their labels.
    budget
        The number of picks to return.
    generator
        The source of randomness; a run is deterministic if the strategy uses no other.
    cycle
        0 at the first selection.
    model
        The model as trained in this cycle.
    epochs
        Of the training: a strategy that trains models of its own trains them as long.
    report
        What the strategy wants to say about this selection: plain numbers and text by name. It goes
        into the results.
    scores
        What the strategy ranks by, where no declared statistic says it: float ``(candidates,)`` by
        the strategy's name, higher being picked earlier. It is recorded with ``--analysis``.
    """

    candidates: Tensor
    labeled: Tensor
    labeled_targets: Tensor
    budget: int
    generator: torch.Generator
    cycle: int
    model: nn.Module
    strategy: "Strategy"
    batches: Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]]
    """``batches(ids)`` yields ``(sample_ids, inputs)`` of the samples ``ids``."""
    tracked: "PoolStats | None" = None
    embedder: Callable[[Tensor], Tensor] | None = None
    mc_dropout_observer: "Callable[[tuple[str, ...]], PoolStats] | None" = None
    committee_observer: "Callable[[int, tuple[str, ...]], PoolStats] | None" = None
    oracle: Callable[[Tensor], Tensor] | None = None
    epochs: int = 1
    report: dict[str, float | int | bool | str] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)

    @property
    def stats(self) -> "PoolStats":
        """The statistics that the strategy declared with ``tracks``.

        Raises
        ------
        LookupError
            It declared none.
        """
        if self.tracked is None:
            raise LookupError(
                f"strategy {self.strategy.name!r} reads pool statistics but declares none; "
                "register it with tracks=(...)"
            )
        return self.tracked

    def embeddings(self, ids: Tensor) -> Tensor:
        """Return the penultimate activations of the samples ``ids``, ``(ids, features)``.

        Raises
        ------
        LookupError
            The strategy did not declare ``needs=("embeddings",)``.
        """
        if self.embedder is None:
            raise self._undeclared("embeddings")
        return self.embedder(ids)

    def mc_dropout(self, track: Iterable[str]) -> "PoolStats":
        """Return statistics over MC-dropout passes over the candidates; row i is sample i.

        Each pass streams into the statistics: no array of passes × samples × classes exists.

        Raises
        ------
        LookupError
            The strategy did not declare ``needs=("mc_dropout",)``.
        """
        if self.mc_dropout_observer is None:
            raise self._undeclared("mc_dropout")
        return self.mc_dropout_observer(tuple(track))

    def committee(self, members: int, track: Iterable[str]) -> "PoolStats":
        """Return statistics over the outputs of a committee; row i is sample i.

        The model is its first member. The others are trained now, as long as the model was, on the
        labeled samples alone, each from initial weights and in an order of its own. They stream
        into the statistics one after another: one of them exists at a time, and no array of
        members × samples × classes.

        Raises
        ------
        LookupError
            The strategy did not declare ``needs=("committee",)``.
        ValueError
            The committee has fewer than two members.
        """
        if self.committee_observer is None:
            raise self._undeclared("committee")
        if members < 2:
            raise ValueError(f"members must be at least 2, got {members}")
        return self.committee_observer(members, tuple(track))

    def true_labels(self, ids: Tensor) -> Tensor:
        """Return the labels of the samples ``ids``, which no strategy in practice would know.

        Raises
        ------
        LookupError
            The strategy did not declare ``needs=("oracle",)``.
        """
        if self.oracle is None:
            raise self._undeclared("oracle")
        return self.oracle(ids)

    def predicted_labels(self, ids: Tensor) -> Tensor:
        """Return the model's labels, int64 ``(ids,)``, of the samples ``ids``.

        Raises
        ------
        ValueError
            The model labels pixels.
        """
        labels = [torch.empty(0, dtype=torch.int64)]
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        with evaluating(self.model), torch.no_grad():
            for _, inputs in self.batches(ids):
                logits = self.model(inputs.to(device))
                if logits.ndim != 2:
                    raise ValueError(
                        f"strategy {self.strategy.name!r} needs one label for each sample, "
                        f"the model gives logits {tuple(logits.shape)}"
                    )
                labels.append(logits.argmax(1).cpu())
        return torch.cat(labels)

    def _undeclared(self, need: str) -> LookupError:
        return LookupError(
            f"strategy {self.strategy.name!r} uses {need} but does not declare it; "
            f"register it with needs=({need!r},)"
        )

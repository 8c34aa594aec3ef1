"""`Strategy` and `SelectionContext`: a way to pick samples, and what it may look at."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating
from dynal_fast.pool import PoolStats
from dynal_fast.pool.scores import scores_named

NEEDS = (
    *("embeddings", "mc_dropout", "committee", "oracle", "independent_model"),
    "loss_prediction",
)
SELECTS_FROM = ("unlabeled", "labeled")

Select = Callable[["SelectionContext"], Tensor]


@dataclass(frozen=True)
class Strategy:
    """A named way to pick samples, and what it needs from the loop.

    Attributes
    ----------
    name, aliases
        What it is called.
    select
        ``select(context)`` takes a `SelectionContext` and returns int64 ``(budget,)``: distinct ids
        out of ``context.candidates``.
    description
        One line for the list of strategies.
    tracks
        Scores whose statistics `PoolStats` keeps while the model trains.
    needs
        What else it uses, any of ``NEEDS``; see `register_strategy`.
    options
        Numbers by name, with their values.
    selects_from
        ``"unlabeled"``, ``"labeled"`` or both.
    ranks_by
        The score of which it picks the highest, as ``--analysis`` records it; None if it ranks by
        none. A score over MC-dropout passes or of a committee counts, too.

    Examples
    --------
    >>> first = Strategy("first", lambda context: context.candidates[: context.budget])
    >>> first.tracks, first.needs_teacher
    ((), False)
    """

    name: str
    select: Select
    description: str = ""
    tracks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    options: Mapping[str, float] = field(default_factory=dict, hash=False)
    selects_from: tuple[str, ...] = ("unlabeled",)
    ranks_by: str | None = None

    @property
    def needs_teacher(self) -> bool:
        """Whether a score that it tracks compares the model with its EMA teacher."""
        return any(score.needs_teacher for score in scores_named(self.tracks))

    def with_options(self, given: Mapping[str, float]) -> "Strategy":
        """Return the strategy with other values of some options.

        Raises
        ------
        ValueError
            It has no such option, a value is not a finite number, or it is not an integer although
            the default is one.

        Examples
        --------
        >>> from dynal_fast.strategies.registry import get_strategy
        >>> get_strategy("coreset").with_options({"max_pairs": 10}).options["max_pairs"]
        10
        """
        options = dict(self.options)
        for name, value in given.items():
            if name not in options:
                known = ", ".join(options) or "none"
                raise ValueError(f"{self.name} has no option {name!r}; it has: {known}")
            kind = type(options[name])
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or kind(value) != value:
                expected = "an integer" if kind is int else "a number"
                raise ValueError(f"{self.name}.{name} must be {expected}, got {value!r}")
            options[name] = kind(value)
        return replace(self, options=options)


@dataclass
class SelectionContext:
    """What a strategy may look at when it selects.

    The loop makes one for each selection; to test a strategy, make one by hand. Labels of unlabeled
    samples are told only to strategies that declare ``needs=("oracle",)``, which are for analysis.

    Attributes
    ----------
    candidates
        int64 ``(candidates,)``: ids of the unlabeled samples, ascending; picks are taken from
        these. Where labeled samples are selected from (``Protocol.compress``), the same as
        ``labeled``.
    labeled
        int64 ``(labeled,)``: ids of the labeled samples, in the order of labeling.
    labeled_targets
        int64 ``(labeled,)``: their labels.
    budget
        The number of picks to return.
    generator
        The source of randomness. A run can be repeated if the strategy uses no other.
    cycle
        0 at the first selection.
    model
        The model as trained in this cycle.
    strategy
        The strategy that selects, with its options.
    batches
        ``batches(ids)`` yields ``(sample_ids, inputs)`` of the samples ``ids``.
    tracked
        The statistics behind `stats`; None if the strategy tracks none.
    embedder, mc_dropout_observer, committee_observer, oracle
        What `embeddings`, `mc_dropout`, `committee` and `true_labels` call; None if the strategy
        does not declare the need.
    head
        The submodule whose input is the embedding, if not the last linear layer.
    epochs
        How many epochs the model was trained; strategies that train models of their own train them
        as long.
    report
        Plain numbers and text by name that the strategy adds to the results.
    scores
        Float ``(candidates,)`` by name: what the strategy ranked by, higher picked first, where it
        is not a tracked score. ``--analysis`` records it.

    Examples
    --------
    >>> def flattest(context: SelectionContext) -> Tensor:
    ...     [(ids, inputs)] = context.batches(context.candidates)
    ...     spread = context.model(inputs).std(dim=1)
    ...     return ids[spread.argsort()[: context.budget]]
    >>> inputs = torch.tensor([[0.0, 4.0], [1.0, 2.0], [5.0, 2.0]])
    >>> context = SelectionContext(
    ...     candidates=torch.tensor([0, 1, 2]),
    ...     labeled=torch.empty(0, dtype=torch.int64),
    ...     labeled_targets=torch.empty(0, dtype=torch.int64),
    ...     budget=1,
    ...     generator=torch.Generator(),
    ...     cycle=0,
    ...     model=nn.Identity(),
    ...     strategy=Strategy("flattest", flattest),
    ...     batches=lambda ids: [(ids, inputs[ids])],
    ... )
    >>> flattest(context)
    tensor([1])
    """

    candidates: Tensor
    labeled: Tensor
    labeled_targets: Tensor
    budget: int
    generator: torch.Generator
    cycle: int
    model: nn.Module
    strategy: Strategy
    batches: Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]]
    tracked: PoolStats | None = None
    embedder: Callable[[Tensor], Tensor] | None = None
    mc_dropout_observer: Callable[[tuple[str, ...]], PoolStats] | None = None
    committee_observer: Callable[[int, tuple[str, ...]], PoolStats] | None = None
    oracle: Callable[[Tensor], Tensor] | None = None
    head: str | None = None
    epochs: int = 1
    report: dict[str, float | int | bool | str] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)

    @property
    def stats(self) -> PoolStats:
        """The statistics of the scores that the strategy declared with ``tracks``.

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
        """Return the penultimate activations of the samples ``ids``, float ``(ids, features)``.

        Raises
        ------
        LookupError
            The strategy did not declare ``needs=("embeddings",)``.
        """
        if self.embedder is None:
            raise self._undeclared("embeddings")
        return self.embedder(ids)

    def mc_dropout(self, track: Iterable[str]) -> PoolStats:
        """Return statistics over MC-dropout passes over the candidates; row i is sample i.

        Each pass is folded into the statistics as it is made, so that the outputs of all passes
        are never in memory together.

        Parameters
        ----------
        track
            Names of scores, such as ``("bald",)``.

        Raises
        ------
        LookupError
            The strategy did not declare ``needs=("mc_dropout",)``.
        """
        if self.mc_dropout_observer is None:
            raise self._undeclared("mc_dropout")
        return self.mc_dropout_observer(tuple(track))

    def committee(self, members: int, track: Iterable[str]) -> PoolStats:
        """Return statistics over the outputs of a committee; row i is sample i.

        The model is its first member. The others are trained now, as long as the model was, on the
        labeled samples alone, each from initial weights and in an order of its own. Only one of
        them exists at a time: its outputs are folded into the statistics before the next is
        trained.

        Parameters
        ----------
        members
            How many, the model included.
        track
            Names of scores, such as ``("vote_entropy",)``.

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
        """Return the true labels of the samples ``ids``, int64 ``(ids,)``: for analysis only.

        Raises
        ------
        LookupError
            The strategy did not declare ``needs=("oracle",)``.
        """
        if self.oracle is None:
            raise self._undeclared("oracle")
        return self.oracle(ids)

    def predicted_labels(self, ids: Tensor) -> Tensor:
        """Return the classes that the model predicts for the samples ``ids``, int64 ``(ids,)``.

        Raises
        ------
        ValueError
            The model's logits are not ``(batch, classes)``.
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

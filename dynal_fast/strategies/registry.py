"""The one registry of acquisition strategies: built-in ones and those that users add.

A strategy is a plain callable ``strategy(context) -> indices`` and a declaration of what it needs:
the statistics that are tracked while the model trains, the embeddings, MC-dropout passes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dynal_fast.strategies.strategy import SelectionContext as SelectionContext

NEEDS = ("embeddings", "mc_dropout", "committee", "oracle", "independent_model")
SELECTS_FROM = ("unlabeled", "labeled")


Select = Callable[[SelectionContext], Tensor]


@dataclass(frozen=True)
class Strategy:
    """A named way to pick samples, what it needs from the loop, and the values of its options."""

    name: str
    select: Select
    description: str = ""
    tracks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    options: Mapping[str, float] = field(default_factory=dict, hash=False)
    selects_from: tuple[str, ...] = ("unlabeled",)

    def with_options(self, given: Mapping[str, float]) -> "Strategy":
        """Return the strategy with other values of some options.

        Raises
        ------
        ValueError
            It has no such option, or a value is no number, or no integer where the default is one.

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


_REGISTRY: dict[str, Strategy] = {}


def register_strategy(
    name: str,
    select: Select | None = None,
    *,
    description: str = "",
    tracks: Iterable[str] = (),
    needs: Iterable[str] = (),
    aliases: Iterable[str] = (),
    options: Mapping[str, float] | None = None,
    selects_from: Iterable[str] = ("unlabeled",),
) -> Callable[[Select], Select]:
    """Add a strategy to the registry, as a decorator or by passing the callable.

    Parameters
    ----------
    name, aliases
        What it is called.
    select
        ``select(context) -> indices``: ``context.budget`` distinct ids out of
        ``context.candidates``, int64.
    tracks
        Names of the :class:`PoolStats` scores to track while the model trains.
    needs
        ``"embeddings"`` (checked before the first training: the model must have a linear head)
        and ``"mc_dropout"`` (the model must have dropout layers); ``"committee"`` (more models are
        trained at each selection); ``"oracle"`` (labels of unlabeled samples, for analysis);
        ``"independent_model"`` (before the first training the statistics
        observe an independent, randomly initialised model instead of the one that trains).
    options
        Numbers that a run may set, with their defaults, which say whether they are integers. The
        strategy reads them from ``context.strategy.options``.
    selects_from
        ``"unlabeled"`` samples, to have them labeled; ``"labeled"`` ones, of which it keeps at most
        the budget (:class:`~dynal_fast.experiment.CompressionExperiment`); or both.

    Raises
    ------
    ValueError
        A name is taken, ``needs`` or ``selects_from`` holds an unknown name, or a strategy that
        selects from labeled samples tracks statistics of the unlabeled.

    >>> @register_strategy("lowest_ids", description="the first of the pool")
    ... def lowest_ids(context):
    ...     return context.candidates[: context.budget]
    >>> get_strategy("lowest_ids").description
    'the first of the pool'
    >>> unregister_strategy("lowest_ids")
    """
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ValueError(f"needs must be among {', '.join(NEEDS)}, got {unknown[0]!r}")
    if not set(selects_from) <= set(SELECTS_FROM) or ("labeled" in selects_from and tracks):
        raise ValueError(
            f"selects_from must be among {', '.join(SELECTS_FROM)}, and tracks empty with labeled; "
            f"got {selects_from!r} and {tracks!r}"
        )
    names = (name, *aliases)
    for taken in names:
        if taken in _REGISTRY:
            raise ValueError(f"a strategy called {taken!r} is already registered")

    def add(function: Select) -> Select:
        strategy = Strategy(
            name,
            function,
            description,
            tuple(tracks),
            tuple(needs),
            tuple(aliases),
            dict(options or {}),
            tuple(selects_from),
        )
        for each in names:
            _REGISTRY[each] = strategy
        return function

    return add(select) if select is not None else add  # type: ignore[return-value]


def unregister_strategy(name: str) -> None:
    """Remove a strategy and its aliases.

    Raises
    ------
    ValueError
        None of that name is registered.
    """
    if name not in _REGISTRY:
        raise ValueError(f"no strategy called {name!r} is registered")
    strategy = _REGISTRY[name]
    for each in (strategy.name, *strategy.aliases):
        del _REGISTRY[each]


def get_strategy(name: str) -> Strategy:
    """Return the strategy of that name or alias.

    ``"NAME+farthest_first"`` shortlists by the strategy NAME and picks farthest first from the
    shortlist: :func:`~dynal_fast.strategies.hybrid.diversified`.

    Raises
    ------
    ValueError
        There is none; the message lists those that there are.

    >>> get_strategy("margin+farthest_first").tracks
    ('margin',)
    """
    first, plus, second = name.rpartition("+")
    if plus and name not in _REGISTRY and get_strategy(second).name == "farthest_first":
        return hybrid.diversified(get_strategy(first))
    if name not in _REGISTRY:
        known = ", ".join(strategy.name for strategy in strategies())
        raise ValueError(f"unknown strategy {name!r}; known: {known}; NAME+farthest_first")
    return _REGISTRY[name]


def strategies() -> Iterator[Strategy]:
    """Yield each registered strategy once, in the order of registration."""
    yield from dict.fromkeys(_REGISTRY.values())


def as_strategy(given: "str | Strategy | Select") -> Strategy:
    """Return the strategy of a name, or a plain callable as a strategy that needs nothing."""
    if isinstance(given, Strategy):
        return given
    if isinstance(given, str):
        return get_strategy(given)
    return Strategy(getattr(given, "__name__", type(given).__name__), given)


def check_selects_from(strategy: Strategy, source: str) -> None:
    """Check that a strategy selects from ``"unlabeled"`` or ``"labeled"`` samples.

    Raises
    ------
    ValueError
        It does not; the message lists those that do.
    """
    if source not in strategy.selects_from:
        able = ", ".join(each.name for each in strategies() if source in each.selects_from)
        raise ValueError(
            f"strategy {strategy.name!r} does not select from {source} samples, as this protocol "
            f"does; these do: {able}"
        )


def checked_picks(picks: object, context: SelectionContext, exactly: bool = True) -> Tensor:
    """Return what a strategy gave, once it is what a strategy must give.

    Raises
    ------
    ValueError
        It is not ``budget`` distinct candidates as a one-dimensional integer tensor; unless
        ``exactly``, fewer will do.
    """
    source = f"strategy {context.strategy.name!r}"
    if not isinstance(picks, Tensor) or picks.dtype != torch.int64 or picks.dim() != 1:
        what = f"{picks.dtype} {tuple(picks.shape)}" if isinstance(picks, Tensor) else repr(picks)
        raise ValueError(f"{source} must return a 1-D int64 tensor, got {what[:80]}")
    picks = picks.cpu()
    if len(picks) > context.budget or (exactly and len(picks) < context.budget):
        raise ValueError(f"{source} must return {context.budget} picks, got {len(picks)}")
    if len(picks.unique()) != len(picks):
        raise ValueError(f"{source} returned the same sample twice")
    foreign = picks[~torch.isin(picks, context.candidates)]
    if len(foreign):
        raise ValueError(f"{source} returned {int(foreign[0])}, which is no candidate")
    return picks


def _best_by(score: str) -> Select:
    def select(context: SelectionContext) -> Tensor:
        return context.stats.select(
            score, context.budget, candidates=context.candidates, generator=context.generator
        )

    return select


def _best_by_mc_dropout(score: str) -> Select:
    def select(context: SelectionContext) -> Tensor:
        return context.mc_dropout((score,)).select(
            score, context.budget, candidates=context.candidates, generator=context.generator
        )

    return select


@register_strategy("random", description="uniform over the pool", selects_from=SELECTS_FROM)
def _random(context: SelectionContext) -> Tensor:
    order = torch.randperm(len(context.candidates), generator=context.generator)
    return context.candidates[order[: context.budget]]


_TRACKED_SCORES = {
    "least_confidence": ("lowest top probability", ("softmax_response",)),
    "entropy": ("highest entropy of the prediction", ()),
    "margin": ("smallest margin between the top two classes", ()),
    "label_dispersion": (
        "predicted label changes most over the epochs (label dispersion, eq. 1-2)",
        ("dispersion",),
    ),
    "prediction_stability": (
        "softmax output varies most over the epochs (prediction stability, eq. 3-4)",
        (),
    ),
    "prediction_stability_logits": ("the same on logits (prediction stability, 4.4.1)", ()),
    "absolute_increase": ("summed change between epochs (prediction stability, eq. 5)", ()),
    "cod": (
        "output differs most from the last cycle's (temporal output discrepancy, eq. 5)",
        ("cyclic_output_discrepancy",),
    ),
    "emaod": (
        "output differs most from the EMA teacher's (temporal output discrepancy, eq. 1 and 6)",
        (),
    ),
    "vote_entropy": (
        "query by committee: vote entropy of the models at the ends of the epochs",
        ("query_by_snapshots",),
    ),
}
for _name, (_description, _aliases) in _TRACKED_SCORES.items():
    register_strategy(
        _name, _best_by(_name), description=_description, tracks=(_name,), aliases=_aliases
    )

_MC_DROPOUT_SCORES = {
    "bald": "mutual information over MC-dropout passes",
    "mean_std": "mean standard deviation over MC-dropout passes",
    "variation_ratio": "disagreement of the labels of MC-dropout passes",
}
for _name, _description in _MC_DROPOUT_SCORES.items():
    register_strategy(
        _name, _best_by_mc_dropout(_name), description=_description, needs=("mc_dropout",)
    )
register_strategy(
    "mc_dropout_vote_entropy",
    _best_by_mc_dropout("vote_entropy"),
    description="vote entropy of MC-dropout passes",
    needs=("mc_dropout",),
)


@register_strategy(
    "farthest_first",
    description="farthest from labeled and picked, in embedding space (long tail, Algorithm 2)",
    needs=("embeddings",),
    aliases=("ff_active", "k_center_greedy", "k_center"),
)
def _farthest_first(context: SelectionContext) -> Tensor:
    """FF-Active: in each round the pool sample farthest from all labeled and picked ones.

    Algorithm 2 of Geifman and El-Yaniv, "Deep Active Learning over the Long Tail", lines 7-9; the
    greedy k-center of Sener and Savarese's Algorithm 1, "Active Learning for Convolutional Neural
    Networks: A Core-Set Approach".
    """
    from dynal_fast.ops.farthest_first import farthest_first

    traversal = farthest_first(
        context.embeddings(context.candidates),
        context.budget,
        labeled=context.embeddings(context.labeled),
    )
    return context.candidates[torch.as_tensor(traversal.indices).cpu()]


# Strategies made of several parts register themselves.
from dynal_fast.strategies import committee as committee  # noqa: E402
from dynal_fast.strategies import hybrid as hybrid  # noqa: E402
from dynal_fast.strategies import vaal as vaal  # noqa: E402

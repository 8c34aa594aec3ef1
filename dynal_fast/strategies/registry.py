"""The registry of acquisition strategies: the built-in ones and those that users add."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from dynal_fast.pool.scores import ALIASES, SCORES
from dynal_fast.strategies.strategy import (
    NEEDS,
    SELECTS_FROM,
    Select,
    SelectionContext,
    Strategy,
)

_REGISTRY: dict[str, Strategy] = {}
_HYBRIDS: dict[str, Callable[[Strategy], Strategy]] = {}


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
    ranks_by: str | None = None,
) -> Callable[[Select], Select]:
    """Add a strategy to the registry, as a decorator or by passing the callable.

    Parameters
    ----------
    name, aliases
        What it is called in configurations and on the command line.
    select
        ``select(context)`` takes a `SelectionContext` and returns int64 ``(budget,)``: distinct ids
        out of ``context.candidates``. Leave it out to decorate the function.
    description
        One line for the list of strategies.
    tracks
        Scores whose statistics `PoolStats` keeps while the model trains; ``context.stats`` has
        them.
    needs
        What else it uses:

        - ``"embeddings"``: the model must have a linear head, which is checked before the first
          training;
        - ``"mc_dropout"``: the model must have dropout layers;
        - ``"committee"``: more models are trained at each selection;
        - ``"oracle"``: labels of unlabeled samples, for analysis;
        - ``"independent_model"``: before the first training the statistics observe an independent,
          randomly initialised model instead of the one that is trained;
        - ``"loss_prediction"``: the model is a ``LossPredicting``, trained with a ranking loss
          beside the cross-entropy; its ``weight``, ``margin`` and ``flow`` are options of the
          strategy.
    options
        Numbers that a run may set, with their defaults. Where the default is an integer, so must
        the value be. ``context.strategy.options`` has the values.
    selects_from
        ``"unlabeled"`` samples, to have them labeled; ``"labeled"`` ones, of which it keeps at most
        the budget (`CompressionExperiment`); or both.
    ranks_by
        The score, one of `dynal_fast.pool.scores.SCORES`, of which it picks the highest. The report
        then shows what that score ranks high. By default these are the scores that the strategy
        puts into ``context.scores`` under its own name.

    Returns
    -------
    Callable
        The decorator, or ``select`` itself.

    Raises
    ------
    ValueError
        A name is taken; a string stands where names are expected; ``needs``, ``selects_from`` or
        ``ranks_by`` holds an unknown name; or a strategy that selects from labeled samples tracks
        statistics of the unlabeled.

    Examples
    --------
    >>> @register_strategy("lowest_ids", description="the first of the pool")
    ... def lowest_ids(context):
    ...     return context.candidates[: context.budget]
    >>> get_strategy("lowest_ids").description
    'the first of the pool'
    >>> unregister_strategy("lowest_ids")
    """
    given = {"tracks": tracks, "needs": needs, "aliases": aliases, "selects_from": selects_from}
    for argument, value in given.items():
        if isinstance(value, str):
            raise ValueError(f"{argument} must be a sequence of names, got the string {value!r}")
    tracks, needs, aliases, selects_from = map(tuple, given.values())
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ValueError(f"needs must be among {', '.join(NEEDS)}, got {unknown[0]!r}")
    if not set(selects_from) <= set(SELECTS_FROM) or ("labeled" in selects_from and tracks):
        raise ValueError(
            f"selects_from must be among {', '.join(SELECTS_FROM)}, and tracks empty with labeled; "
            f"got {selects_from!r} and {tracks!r}"
        )
    if ranks_by is not None:
        ranks_by = ALIASES.get(ranks_by, ranks_by)  # as it is recorded
        if ranks_by not in SCORES:
            raise ValueError(f"ranks_by must be among {', '.join(SCORES)}, got {ranks_by!r}")
    names = (name, *aliases)
    for taken in names:
        if taken in _REGISTRY:
            raise ValueError(f"a strategy called {taken!r} is already registered")

    def add(function: Select) -> Select:
        strategy = Strategy(
            name,
            function,
            description,
            tracks,
            needs,
            aliases,
            dict(options or {}),
            selects_from,
            ranks_by,
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
        No strategy of that name is registered.
    """
    if name not in _REGISTRY:
        raise ValueError(f"no strategy called {name!r} is registered")
    strategy = _REGISTRY[name]
    for each in (strategy.name, *strategy.aliases):
        del _REGISTRY[each]


def register_hybrid(second: str, combine: Callable[[Strategy], Strategy]) -> None:
    """Let ``get_strategy("NAME+second")`` return ``combine(get_strategy("NAME"))``.

    ``second`` is the name of a registered strategy; its aliases do, too.
    """
    _HYBRIDS[second] = combine


def get_strategy(name: str) -> Strategy:
    """Return the strategy of that name or alias.

    ``"NAME+farthest_first"`` shortlists by the strategy NAME and picks farthest first from the
    shortlist (`dynal_fast.strategies.hybrid.diversified`).

    Raises
    ------
    ValueError
        There is none; the message lists the known names.

    Examples
    --------
    >>> get_strategy("margin+farthest_first").tracks
    ('margin',)
    """
    first, plus, second = name.rpartition("+")
    if plus and name not in _REGISTRY and (hybrid := _HYBRIDS.get(get_strategy(second).name)):
        return hybrid(get_strategy(first))
    if name not in _REGISTRY:
        known = ", ".join(strategy.name for strategy in strategies())
        hybrids = "".join(f"; NAME+{second}" for second in _HYBRIDS)
        raise ValueError(f"unknown strategy {name!r}; known: {known}{hybrids}")
    return _REGISTRY[name]


def strategies() -> Iterator[Strategy]:
    """Yield each registered strategy once, in the order of registration."""
    yield from dict.fromkeys(_REGISTRY.values())


def as_strategy(given: str | Strategy | Select) -> Strategy:
    """Return the strategy of a name, or a plain callable as a strategy that needs nothing."""
    if isinstance(given, Strategy):
        return given
    if isinstance(given, str):
        return get_strategy(given)
    return Strategy(getattr(given, "__name__", type(given).__name__), given)


def check_selects_from(strategy: Strategy, source: str) -> None:
    """Check that a strategy selects from the ``source``, ``"unlabeled"`` or ``"labeled"`` samples.

    Raises
    ------
    ValueError
        It does not; the message lists the strategies that do.
    """
    if source not in strategy.selects_from:
        able = ", ".join(each.name for each in strategies() if source in each.selects_from)
        raise ValueError(
            f"strategy {strategy.name!r} does not select from {source} samples, as this protocol "
            f"does; these do: {able}"
        )


def checked_picks(picks: object, context: SelectionContext, exactly: bool = True) -> Tensor:
    """Return the picks of a strategy on the CPU, int64 ``(budget,)``, after checking them.

    Raises
    ------
    ValueError
        They are not ``budget`` distinct candidates as a 1-D int64 tensor; fewer are accepted unless
        ``exactly``.
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

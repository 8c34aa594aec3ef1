"""The table of scores: what each is computed from, when it observes, what it is called."""

from collections import ChainMap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dynal_fast.ops.pool_stats import STATE
from dynal_fast.pool.formulas import (
    absolute_increase,
    bald,
    cod,
    emaod,
    entropy,
    label_dispersion,
    least_confidence,
    margin,
    mean_std,
    multi_label_bald,
    multi_label_predictive_entropy,
    prediction_stability,
    prediction_stability_logits,
    predictive_entropy,
    variation_ratio,
    vote_entropy,
)
from dynal_fast.pool.schedule import EveryEpoch, LastEpochs, Schedule
from dynal_fast.pool.training import (
    aum,
    confidence,
    correctness,
    el2n,
    first_learned,
    forgetting,
    variability,
)


@dataclass(frozen=True)
class Score:
    """A score: how it is computed, when its statistic observes, what it is called.

    Attributes
    ----------
    function
        Of the ``tensors``, and of options; returns float32 ``(samples,)``.
    tensors
        Names in `dynal_fast.ops.pool_stats.STATE`, in the order of the function's arguments.
    schedule
        The epochs that its statistic observes by default.
    description
        One line for the list of strategies.
    aliases
        Other names of the score.
    strategy_aliases
        Other names of the strategy that ranks by it.
    observed_over
        What that strategy observes: ``"epochs"`` of the training, or ``"mc_dropout"`` passes at the
        selection.
    of_sigmoids
        The function for the outputs of multi-label heads, ``PoolStats(activation="sigmoid")``; None
        if the score has no meaning for them.
    selects
        Which end `PoolStats.select` picks: ``"highest"`` or ``"lowest"``.
    """

    function: Callable[..., Tensor]
    tensors: tuple[str, ...]
    schedule: Schedule
    description: str
    aliases: tuple[str, ...] = ()
    strategy_aliases: tuple[str, ...] = ()
    observed_over: Literal["epochs", "mc_dropout"] = "epochs"
    of_sigmoids: Callable[..., Tensor] | None = None
    selects: Literal["highest", "lowest"] = "highest"

    @property
    def part(self) -> str:
        """The part of the state that its tensors belong to."""
        return STATE[self.tensors[0]].part

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares with the EMA teacher."""
        return self.part == "teacher"

    @property
    def compares_cycles(self) -> bool:
        """Whether it compares with the last cycle; the first compares with the initial model."""
        return self.part == "cycle"


# In the order of the list of strategies. A new score needs a formula and an entry here.
SCORES: dict[str, Score] = {
    "least_confidence": Score(
        least_confidence,
        ("last_top",),
        LastEpochs(1),
        "lowest top probability",
        aliases=("softmax_response",),
        strategy_aliases=("softmax_response",),
        of_sigmoids=least_confidence,
    ),
    "entropy": Score(
        entropy,
        ("last_entropy",),
        LastEpochs(1),
        "highest entropy of the prediction",
        of_sigmoids=entropy,
    ),
    "margin": Score(
        margin,
        ("last_margin",),
        LastEpochs(1),
        "smallest margin between the top two classes",
        of_sigmoids=margin,
    ),
    "label_dispersion": Score(
        label_dispersion,
        ("label_counts",),
        EveryEpoch(),
        "predicted label changes most over the epochs (label dispersion, eq. 1-2)",
        strategy_aliases=("dispersion",),
    ),
    "prediction_stability": Score(
        prediction_stability,
        ("count", "m2"),
        LastEpochs(5),
        "softmax output varies most over the epochs (prediction stability, eq. 3-4)",
        of_sigmoids=prediction_stability,
    ),
    "prediction_stability_logits": Score(
        prediction_stability_logits,
        ("logit_count", "logit_m2"),
        LastEpochs(5),
        "the same on logits (prediction stability, 4.4.1)",
        of_sigmoids=prediction_stability_logits,
    ),
    "absolute_increase": Score(
        absolute_increase,
        ("increase_count", "increase_sum"),
        LastEpochs(5),
        "summed change between epochs (prediction stability, eq. 5)",
        of_sigmoids=absolute_increase,
    ),
    "cod": Score(
        cod,
        ("cycle_discrepancy",),
        LastEpochs(1),
        "output differs most from the last cycle's (temporal output discrepancy, eq. 5)",
        strategy_aliases=("cyclic_output_discrepancy",),
        of_sigmoids=cod,
    ),
    "emaod": Score(
        emaod,
        ("teacher_discrepancy",),
        LastEpochs(1),
        "output differs most from the EMA teacher's (temporal output discrepancy, eq. 1 and 6)",
        of_sigmoids=emaod,
    ),
    "vote_entropy": Score(
        vote_entropy,
        ("label_counts",),
        EveryEpoch(),
        "query by committee: vote entropy of the models at the ends of the epochs",
        strategy_aliases=("query_by_snapshots",),
    ),
    "bald": Score(
        bald,
        ("count", "mean", "entropy_sum"),
        EveryEpoch(),
        "mutual information over MC-dropout passes",
        # The mean over members of KL(p_t || mean p) is H(mean p) - mean H(p_t), BALD's formula.
        aliases=("consensus_kl",),
        observed_over="mc_dropout",
        of_sigmoids=multi_label_bald,
    ),
    "predictive_entropy": Score(
        predictive_entropy,
        ("count", "mean"),
        EveryEpoch(),
        "entropy of the mean output over MC-dropout passes",
        aliases=("max_entropy",),
        observed_over="mc_dropout",
        of_sigmoids=multi_label_predictive_entropy,
    ),
    "mean_std": Score(
        mean_std,
        ("count", "class_m2"),
        EveryEpoch(),
        "mean standard deviation over MC-dropout passes",
        observed_over="mc_dropout",
        of_sigmoids=mean_std,
    ),
    "variation_ratio": Score(
        variation_ratio,
        ("label_counts",),
        EveryEpoch(),
        "disagreement of the labels of MC-dropout passes",
        observed_over="mc_dropout",
    ),
}


def _of_labeled(
    function: Callable[..., Tensor], description: str, selects: Literal["highest", "lowest"]
) -> Score:
    tensors = ("training_count", "training")
    return Score(function, tensors, EveryEpoch(), description, selects=selects)


# Of labeled samples, from the targets of their batches: no strategies, as a pool has no targets.
TRAINING_SCORES: dict[str, Score] = {
    "confidence": _of_labeled(confidence, "mean probability of the label", "lowest"),
    "variability": _of_labeled(variability, "standard deviation of that probability", "highest"),
    "correctness": _of_labeled(correctness, "share of epochs that predict the label", "lowest"),
    "forgetting": _of_labeled(forgetting, "how often the label was unlearned", "highest"),
    "first_learned": _of_labeled(first_learned, "epoch that first predicts the label", "highest"),
    "aum": _of_labeled(aum, "area under the margin of the label's logit", "lowest"),
    "el2n": _of_labeled(el2n, "mean length of the error vector", "highest"),
}
TRACKABLE = ChainMap(SCORES, TRAINING_SCORES)
ALIASES = {alias: name for name, score in SCORES.items() for alias in score.aliases}


def scores_named(names: Iterable[str]) -> list[Score]:
    """Return the scores under these names or aliases; ``"random"`` is none.

    >>> [score.needs_teacher for score in scores_named(["random", "emaod", "softmax_response"])]
    [True, False]
    """
    names = [ALIASES.get(name, name) for name in names]
    return [SCORES[name] for name in names if name in SCORES]

"""The formulas of the scores: functions of the tensors of the pool statistics.

Each takes tensors of `dynal_fast.ops.pool_stats`, whose first axis is the pool, and returns float32
``(samples,)``: higher is more informative, and a sample that was never observed scores NaN.

Below, p is the softmax of the logits. With ``PoolStats(activation="sigmoid")`` p_c is the sigmoid
of logit c, the probability that a sample has label c; `dynal_fast.ops.pool_stats` says what the
tensors hold then.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def prediction_stability(count: Tensor, m2: Tensor, unbiased: bool = False) -> Tensor:
    """Sum over classes of the variance of the softmax output over the observed epochs.

    Eq. 3 of "Sequential-based active learning: prediction stability". The paper does not say which
    variance: by default the population's, M2 / T; with ``unbiased`` the sample's, M2 / (T - 1),
    which is NaN for T = 1. If all samples have the same T, both rank alike.

    >>> prediction_stability(torch.tensor([2, 0]), torch.tensor([0.5, 0.0]))
    tensor([0.2500,    nan])
    """
    observed = count - 1 if unbiased else count
    return m2 / observed.where(observed > 0, torch.nan)


def prediction_stability_logits(
    logit_count: Tensor, logit_m2: Tensor, unbiased: bool = False
) -> Tensor:
    """Sum over classes of the variance of the logits: eq. 3 without the softmax.

    The ablation of section 4.4.1 of the prediction stability paper.

    >>> prediction_stability_logits(torch.tensor([4]), torch.tensor([2.0]))
    tensor([0.5000])
    """
    return prediction_stability(logit_count, logit_m2, unbiased)


def absolute_increase(increase_count: Tensor, increase_sum: Tensor) -> Tensor:
    """Sum over consecutive observed epochs of the length of the change of the softmax output.

    Eq. 5 of the prediction stability paper, an ablation: ``sum_i |f_{e_i}(x) - f_{e_{i-1}}(x)|``.
    Eq. 3 has an explicit sum over classes and eq. 5 has none, so we read the bars as the L2 norm.
    0 after one observation.

    >>> absolute_increase(torch.tensor([3, 0]), torch.tensor([0.7, 0.0]))
    tensor([0.7000,    nan])
    """
    return increase_sum.where(increase_count > 0, torch.nan)


def label_dispersion(label_counts: Tensor) -> Tensor:
    """Share of observed epochs whose predicted label is not the most frequent one: ``1 - f_x / T``.

    Eq. 1-2 of "When Deep Learners Change Their Mind". T is the number of times that the sample was
    observed, f_x the count of its most frequent label.

    >>> label_dispersion(torch.tensor([[3, 1, 0], [0, 0, 0]], dtype=torch.uint8))
    tensor([0.2500,    nan])
    """

    def rows(label_counts: Tensor) -> Tensor:
        label_counts = label_counts.to(torch.int32)
        total = label_counts.sum(dim=1, dtype=torch.int32)
        outside_mode = (total - label_counts.amax(dim=1)).float()
        return outside_mode / total.where(total > 0, torch.nan)

    return _by_rows(rows, label_counts, elements=2**19)  # one temporary: larger slices fit


def variation_ratio(label_counts: Tensor) -> Tensor:
    """``1 - f_x / T`` over Monte Carlo dropout passes instead of epochs.

    Freeman 1965, as in Gal et al., "Deep Bayesian Active Learning with Image Data". The formula is
    that of `label_dispersion`, over other passes.

    >>> variation_ratio(torch.tensor([[3, 1, 0]], dtype=torch.uint8))
    tensor([0.2500])
    """
    return label_dispersion(label_counts)


def vote_entropy(label_counts: Tensor) -> Tensor:
    """Entropy of the votes in nats: ``- sum_c V_c / T ln (V_c / T)``, for V_c of T votes for c.

    Dagan and Engelson, "Committee-Based Sampling for Training Probabilistic Classifiers", without
    the constant divisor ln T. A vote is one observation: a member of a committee, an MC-dropout
    pass or an epoch.

    >>> vote_entropy(torch.tensor([[2, 2, 0], [4, 0, 0]], dtype=torch.uint8))
    tensor([0.6931, 0.0000])
    """

    def rows(label_counts: Tensor) -> Tensor:
        votes = label_counts.to(torch.int32).double()
        total = votes.sum(dim=1, keepdim=True)
        share = votes / total.where(total > 0, torch.nan)
        return torch.special.entr(share).sum(dim=1).float()

    return _by_rows(rows, label_counts)


def bald(count: Tensor, mean: Tensor, entropy_sum: Tensor) -> Tensor:
    """Mutual information in nats over Monte Carlo dropout passes: ``H(mean p) - mean H(p)``.

    Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", eq. 2;
    with dropout passes as in Gal et al., "Deep Bayesian Active Learning with Image Data".

    >>> bald(torch.tensor([2]), torch.tensor([[0.5, 0.5]]), torch.tensor([0.0]))
    tensor([0.6931])
    """

    def rows(count: Tensor, mean: Tensor, entropy_sum: Tensor) -> Tensor:
        mean = mean.double()
        total = torch.special.entr(mean).sum(dim=1)
        expected = entropy_sum / count.where(count > 0, torch.nan)
        return (total - expected).clamp_(min=0).float()

    return _by_rows(rows, count, mean, entropy_sum)


def predictive_entropy(count: Tensor, mean: Tensor) -> Tensor:
    """Entropy in nats of the mean output over Monte Carlo dropout passes: ``H(mean p)``.

    The "Max Entropy" of Gal et al., "Deep Bayesian Active Learning with Image Data", section 4; the
    first term of `bald`. Observed over epochs it is the entropy of their mean output.

    >>> predictive_entropy(torch.tensor([2, 0]), torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
    tensor([0.6931,    nan])
    """

    def rows(count: Tensor, mean: Tensor) -> Tensor:
        total = torch.special.entr(mean.double()).sum(dim=1)
        return total.where(count > 0, torch.nan).float()

    return _by_rows(rows, count, mean)


def multi_label_predictive_entropy(count: Tensor, mean: Tensor) -> Tensor:
    """`predictive_entropy` of sigmoid outputs, in nats: the sum over labels of each one's.

    >>> multi_label_predictive_entropy(torch.tensor([2]), torch.tensor([[0.5, 1.0]]))
    tensor([0.6931])
    """

    def rows(count: Tensor, mean: Tensor) -> Tensor:
        total = _label_entropy(mean.double())
        return total.where(count > 0, torch.nan).float()

    return _by_rows(rows, count, mean)


def multi_label_bald(count: Tensor, mean: Tensor, entropy_sum: Tensor) -> Tensor:
    """`bald` of sigmoid outputs: the sum over labels of each one's mutual information, in nats.

    A label is a Bernoulli variable, and labels are taken as independent given the output.

    >>> multi_label_bald(torch.tensor([2]), torch.tensor([[0.5, 1.0]]), torch.tensor([0.0]))
    tensor([0.6931])
    """

    def rows(count: Tensor, mean: Tensor, entropy_sum: Tensor) -> Tensor:
        total = _label_entropy(mean.double())
        expected = entropy_sum / count.where(count > 0, torch.nan)
        return (total - expected).clamp_(min=0).float()

    return _by_rows(rows, count, mean, entropy_sum)


def _label_entropy(mean: Tensor) -> Tensor:
    """The sum over labels of the entropy of each, in nats, of probabilities (rows, labels)."""
    return torch.special.entr(mean).sum(dim=1) + torch.special.entr((1 - mean).clamp_(min=0)).sum(1)


def mean_std(count: Tensor, class_m2: Tensor) -> Tensor:
    """Mean over classes of the standard deviation of p over Monte Carlo dropout passes.

    Kampffmeyer et al., "Semantic Segmentation of Small Objects and Modeling of Uncertainty in Urban
    Remote Sensing Images"; Gal et al., section 4: ``sigma_c = sqrt(E[p_c^2] - E[p_c]^2)``. Needs
    the second moment per class, an N x C array that only this score keeps.

    >>> mean_std(torch.tensor([4]), torch.tensor([[1.0, 4.0]]))
    tensor([0.7500])
    """

    def rows(count: Tensor, class_m2: Tensor) -> Tensor:
        observed = count.where(count > 0, torch.nan)
        return (class_m2 / observed[:, None]).sqrt_().mean(dim=1)

    return _by_rows(rows, count, class_m2)


def entropy(last_entropy: Tensor) -> Tensor:
    """Entropy of the last observed output, in nats: ``H(p) = - sum_c p_c ln p_c`` (Shannon).

    Of sigmoids, the sum of the entropies of the labels.

    >>> entropy(torch.tensor([0.5]))
    tensor([0.5000])
    """
    return last_entropy.clone()


def least_confidence(last_top: Tensor) -> Tensor:
    """``1 - max_c p_c`` of the last observed output; softmax response (SR) ranks alike.

    Lewis and Gale, "A Sequential Algorithm for Training Text Classifiers"; SR as in Geifman and
    El-Yaniv, "Deep Active Learning over the Long Tail". Of sigmoids, that of the label that is
    least sure, ``max_c min(p_c, 1 - p_c)``, at most 0.5: binary minimum of Brinker, "On Active
    Learning in Multi-label Classification".

    >>> least_confidence(torch.tensor([0.75]))
    tensor([0.2500])
    """
    return 1 - last_top


def margin(last_margin: Tensor) -> Tensor:
    """Minus the difference of the two largest p of the last observed output; at most 0.

    Scheffer et al., "Active Hidden Markov Models for Information Extraction". Negated, not
    subtracted from 1, which would round the smallest margins, those that are picked, to one value.
    Of sigmoids, minus the smallest ``|p_c - (1 - p_c)|``, which ranks like `least_confidence`.

    >>> margin(torch.tensor([0.25]))
    tensor([-0.2500])
    """
    return -last_margin


def cod(cycle_discrepancy: Tensor, form: str = "paper") -> Tensor:
    """Cyclic output discrepancy: how far the output moved since the previous cycle.

    Eq. 5 of "Semi-Supervised Active Learning with Temporal Output Discrepancy":
    ``||f(x; w_c) - f(x; w_{c-1})||_2`` of softmax outputs. ``form="tod_code"`` gives what the
    authors' code computes, ``0.5 * sum_c (p_c - q_c)^2``, which ranks alike. NaN in the first
    cycle, unless the initial model was observed before it.

    >>> cod(torch.tensor([0.25])), cod(torch.tensor([0.25]), form="tod_code")
    (tensor([0.5000]), tensor([0.1250]))
    """
    if form not in ("paper", "tod_code"):
        raise ValueError(f"form must be 'paper' or 'tod_code', got {form!r}")
    return cycle_discrepancy.sqrt() if form == "paper" else 0.5 * cycle_discrepancy


def emaod(teacher_discrepancy: Tensor) -> Tensor:
    """Distance of the softmax output to the EMA teacher's: ``||f(x; w) - f(x; EMA of w)||_2``.

    Eq. 1 and 6 of "Semi-Supervised Active Learning with Temporal Output Discrepancy" (its EMAOD).

    >>> emaod(torch.tensor([0.25]))
    tensor([0.5000])
    """
    return teacher_discrepancy.sqrt()


def _by_rows(function: Callable[..., Tensor], *tensors: Tensor, elements: int = 2**16) -> Tensor:
    """Apply ``function`` to slices of the first axis, so that temporaries stay small.

    A slice holds ``elements`` elements of the widest tensor, or one row.
    """
    rows = len(tensors[0])
    columns = max(tensor[:1].numel() for tensor in tensors)
    step = max(1, elements // max(1, columns))
    scores = torch.empty(rows, dtype=torch.float32, device=tensors[0].device)
    for start in range(0, rows, step):
        end = start + step
        scores[start:end] = function(*(tensor[start:end] for tensor in tensors))
    return scores

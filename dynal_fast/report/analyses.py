"""The papers' analyses of what ``--analysis`` recorded: which samples a score ranks high.

Samples of equal score have no order: all results are means over their orders, so that a score with
few distinct values, such as label dispersion, is not judged by the order of ids.
"""

import numpy as np

Array = np.ndarray


def expected_in_order(values: Array, scores: Array) -> Array:
    """Return ``values`` from the highest score to the lowest, float64 ``(samples,)``.

    Values of equal score are each replaced by their mean, the expectation over random orders.

    >>> expected_in_order(np.array([1.0, 0.0, 4.0]), np.array([0.5, 0.5, 0.9]))
    array([4. , 0.5, 0.5])
    """
    _, group, size = np.unique(-scores, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    means = np.bincount(group, weights=values.astype(np.float64)) / size
    return np.repeat(means, size)


def informativeness(correct: Array, scores: Array, portions: Array) -> Array:
    """Return the accuracy of the model on the ``portions`` of the pool with the highest scores.

    Label dispersion, 3.2 and Fig. 3: the lower, the more the model learns from those labels.

    Parameters
    ----------
    correct
        bool ``(pool,)``: the model predicts the label.
    scores
        float ``(pool,)``: higher is queried earlier.
    portions
        float ``(portions,)`` in (0, 1]; at least one sample is queried.

    >>> correct, scores = np.array([True, False, True, False]), np.array([0.1, 0.9, 0.2, 0.3])
    >>> informativeness(correct, scores, np.array([0.5, 1.0]))
    array([0. , 0.5])
    """
    queried = sizes(portions, len(scores))
    return np.cumsum(expected_in_order(correct, scores))[queried - 1] / queried


def loss_by_rank(loss: Array, scores: Array, bins: int = 20) -> Array:
    """Return the mean real loss of each of ``bins`` equal parts of the pool, highest scores first.

    Temporal output discrepancy, 5.1 and Fig. 5: with 20 bins the first is its "0-5%".

    >>> loss_by_rank(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.1, 0.2, 0.4, 0.3]), bins=2)
    array([3.5, 1.5])
    """
    ranked = expected_in_order(loss, scores)
    return np.array([part.mean() for part in np.array_split(ranked, bins)])


def highest_losses_found(loss: Array, scores: Array, portions: Array) -> Array:
    """Return which share of the highest-loss samples are among the highest scores.

    Temporal output discrepancy, 5.1 and Fig. 6: of the ``portions`` of the pool with the highest
    scores, those that are in the equally large part with the highest losses. Random scores find
    the portion itself.

    >>> loss = np.array([4.0, 3.0, 2.0, 1.0])
    >>> highest_losses_found(loss, np.array([9, 1, 8, 2]), np.array([0.5, 1.0]))
    array([0.5, 1. ])
    """
    found = []
    descending = np.sort(loss)[::-1]
    for count in sizes(portions, len(loss)):
        least = descending[count - 1]
        above, at = loss > least, loss == least
        is_highest = above + at * ((count - above.sum()) / at.sum())
        found.append(expected_in_order(is_highest, scores)[:count].sum() / count)
    return np.array(found)


def sizes(portions: Array, samples: int) -> Array:
    """Return the number of samples of each portion, at least one, int64."""
    return np.maximum(1, np.round(np.asarray(portions) * samples)).astype(np.int64)


def most_and_least_stable(trajectories: Array, count: int) -> tuple[Array, Array]:
    """Return the columns that vary least, and most, over the second half of the epochs.

    The two groups of prediction stability's Fig. 1, which leaves the first, underfitted epochs out
    of its variance. Each is in the order of that variance, the extreme one first; among equals the
    lowest column.

    Parameters
    ----------
    trajectories
        float ``(epochs, samples)``.

    >>> stable, unstable = most_and_least_stable(np.array([[0.5, 0.1], [0.5, 0.1], [0.5, 0.9]]), 1)
    >>> stable.tolist(), unstable.tolist()
    ([0], [1])
    """
    variance = trajectories[len(trajectories) // 2 :].astype(np.float64).var(axis=0)
    count = min(count, len(variance) // 2)
    return (
        np.argsort(variance, kind="stable")[:count],
        np.argsort(-variance, kind="stable")[:count],
    )

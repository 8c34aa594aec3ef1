"""The papers' analyses against their definitions, written out sample by sample."""

import itertools

import numpy as np
import pytest

from dynal_fast.report.analyses import (
    expected_in_order,
    highest_losses_found,
    informativeness,
    loss_by_rank,
    most_and_least_stable,
)
from dynal_fast.report.of_rankings import bin_edges

PORTIONS = np.array([0.25, 0.5, 1.0])


def pools(samples=40, distinct=True):
    random = np.random.default_rng(7)
    loss = random.exponential(size=samples).astype(np.float32)
    scores = random.random(samples) if distinct else random.integers(0, 4, samples) / 4
    return loss, scores.astype(np.float32), random.random(samples) < 0.6


def every_order(scores):
    """Yield each order of the samples that a sort by descending score may give."""
    groups = [np.flatnonzero(scores == value) for value in np.unique(scores)[::-1]]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield np.array(list(itertools.chain(*orders)))


def test_without_ties_the_order_is_that_of_the_scores():
    loss, scores, correct = pools()
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    for portion, accuracy in zip(PORTIONS, informativeness(correct, scores, PORTIONS), strict=True):
        queried = order[: round(portion * len(order))]
        assert accuracy == pytest.approx(np.mean([correct[i] for i in queried]))
    by_loss = sorted(range(len(loss)), key=lambda i: -loss[i])
    for portion, found in zip(PORTIONS, highest_losses_found(loss, scores, PORTIONS), strict=True):
        count = round(portion * len(order))
        assert found == pytest.approx(len(set(order[:count]) & set(by_loss[:count])) / count)
    for i, mean in enumerate(loss_by_rank(loss, scores, bins=8)):
        assert mean == pytest.approx(np.mean([loss[j] for j in order[5 * i : 5 * i + 5]]))


def test_with_ties_it_is_the_mean_over_all_orders():
    loss, scores, correct = pools(8, distinct=False)
    assert len(np.unique(scores)) < 8
    orders = list(every_order(scores))
    assert len(orders) > 1
    np.testing.assert_allclose(
        informativeness(correct, scores, PORTIONS),
        np.mean([[correct[o[:k]].mean() for k in (2, 4, 8)] for o in orders], axis=0),
    )
    np.testing.assert_allclose(
        loss_by_rank(loss, scores, bins=4),
        np.mean([loss[o].reshape(4, 2).mean(axis=1) for o in orders], axis=0),
        rtol=1e-6,
    )


def test_of_losses_that_tie_as_many_count_as_fit():
    loss = np.array([3.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    scores = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    # The two highest losses are the first and one of three: each is it a third of the time.
    np.testing.assert_allclose(
        highest_losses_found(loss, scores, np.array([2 / 6, 1.0])), [(1 + 1 / 3) / 2, 1.0]
    )


def test_a_perfect_score_and_a_reversed_one_bound_the_rest():
    loss, _, _ = pools()
    np.testing.assert_allclose(highest_losses_found(loss, loss, PORTIONS), 1)
    np.testing.assert_allclose(highest_losses_found(loss, -loss, PORTIONS), [0, 0, 1])
    assert (np.diff(loss_by_rank(loss, loss)) < 0).all()


def test_the_whole_pool_is_no_choice():
    loss, scores, correct = pools(41, distinct=False)
    assert informativeness(correct, scores, np.array([1.0])) == pytest.approx(correct.mean())
    assert expected_in_order(loss, scores).sum() == pytest.approx(loss.sum(dtype=np.float64))
    assert highest_losses_found(loss, scores, np.array([1.0])) == pytest.approx(1)


def test_the_first_half_of_the_epochs_does_not_count_as_unstable():
    early = [0.0, 1.0, 0.5, 0.5]
    late = [0.5, 0.5, 0.1, 0.9]
    flat = [0.3, 0.3, 0.3, 0.3]
    stable, unstable = most_and_least_stable(np.array([early, late, flat, late]).T, 2)
    assert stable.tolist() == [0, 2]
    assert unstable.tolist() == [1, 3]


def test_few_values_have_a_bin_each():
    few = np.array([0.0, 0.1, 0.1, 0.4])
    assert np.histogram(few, bin_edges(few))[0].tolist() == [1, 2, 1]
    assert np.histogram([2.0, 2.0], bin_edges(np.array([2.0])))[0].tolist() == [2]
    many = np.random.default_rng(0).random(500)
    assert np.histogram(many, bin_edges(many))[0].sum() == 500

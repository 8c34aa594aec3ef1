"""scikit-activeml: query strategies for ``query(X, y, candidates, batch_size, ...)``."""

import warnings
from typing import Any

import numpy as np
import torch
from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
from skactiveml.utils import (
    MISSING_LABEL,
    check_equal_missing_label,
    check_scalar,
    check_type,
    is_labeled,
)
from sklearn import clone

from dynal_fast.integrations.tracked import (
    check_samples,
    check_tracks,
    generator_from,
    scores_of,
)
from dynal_fast.ops import farthest_first as traversals
from dynal_fast.pool import PoolStats
from dynal_fast.strategies.badge import badge, gradient_embeddings

__all__ = ["Badge", "FarthestFirst", "TrackedScore"]


class FarthestFirst(SingleAnnotatorPoolQueryStrategy):
    """Farthest-first traversal (greedy k-center, core-set), in place of ``pool.CoreSet``.

    Each pick is the candidate that is farthest from the labeled samples and the picks before it. If
    nothing is labeled the first pick is drawn from ``random_state``, as ``CoreSet`` draws it. Among
    candidates at exactly the same distance the first is taken, where ``CoreSet`` draws one.

    Parameters
    ----------
    metric : {"euclidean", "cosine"}
        As in `dynal_fast.farthest_first`.
    missing_label : scalar, str, nan or None
        What stands in ``y`` for a label that is not known.
    random_state : int, numpy.random.RandomState or None
        For the first pick where nothing is labeled.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [10.0]])
    >>> y = np.array([0, np.nan, np.nan, np.nan])
    >>> FarthestFirst().query(X, y, batch_size=2)
    array([3, 2])
    """

    def __init__(
        self,
        metric: str = "euclidean",
        missing_label: Any = MISSING_LABEL,
        random_state: Any = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.metric = metric

    def query(
        self,
        X: Any,
        y: Any,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        """Return the samples to label, the farthest first.

        Parameters
        ----------
        X : (n, d) array-like
            Features of the labeled and the unlabeled samples. Floats are read in place.
        y : (n,) array-like
            Labels; ``missing_label`` where there is none.
        candidates : (m,) integers or (m, d) array-like, optional
            Which samples of ``X`` may be picked, or features of samples that may lie outside it; by
            default the unlabeled samples of ``X``. Labeled samples are never picked.
        batch_size : int
            How many to pick. More than there are unlabeled candidates: all of them, and a warning.
        return_utilities : bool
            Return utilities, too, a (batch, n) array that is not made otherwise.

        Returns
        -------
        query_indices : (batch,) integers
            Positions in ``X``, or in ``candidates`` if those are features.
        utilities : (batch, n) or (batch, m) floats, if asked for
            Each candidate's distance to the nearest labeled or earlier picked sample before each
            pick; 0 before the first pick where nothing is labeled. NaN for labeled and picked
            samples and for those that are no candidates.

        Raises
        ------
        ValueError, TypeError
            Of the library for arguments that do not fit, and of `dynal_fast.farthest_first`.
        """
        _check_no_mask(candidates)
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True, check_X_dict={}
        )
        _check_positions(candidates, len(X))
        labeled = is_labeled(y, self.missing_label_)
        if candidates is not None and candidates.ndim > 1:
            selection = traversals.FarthestFirst(candidates, X[labeled], metric=self.metric)
            free = np.ones(len(candidates), dtype=bool)
        else:
            selection = traversals.FarthestFirst(X, labeled, metric=self.metric)
            free = np.full(len(X), candidates is None)
            free[candidates if candidates is not None else []] = True
            free &= ~labeled
            selection.exclude(~free)
        batch_size = _at_most(batch_size, selection.available)
        start = None
        if batch_size and not labeled.any():
            start = int(np.where(free, self.random_state_.random(len(free)), -1).argmax())
        if not return_utilities:
            return selection.pick(batch_size, start=start, progress=False).indices.numpy()
        query_indices = np.empty(batch_size, dtype=np.int64)
        utilities = np.empty((batch_size, len(free)))
        distances = selection.distances()
        for number, (pick, after) in enumerate(selection.steps(batch_size, start=start)):
            utilities[number] = np.where(free, distances, np.nan)
            query_indices[number], free[pick], distances = pick, False, after
        utilities[np.isinf(utilities)] = 0
        return query_indices, utilities


class Badge(SingleAnnotatorPoolQueryStrategy):
    """BADGE (Ash et al. 2020) in place of ``pool.Badge``, without its samples × classes × d array.

    D² sampling over the gradients of the last layer. The first pick is the candidate with the
    largest gradient, as in the authors' code.

    Parameters
    ----------
    clf_embedding_flag_name : str, dict or None
        As of ``pool.Badge``: a flag of ``clf.predict_proba`` for embeddings beside probabilities.
        Without one, and if ``predict_proba`` returns no pair, features are the embeddings.
    missing_label : scalar, str, nan or None
        What stands in ``y`` for a label that is not known.
    random_state : int, numpy.random.RandomState or None
        Seeds the draws.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skactiveml.classifier import SklearnClassifier
    >>> X = np.array([[0.0], [1.0], [4.0], [5.0], [0.5], [2.5], [9.0]])
    >>> y = np.array([0, 0, 1, 1, np.nan, np.nan, np.nan])
    >>> clf = SklearnClassifier(GaussianNB(), classes=[0, 1])
    >>> Badge(random_state=0).query(X, y, clf)
    array([5])
    """

    def __init__(
        self,
        clf_embedding_flag_name: Any = None,
        missing_label: Any = MISSING_LABEL,
        random_state: Any = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.clf_embedding_flag_name = clf_embedding_flag_name

    def query(
        self,
        X: Any,
        y: Any,
        clf: Any,
        fit_clf: bool = True,
        sample_weight: Any = None,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        """Return the samples to label, in pick order.

        Parameters
        ----------
        X, y, candidates, batch_size
            As in `FarthestFirst.query`.
        clf : skactiveml.base.SkactivemlClassifier
            Gives the class probabilities.
        fit_clf : bool
            Fit a clone of ``clf`` on the labeled samples first, with ``sample_weight``.
        return_utilities : bool
            Return utilities, too, a (batch, n) array that is not made otherwise.

        Returns
        -------
        query_indices : (batch,) integers
            Positions in ``X``, or in ``candidates`` if those are features.
        utilities : (batch, n) or (batch, m) floats, if asked for
            The probabilities with which each pick is drawn: 1 at the first. NaN for labeled and
            picked samples and for those that are no candidates.

        Raises
        ------
        ValueError, TypeError
            Of the library for arguments that do not fit, and of `dynal_fast.badge`.
        """
        _check_no_mask(candidates)
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        _check_positions(candidates, len(X))
        check_type(clf, "clf", SkactivemlClassifier)
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        check_scalar(fit_clf, "fit_clf", bool)
        flag = self.clf_embedding_flag_name
        if flag is not None:
            check_type(flag, "clf_embedding_flag_name", dict, str)
        options = {flag: True} if isinstance(flag, str) else flag or {}
        if fit_clf:
            weights = [] if sample_weight is None else [sample_weight]
            clf = clone(clf).fit(X, y, *weights)
        X_cand, mapping = self._transform_candidates(candidates, X, y)
        samples = len(X_cand) if mapping is None else len(X)
        free = np.arange(samples) if mapping is None else np.unique(mapping % samples)
        if mapping is not None:
            free = free[~is_labeled(y, self.missing_label_)[free]]
            X_cand = X[free]
        batch_size = _at_most(batch_size, len(free))
        if not batch_size:
            picks = np.empty(0, dtype=np.int64)
            return (picks, np.empty((0, samples))) if return_utilities else picks
        got = clf.predict_proba(X_cand, **options)
        probabilities, embeddings = got if isinstance(got, tuple) else (got, X_cand)
        probabilities = np.asarray(probabilities)
        generator = generator_from(self.random_state_)
        drawn = badge(embeddings, probabilities, batch_size, generator=generator, progress=False)
        chosen = drawn.indices.numpy()
        if not return_utilities:
            return free[chosen]
        utilities = np.full((batch_size, samples), np.nan)
        utilities[:, free] = _probabilities_of(
            gradient_embeddings(embeddings, probabilities), chosen
        )
        for number, pick in enumerate(free[chosen][:-1], start=1):
            utilities[number:, pick] = np.nan
        return free[chosen], utilities


def _probabilities_of(points: Any, picks: np.ndarray) -> np.ndarray:
    """Return with what probability each pick of D² sampling is drawn, float64 (picks, n)."""
    left = np.asarray(points.left, dtype=np.float64)
    right = np.asarray(points.right, dtype=np.float64)
    norms = (left**2).sum(1) * (right**2).sum(1)
    drawn = np.zeros((len(picks), len(left)))
    drawn[0, picks[0]] = 1
    nearest = np.full(len(left), np.inf)
    for number, last in enumerate(picks[:-1], start=1):
        products = (left @ left[last]) * (right @ right[last])
        nearest = np.minimum(nearest, np.maximum(norms + norms[last] - 2 * products, 0))
        nearest[picks[:number]] = 0
        rates = nearest if nearest.any() else np.ones(len(left))
        rates[picks[:number]] = 0
        drawn[number] = rates / rates.sum()
    return drawn


class TrackedScore(SingleAnnotatorPoolQueryStrategy):
    """The highest scores that a `PoolStats` tracked while the model trained.

    Row i of ``X`` is sample i of the tracker. Ties are broken by ``random_state``.

    Parameters
    ----------
    stats : dynal_fast.PoolStats
        The tracker. Clones of the strategy share it.
    score : str
        One of ``stats.track``.
    missing_label : scalar, str, nan or None
        What stands in ``y`` for a label that is not known.
    random_state : int, numpy.random.RandomState or None
        For ties.

    Examples
    --------
    >>> import numpy as np, torch
    >>> stats = PoolStats(3, 2, track=("margin",))
    >>> with stats.observe(epoch=1, num_epochs=1):
    ...     stats.update([0, 1, 2], torch.tensor([[0.0, 9.0], [0.0, 2.0], [0.0, 1.0]]))
    >>> X, y = np.zeros((3, 5)), np.array([np.nan, np.nan, 1])
    >>> TrackedScore(stats, "margin").query(X, y)
    array([1])
    """

    def __init__(
        self,
        stats: PoolStats,
        score: str,
        missing_label: Any = MISSING_LABEL,
        random_state: Any = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.stats = stats
        self.score = score

    def __sklearn_clone__(self) -> "TrackedScore":
        return type(self)(**self.get_params(deep=False))

    def query(
        self,
        X: Any,
        y: Any,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        """Return the samples to label, the highest score first.

        Parameters
        ----------
        X : (n, ...) array-like
            The data set that ``stats`` tracks. Only its length matters.
        y : (n,) array-like
            Labels; ``missing_label`` where there is none.
        candidates : (m,) integers, optional
            Which samples may be picked; by default the unlabeled ones.
        batch_size, return_utilities
            As in `FarthestFirst.query`.

        Returns
        -------
        query_indices : (batch,) integers
            Positions in ``X``.
        utilities : (batch, n) floats, if asked for
            The scores of the candidates that are not picked yet, NaN elsewhere.

        Raises
        ------
        MappingError
            ``candidates`` are features: the tracker knows samples by their positions.
        ValueError
            ``X`` has other samples than the tracker, the score is not tracked, or a candidate has
            none: the message says why.
        TypeError
            ``stats`` is not a `PoolStats`.
        """
        _check_no_mask(candidates)
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        check_tracks(self.stats, self.score)
        check_samples(self.stats, len(X), "X")
        _check_positions(candidates, len(X))
        _, free = self._transform_candidates(candidates, X, y, enforce_mapping=True)
        free = np.unique(free % len(X))
        batch_size = _at_most(batch_size, len(free))
        generator = generator_from(self.random_state_)
        chosen = self.stats.select(self.score, batch_size, torch.as_tensor(free), generator)
        picks = chosen.cpu().numpy()
        if not return_utilities:
            return picks
        utilities = np.full((batch_size, len(X)), np.nan)
        utilities[:, free] = scores_of(self.stats, self.score, free)
        for number, pick in enumerate(picks[:-1], start=1):
            utilities[number:, pick] = np.nan
        return picks, utilities


def _at_most(batch_size: int, candidates: int) -> int:
    if isinstance(batch_size, bool):  # an int for the library
        raise TypeError(f"batch_size must be an integer, got {batch_size}")
    if batch_size > candidates:
        warnings.warn(
            f"batch_size={batch_size} is larger than the {candidates} candidates that can be "
            f"picked; batch_size={candidates} is taken instead",
            stacklevel=3,
        )
    return min(batch_size, candidates)


def _check_positions(candidates: Any, samples: int) -> None:
    """Raise for positions before the first; the library finds those beyond the last."""
    if candidates is not None and candidates.ndim == 1 and candidates.min() < -samples:
        raise ValueError(
            f"candidates must be positions in X, of {samples} samples, got {candidates.min()}"
        )


def _check_no_mask(candidates: Any) -> None:
    if np.asarray(candidates).dtype.kind == "b":
        raise ValueError(
            "candidates must be positions or features, got a mask: pass np.flatnonzero(candidates)"
        )

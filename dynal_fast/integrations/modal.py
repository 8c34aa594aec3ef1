"""modAL: query strategies ``(classifier, X, n_instances, ...)`` for its learners and committees.

They return indices and metrics. modAL calls a strategy that returns indices alone twice, since it
tries to unpack what it gets.
"""

from typing import Any

import numpy as np
import torch
from modAL.models.base import BaseCommittee

from dynal_fast.integrations.tracked import check_tracks, number, positions, scores_of
from dynal_fast.ops import farthest_first as traversals
from dynal_fast.pool import PoolStats
from dynal_fast.strategies.badge import badge as draw

__all__ = ["TrackedScore", "badge", "farthest_first"]

Picks = tuple[np.ndarray, np.ndarray]


def farthest_first(
    classifier: Any, X: Any, n_instances: int = 1, *, labeled: Any = None, metric: str = "euclidean"
) -> Picks:
    """Pick the samples of ``X`` that are farthest from what the learner was taught, one by one.

    With ``on_transformed=True`` distances are those between the outputs of the learner's pipeline
    before its last step, as in modAL's own strategies.

    Parameters
    ----------
    classifier : ActiveLearner, Committee or another of modAL's models
        Its ``X_training`` are the labeled samples; those of all learners, if it is a committee.
    X : (n, d) numbers
        The unlabeled pool: an array, a DataFrame, a list of rows, or what the pipeline takes.
    n_instances : int
        How many to pick.
    labeled : (m, d) numbers, optional
        Labeled samples to take instead, such as embeddings if ``X`` are embeddings.
    metric : {"euclidean", "cosine"}
        As in `dynal_fast.farthest_first`.

    Returns
    -------
    indices : (n_instances,) integers
        Positions in ``X``, in pick order.
    metrics : (n_instances,) float32
        Each pick's distance to the nearest labeled or earlier picked sample; ``inf`` for the first
        where nothing is labeled.

    Raises
    ------
    ValueError
        ``n_instances`` is negative or more than there are samples, or
        `dynal_fast.farthest_first` refuses an argument.
    TypeError
        ``X`` is sparse, or holds no numbers.

    Examples
    --------
    >>> from modAL.models import ActiveLearner
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> learner = ActiveLearner(KNeighborsClassifier(1), farthest_first, np.zeros((1, 1)), [0])
    >>> X_pool = np.array([[1.0], [9.0], [4.0]])
    >>> learner.query(X_pool, n_instances=2)
    (array([1, 2]), array([[9.],
           [4.]]))
    """
    if labeled is None:
        labeled = _taught(classifier)
        if classifier.on_transformed:
            X = classifier.transform_without_estimating(X)
    X = _dense(X, "X")
    n_instances = number("n_instances", n_instances, len(X), "X")
    traversal = traversals.farthest_first(X, n_instances, labeled, metric=metric)
    return traversal.indices.cpu().numpy(), traversal.distances.cpu().numpy()


def badge(
    classifier: Any,
    X: Any,
    n_instances: int = 1,
    *,
    embeddings: Any = None,
    generator: torch.Generator | None = None,
) -> Picks:
    """Pick samples of ``X`` by BADGE (Ash et al. 2020): D² sampling over gradient embeddings.

    Parameters
    ----------
    classifier : ActiveLearner, Committee or another of modAL's models
        Its ``predict_proba`` gives the class probabilities.
    X : of n samples
        The unlabeled pool.
    n_instances : int
        How many to pick.
    embeddings : (n, d) floats, optional
        The inputs of the classifier's last layer; by default ``X``, with ``on_transformed=True``
        the outputs of the learner's pipeline before its last step.
    generator : torch.Generator, optional
        Draws; torch's global one by default.

    Returns
    -------
    indices : (n_instances,) integers
        Positions in ``X``, in pick order; the first has the largest gradient.
    metrics : (n_instances,) float32
        Each pick's distance to the nearest earlier one, between gradients; ``inf`` for the first.

    Raises
    ------
    ValueError, TypeError
        As `dynal_fast.badge`.

    Examples
    --------
    >>> from modAL.models import ActiveLearner
    >>> from sklearn.naive_bayes import GaussianNB
    >>> X_training = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> learner = ActiveLearner(GaussianNB(), badge, X_training, [0, 0, 1, 1])
    >>> learner.query(np.array([[0.5], [2.5], [9.0]]), n_instances=1)[0]
    array([1])
    """
    probabilities = np.asarray(classifier.predict_proba(X))
    if embeddings is None:
        embeddings = classifier.transform_without_estimating(X) if classifier.on_transformed else X
    embeddings = _dense(embeddings, "X")
    n_instances = number("n_instances", n_instances, len(probabilities), "X")
    drawn = draw(embeddings, probabilities, n_instances, generator=generator, progress=False)
    return drawn.indices.numpy(), drawn.distances.numpy()


class TrackedScore:
    """A query strategy: the highest scores that a `PoolStats` tracked while the model trained.

    Parameters
    ----------
    stats : dynal_fast.PoolStats
        The tracker.
    score : str
        One of ``stats.track``.
    generator : torch.Generator, optional
        For ties; torch's global one by default.

    Raises
    ------
    ValueError, TypeError
        The score is not tracked, or ``stats`` is not a tracker.

    Examples
    --------
    >>> stats = PoolStats(4, 2, track=("margin",))
    >>> with stats.observe(epoch=1, num_epochs=1):
    ...     logits = torch.tensor([[0.0, 9.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    ...     stats.update([0, 1, 2, 3], logits)
    >>> stats.drop([1])  # it was labeled, and X_pool holds the samples 0, 2 and 3
    >>> TrackedScore(stats, "margin")(None, np.zeros((3, 5)), n_instances=1)[0]
    array([1])
    """

    def __init__(
        self, stats: PoolStats, score: str, generator: torch.Generator | None = None
    ) -> None:
        check_tracks(stats, score)
        self.stats = stats
        self.score = score
        self.generator = generator

    def __call__(self, classifier: Any, X: Any, n_instances: int = 1, ids: Any = None) -> Picks:
        """Pick the samples with the highest scores.

        Parameters
        ----------
        classifier
            Not looked at.
        X : of n samples
            The unlabeled pool.
        n_instances : int
            How many to pick.
        ids : (n,) distinct integers or a mask of the tracker's samples, optional
            Which sample of the tracker each sample of ``X`` is; by default those that were not
            dropped, in order.

        Returns
        -------
        indices : (n_instances,) integers
            Positions in ``X``, the highest score first.
        metrics : (n_instances,) float32
            Their scores.

        Raises
        ------
        ValueError
            ``ids`` are not as many as ``X``, ``n_instances`` is more than there are, or a sample
            has no score: the message says why.
        """
        samples = X.shape[0] if hasattr(X, "shape") else len(X)
        if ids is None:
            known = self.stats.remaining().cpu()
        else:
            given = np.asarray(ids)
            given = given.nonzero()[0] if given.dtype == bool else given
            known = torch.from_numpy(positions("ids", given, self.stats.num_samples))
        if known.shape != (samples,):
            whose = "stats has not dropped" if ids is None else "ids names"
            raise ValueError(
                f"X must have the samples that {whose}, {len(known)} of them, got {samples}: "
                "pass ids=, or stats.drop(...) what was labeled"
            )
        n_instances = number("n_instances", n_instances, samples, "X")
        chosen = self.stats.select(self.score, n_instances, known, self.generator).cpu()
        position = torch.empty(self.stats.num_samples, dtype=torch.int64)
        position[known] = torch.arange(samples)
        return position[chosen].numpy(), scores_of(self.stats, self.score, chosen)


def _taught(classifier: Any) -> Any:
    """Return the samples that a learner, or the learners of a committee, were taught, or None."""
    learners = classifier.learner_list if isinstance(classifier, BaseCommittee) else [classifier]
    sets = [learner.X_training for learner in learners if learner.X_training is not None]
    if classifier.on_transformed:
        sets = [classifier.transform_without_estimating(samples) for samples in sets]
    sets = [_dense(samples, "X_training") for samples in sets]
    if len(sets) > 1:
        return np.concatenate([np.asarray(samples) for samples in sets])
    return sets[0] if sets and len(sets[0]) else None


def _dense(samples: Any, name: str) -> Any:
    if hasattr(samples, "toarray"):
        raise TypeError(
            f"{name} must be dense, got {type(samples).__name__}: pass {name}.toarray(), or give "
            "the learner a pipeline that makes dense features, and on_transformed=True"
        )
    return samples

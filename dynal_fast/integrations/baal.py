"""baal: heuristics over a tracker and on embeddings, for ``ActiveLearningLoop``."""

from types import GeneratorType
from typing import Any

import numpy as np
import torch
from baal.active.dataset.pytorch_dataset import ActiveLearningPool
from baal.active.heuristics import EPIG, AbstractHeuristic
from torch.utils.data import Subset

from dynal_fast.integrations.tracked import at_least, check_tracks, scores_of
from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.pool import PoolStats
from dynal_fast.pool.top import top_k
from dynal_fast.strategies.badge import badge

__all__ = ["Badge", "FarthestFirst", "MonteCarlo", "TrackedScore", "pool_ids"]

BYTES_OF_A_PART = 16 << 20  # of the outputs that `MonteCarlo` holds


def pool_ids(pool: Any, **kwargs: Any) -> np.ndarray:
    """Return the positions of a pool's samples in the whole data set, (n,) int64.

    Serves as ``get_probabilities`` of an ``ActiveLearningLoop`` whose heuristic is a
    `TrackedScore` of what was observed while the model trained.

    Parameters
    ----------
    pool
        The ``pool`` of an ``ActiveLearningDataset``, or a ``Subset`` of it.
    kwargs
        Ignored.

    Examples
    --------
    >>> from baal.active.dataset import ActiveLearningDataset
    >>> dataset = ActiveLearningDataset([10, 11, 12, 13])
    >>> dataset.label([1])
    >>> pool_ids(Subset(dataset.pool, [2, 0]))
    array([3, 0])
    """
    ids = np.arange(len(pool))
    while isinstance(pool, (ActiveLearningPool, Subset)):
        if isinstance(pool, Subset):
            ids = np.asarray(pool.indices, dtype=np.int64)[ids]
            pool = pool.dataset
        else:
            pool = pool._dataset
    return ids


class MonteCarlo:
    """Several stochastic passes of a model over the pool, without their (n, C, T) array.

    A ``get_probabilities`` for ``ActiveLearningLoop``. The pool is read once, and each batch goes
    through the model as often as there are iterations, with the same random numbers as in
    ``wrapper.predict_on_dataset``. What comes out is folded into the tracker, part by part of the
    pool, so that ``TrackedScore(stats, "bald")`` stands in place of ``BALD()`` and
    ``"predictive_entropy"`` in place of ``Entropy()``, which averages logits instead of
    probabilities where the model returns logits.

    Parameters
    ----------
    wrapper
        baal's ``ModelWrapper`` or ``BaalTransformersTrainer``, of a model whose dropout is active.
    stats : dynal_fast.PoolStats
        A tracker of the whole data set, on the CPU. It forgets the cycle before at each call.

    Examples
    --------
    >>> import contextlib, io
    >>> from baal.active.dataset import ActiveLearningDataset
    >>> from baal.modelwrapper import ModelWrapper, TrainingArgs
    >>> wrapper = ModelWrapper(torch.nn.Linear(4, 3), TrainingArgs(workers=0))
    >>> dataset = ActiveLearningDataset([(torch.randn(4), 0) for _ in range(6)])
    >>> dataset.label([2])
    >>> stats = PoolStats(6, 3, track=("bald",))
    >>> with contextlib.redirect_stdout(io.StringIO()):  # baal's log
    ...     ids = MonteCarlo(wrapper, stats)(dataset.pool, iterations=2, verbose=False)
    >>> ids
    array([0, 1, 3, 4, 5])
    >>> stats.score("bald")[ids].shape
    torch.Size([5])
    """

    def __init__(self, wrapper: Any, stats: PoolStats) -> None:
        if not isinstance(stats, PoolStats):
            raise TypeError(f"stats must be a PoolStats, got {type(stats).__name__}")
        if stats.activation != "softmax":
            raise ValueError(
                "stats must have activation='softmax', as baal's models tell one class from "
                f"others, got {stats.activation!r}"
            )
        self.wrapper = wrapper
        self.stats = stats

    def __call__(self, pool: Any, iterations: int = 20, **kwargs: Any) -> np.ndarray:
        """Observe the pool ``iterations`` times, and return the ids of its samples.

        Parameters
        ----------
        pool
            The ``pool`` of an ``ActiveLearningDataset``, or a ``Subset`` of it.
        iterations : int
            How many times.
        kwargs
            For the wrapper's ``predict_on_dataset_generator``.

        Raises
        ------
        ValueError
            The model returns something other than (batch, C) logits or probabilities.
        PoolObservationError
            An output is not finite.
        """
        iterations = at_least(1, "iterations", iterations)
        ids, done, part = pool_ids(pool), 0, []
        self.stats.begin_cycle()
        for batch in self.wrapper.predict_on_dataset_generator(pool, iterations, **kwargs):
            part.append(np.asarray(batch))
            if sum(outputs.nbytes for outputs in part) >= BYTES_OF_A_PART:
                done, part = self._fold(ids, done, part), []
        if part:
            self._fold(ids, done, part)
        return ids

    def _fold(self, ids: np.ndarray, done: int, part: list[np.ndarray]) -> int:
        """Observe the outputs of a part of the pool, after ``done`` samples; return the new sum."""
        outputs = np.concatenate(part)  # (samples, classes, iterations)
        if outputs.ndim != 3:
            raise ValueError(
                "the model must return (batch, C) logits or probabilities, got predictions of "
                f"shape {outputs.shape}"
            )
        iterations, end = outputs.shape[2], done + len(outputs)
        for number in range(iterations):
            with self.stats.observe(number + 1, iterations, partial=True):
                self.stats.update(ids[done:end], _logits_of(outputs[:, :, number]))
        return end


class TrackedScore(AbstractHeuristic):
    """Rank the pool by a score that a `PoolStats` holds, the highest first.

    Give the loop `pool_ids` as ``get_probabilities``, or `MonteCarlo` where the score is one of
    dropout passes.

    Parameters
    ----------
    stats : dynal_fast.PoolStats
        The tracker, whose sample i is sample i of the whole data set.
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
    >>> stats = PoolStats(3, 2, track=("entropy",))
    >>> with stats.observe(epoch=1, num_epochs=1):
    ...     stats.update([0, 1, 2], torch.tensor([[0.0, 9.0], [0.0, 2.0], [0.0, 1.0]]))
    >>> ranks, scores = TrackedScore(stats, "entropy").get_ranks([0, 2])
    >>> ranks, scores.round(2)
    (array([1, 0]), array([0.  , 0.58], dtype=float32))
    """

    def __init__(
        self, stats: PoolStats, score: str, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(reverse=True)
        check_tracks(stats, score)
        self.stats = stats
        self.score = score
        self.generator = generator

    def compute_score(self, predictions: Any, target_predictions: Any = None) -> np.ndarray:
        """Return the scores, float32 (n,), of these samples.

        Parameters
        ----------
        predictions : (n,) integers
            Positions in the whole data set, as `pool_ids` gives them.
        target_predictions
            Not looked at.

        Raises
        ------
        ValueError
            Positions are none, or a sample has no score: the message says why.
        """
        ids = np.asarray(predictions)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(
                "TrackedScore needs the ids (n,) of the pool's samples for predictions, got "
                f"{ids.shape} {ids.dtype}: pass pool_ids or MonteCarlo(...) as get_probabilities"
            )
        return scores_of(self.stats, self.score, ids)

    def get_ranks(
        self, predictions: Any, target_predictions: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return positions in ``predictions``, the highest score first, and all scores.

        Tied samples come in random order, so that a pool sorted by class is sampled fairly.

        Parameters
        ----------
        predictions, target_predictions
            As in `compute_score`; or a generator of such parts.
        """
        _, scores = super().get_ranks(predictions, target_predictions)
        ranks = top_k(torch.from_numpy(scores), len(scores), generator=self.generator)
        return ranks.numpy(), scores


class FarthestFirst(EPIG):  # the kind of heuristic that the loop hands the labeled samples to
    """Core-set selection: a farthest-first traversal of the pool's embeddings.

    ``get_probabilities`` is a function that returns the embeddings (n, d) of the data set that it
    is given: the loop calls it with the pool and with the labeled samples, as for ``EPIG``.

    Parameters
    ----------
    num_samples : int
        How many samples are picked: the loop's ``query_size``. A smaller pool is picked whole.
    metric : {"euclidean", "cosine"}
        As in `dynal_fast.farthest_first`.

    Examples
    --------
    >>> pool, labeled = np.array([[1.0], [10.0], [2.0]]), np.array([[0.0]])
    >>> FarthestFirst(num_samples=2).get_ranks(pool, labeled)
    (array([1, 2, 0]), array([ 1., 10.,  2.], dtype=float32))
    """

    def __init__(self, num_samples: int, metric: str = "euclidean") -> None:
        super().__init__(reverse=True)
        self.num_samples = at_least(0, "num_samples", num_samples)
        self.metric = metric

    def compute_score(self, predictions: Any, target_predictions: Any = None) -> np.ndarray:
        """Return the scores of `get_ranks`."""
        return self.get_ranks(predictions, target_predictions)[1]

    def get_ranks(
        self, predictions: Any, target_predictions: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the picks in order, then all others, and the scores.

        Parameters
        ----------
        predictions : (n, d) floats
            Embeddings of the pool; or a generator of such parts. A last axis of one iteration is
            dropped.
        target_predictions : (m, d) floats, optional
            Embeddings of the labeled samples.

        Returns
        -------
        ranks : (n,) integers
            Positions in the pool.
        scores : (n,) float32
            Of a pick, its distance to the nearest labeled or earlier picked sample; the first
            where nothing is labeled has the second's. Of the others the radius of the
            traversal: none is farther.

        Raises
        ------
        ValueError, TypeError
            As `dynal_fast.farthest_first`.
        """
        pool = _matrix(predictions)
        labeled = None if target_predictions is None else _matrix(target_predictions)
        if labeled is not None and not len(labeled):
            labeled = None
        k = min(self.num_samples, len(pool))
        traversal = farthest_first(pool, k, labeled, metric=self.metric)
        picks, distances = traversal.indices.numpy(), traversal.distances.numpy().copy()
        if k and np.isinf(distances[0]):
            distances[0] = distances[1] if k > 1 else traversal.radius
        scores = np.full(len(pool), traversal.radius, dtype=np.float32)
        scores[picks] = distances
        rest = np.ones(len(pool), dtype=bool)
        rest[picks] = False
        return np.concatenate([picks, rest.nonzero()[0]]), scores


class Badge(AbstractHeuristic):
    """BADGE (Ash et al. 2020): D² sampling over gradient embeddings, which are never formed.

    ``get_probabilities`` is a function of the pool that returns a pair: embeddings ``(n, d)``, the
    inputs of the model's last layer, and class probabilities ``(n, C)``.

    Parameters
    ----------
    num_samples : int
        How many samples are picked: the loop's ``query_size``. A smaller pool is picked whole.
    generator : torch.Generator, optional
        Draws; torch's global one by default.

    Examples
    --------
    >>> embeddings, probabilities = np.array([[1.0], [5.0], [2.0]]), np.full((3, 2), 0.5)
    >>> Badge(num_samples=1).get_ranks((embeddings, probabilities))[0]
    array([1, 0, 2])
    """

    def __init__(self, num_samples: int, generator: torch.Generator | None = None) -> None:
        super().__init__(reverse=True)
        self.num_samples = at_least(0, "num_samples", num_samples)
        self.generator = generator

    def compute_score(self, predictions: Any, target_predictions: Any = None) -> np.ndarray:
        """Return the scores of `get_ranks`."""
        return self.get_ranks(predictions)[1]

    def get_ranks(
        self, predictions: Any, target_predictions: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the picks in order, then all others, and the scores.

        Parameters
        ----------
        predictions : pair of (n, d) and (n, C) floats
            Embeddings and class probabilities of the pool.
        target_predictions
            Not looked at.

        Returns
        -------
        ranks : (n,) integers
            Positions in the pool.
        scores : (n,) float32
            1 for the picks, 0 for the others.

        Raises
        ------
        ValueError, TypeError
            As `dynal_fast.badge`.
        """
        if not isinstance(predictions, (tuple, list)) or len(predictions) != 2:
            raise ValueError(
                "predictions must be a pair, embeddings (n, d) and probabilities (n, C), got "
                f"{type(predictions).__name__}"
            )
        embeddings, probabilities = map(_matrix, predictions)
        k = min(self.num_samples, len(embeddings))
        drawn = badge(embeddings, probabilities, k, generator=self.generator, progress=False)
        picks = drawn.indices.numpy()
        scores = np.zeros(len(embeddings), dtype=np.float32)
        scores[picks] = 1
        return np.concatenate([picks, (scores == 0).nonzero()[0]]), scores


def _logits_of(outputs: np.ndarray) -> np.ndarray:
    """Return the logits (n, C) of one iteration, log p where the model gives probabilities."""
    bounded = outputs.size and outputs.min() >= 0 and outputs.max() <= 1
    near = 1e-2 if outputs.dtype == np.float16 else 1e-5  # of a sum of rounded numbers
    if bounded and np.allclose(outputs.sum(axis=1, dtype=np.float64), 1, atol=near):
        # So baal, too, tells probabilities from logits.
        outputs = outputs.astype(np.float32)
        outputs = np.log(np.maximum(outputs, np.finfo(outputs.dtype).tiny))
    return np.ascontiguousarray(outputs)


def _matrix(embeddings: Any) -> Any:
    if isinstance(embeddings, GeneratorType):
        embeddings = np.concatenate([np.asarray(part) for part in embeddings])
    if not isinstance(embeddings, (np.ndarray, torch.Tensor)):
        embeddings = np.asarray(embeddings)
    return embeddings[..., 0] if embeddings.ndim == 3 and embeddings.shape[2] == 1 else embeddings

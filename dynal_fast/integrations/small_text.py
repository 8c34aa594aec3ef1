"""small-text: query strategies that return indices into the data set."""

from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import normalize as unit_length
from small_text.query_strategies import EmbeddingBasedQueryStrategy, QueryStrategy

from dynal_fast.integrations.tracked import (
    at_least,
    check_samples,
    check_tracks,
    positions,
)
from dynal_fast.ops import farthest_first as traversals
from dynal_fast.pool import PoolStats
from dynal_fast.strategies.badge import badge

__all__ = ["Badge", "FarthestFirst", "TrackedScore"]

DISTANCE_METRICS = ("cosine", "euclidean")


class OfEmbeddings(EmbeddingBasedQueryStrategy):
    """A strategy on embeddings, whose rows are those of the data set."""

    def query(
        self,
        clf: Any,
        dataset: Any,
        indices_unlabeled: Any,
        indices_labeled: Any,
        y: Any,
        n: int = 10,
        pbar: str | None = "tqdm",
        embeddings: Any = None,
        embed_kwargs: Any = None,
    ) -> np.ndarray:
        """Return the ``n`` samples to label, in pick order.

        Parameters
        ----------
        clf
            The classifier, whose ``embed`` is called where no embeddings are given.
        dataset
            The data set.
        indices_unlabeled, indices_labeled : (u,) and (m,) integers
            Positions in ``dataset``. None of them may be labeled yet.
        y
            Labels, single or multi-label, which do not matter here.
        n : int
            How many to pick.
        pbar, embed_kwargs
            For ``clf.embed``.
        embeddings : (len(dataset), d) floats, optional
            One row for each sample of ``dataset``, in its order. If some samples of it are neither
            unlabeled nor labeled there may be (u + m, d) instead, unlabeled ones first.

        Returns
        -------
        (n,) integers
            Positions in ``dataset``, in pick order; all of ``indices_unlabeled`` as they are if
            ``n`` is their number.

        Raises
        ------
        EmptyPoolException, PoolExhaustedException
            There are no unlabeled samples, or fewer than ``n``.
        ValueError
            ``embeddings`` have another number of rows, or the selection refuses them; indices are
            a mask, lie outside ``dataset``, or repeat.
        TypeError
            ``embeddings`` are sparse, or not given where ``clf`` has no ``embed``.

        Notes
        -----
        small-text 1.4 takes row i of given embeddings for the i-th of the unlabeled samples,
        followed by the labeled ones, even where each sample of the data set has a row. It then
        measures the wrong samples, unless the unlabeled ones come first there.
        """
        n = at_least(0, "n", n)
        self._validate_query_input(indices_unlabeled, n)
        samples = _length(dataset)
        unlabeled = positions("indices_unlabeled", indices_unlabeled, samples)
        labeled = positions("indices_labeled", indices_labeled, samples)
        used = len(unlabeled) + len(labeled)
        if len(np.union1d(unlabeled, labeled)) < used:
            raise ValueError(
                "indices_unlabeled and indices_labeled must have each sample once, got "
                f"{used - len(np.union1d(unlabeled, labeled))} repeatedly"
            )
        if embeddings is None and getattr(dataset, "ndim", 0) == 2:
            embeddings = dataset  # the representation of PoolBasedActiveLearner.query
        if embeddings is None and not hasattr(clf, "embed"):
            raise TypeError(
                f"embeddings must be given, as clf, a {type(clf).__name__}, has no method embed"
            )
        if embeddings is not None:
            embeddings = _checked(embeddings)
        if embeddings is None or len(unlabeled) == n:
            options = {"pbar": pbar, "embed_kwargs": embed_kwargs or {}}
            picks: np.ndarray = super().query(
                clf, dataset, unlabeled, labeled, y, n=n, embeddings=embeddings, **options
            )
            return picks
        if len(embeddings) == samples:
            return self.sample(clf, dataset, unlabeled, labeled, y, n, embeddings)
        if len(embeddings) == used:
            rows = np.arange(used)
            parts = rows[: len(unlabeled)], rows[len(unlabeled) :]
            used_samples = dataset[np.concatenate([unlabeled, labeled])]
            return unlabeled[self.sample(clf, used_samples, *parts, y, n, embeddings)]
        raise ValueError(
            f"embeddings must have a row for each of the {samples} samples of the data set, "
            f"or for each of the {used} unlabeled and labeled ones, got {len(embeddings)}"
        )


class FarthestFirst(OfEmbeddings):
    """Farthest-first traversal (greedy k-center), in place of ``GreedyCoreset``.

    Each pick is the unlabeled sample that is farthest from the labeled ones and the picks before
    it; among equals, and where nothing is labeled, the first in the data set.

    Parameters
    ----------
    distance_metric : {"euclidean", "cosine"}
        As in `dynal_fast.farthest_first`.
    normalize : bool
        Scale a copy of the embeddings to length 1 first, as ``GreedyCoreset`` does. Cosine
        distances need none.

    Raises
    ------
    ValueError
        The metric is none of the two.

    Examples
    --------
    >>> import numpy as np
    >>> embeddings = np.array([[0.0], [10.0], [2.0], [1.0]])
    >>> strategy = FarthestFirst(normalize=False)
    >>> unlabeled, labeled = np.array([1, 2, 3]), np.array([0])
    >>> strategy.query(None, embeddings, unlabeled, labeled, [0], n=2, embeddings=embeddings)
    array([1, 2])
    """

    def __init__(self, distance_metric: str = "euclidean", normalize: bool = True) -> None:
        if distance_metric not in DISTANCE_METRICS:
            raise ValueError(
                f"Invalid distance metric: {distance_metric}. Possible values: {DISTANCE_METRICS}"
            )
        self.distance_metric = distance_metric
        self.normalize = normalize

    def sample(
        self,
        clf: Any,
        dataset: Any,
        indices_unlabeled: Any,
        indices_labeled: Any,
        y: Any,
        n: int,
        embeddings: Any,
        embeddings_proba: Any = None,
    ) -> np.ndarray:
        """Return the ``n`` rows of ``embeddings`` to label, of those in ``indices_unlabeled``."""
        if self.normalize and self.distance_metric == "euclidean":
            embeddings = unit_length(embeddings)
        selection = traversals.FarthestFirst(
            embeddings, indices_labeled, metric=self.distance_metric
        )
        others = np.ones(len(embeddings), dtype=bool)
        others[indices_unlabeled] = False
        selection.exclude(others)
        picks: np.ndarray = selection.pick(n).indices.cpu().numpy()
        return picks

    def __str__(self) -> str:
        return f"FarthestFirst(distance_metric={self.distance_metric}, normalize={self.normalize})"


class Badge(OfEmbeddings):
    """BADGE (Ash et al. 2020): D² sampling over gradient embeddings, which are never formed.

    Class probabilities come from ``clf.embed`` with the embeddings, or from ``clf.predict_proba``.
    The first pick has the largest gradient.

    Parameters
    ----------
    generator : torch.Generator, optional
        Draws; torch's global one by default.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> texts = np.array(["a", "b", "c"])
    >>> clf = SimpleNamespace(predict_proba=lambda texts: np.full((len(texts), 2), 0.5))
    >>> unlabeled, labeled, embeddings = np.array([0, 2]), np.array([1]), np.eye(3)[[0, 1, 1]] * 2
    >>> embeddings[2] *= 3
    >>> Badge().query(clf, texts, unlabeled, labeled, [0], n=1, embeddings=embeddings)
    array([2])
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def sample(
        self,
        clf: Any,
        dataset: Any,
        indices_unlabeled: Any,
        indices_labeled: Any,
        y: Any,
        n: int,
        embeddings: Any,
        embeddings_proba: Any = None,
    ) -> np.ndarray:
        """Return the ``n`` rows of ``embeddings`` to label, of those in ``indices_unlabeled``."""
        if embeddings_proba is None:
            probabilities = clf.predict_proba(dataset[indices_unlabeled])
        else:
            probabilities = np.asarray(embeddings_proba)[indices_unlabeled]
        rows = np.asarray(embeddings)[indices_unlabeled]
        picks = badge(rows, probabilities, n, generator=self.generator, progress=False)
        chosen: np.ndarray = np.asarray(indices_unlabeled)[picks.indices.numpy()]
        return chosen

    def __str__(self) -> str:
        return "Badge()"


class TrackedScore(QueryStrategy):
    """The highest scores that a `PoolStats` tracked while the model trained.

    Parameters
    ----------
    stats : dynal_fast.PoolStats
        The tracker, whose sample i is sample i of the data set.
    score : str
        One of ``stats.track``.
    generator : torch.Generator, optional
        For ties; torch's global one by default.

    Attributes
    ----------
    scores_ : (len(dataset),) float32, or None
        The scores at the last query.

    Raises
    ------
    ValueError, TypeError
        The score is not tracked, or ``stats`` is not a tracker.

    Examples
    --------
    >>> import numpy as np, torch
    >>> stats = PoolStats(3, 2, track=("margin",))
    >>> with stats.observe(epoch=1, num_epochs=1):
    ...     stats.update([0, 1, 2], torch.tensor([[0.0, 9.0], [0.0, 2.0], [0.0, 1.0]]))
    >>> dataset, unlabeled, labeled = ["a", "b", "c"], np.array([0, 1]), np.array([2])
    >>> TrackedScore(stats, "margin").query(None, dataset, unlabeled, labeled, [0], n=1)
    array([1])
    """

    def __init__(
        self, stats: PoolStats, score: str, generator: torch.Generator | None = None
    ) -> None:
        check_tracks(stats, score)
        self.stats = stats
        self.score = score
        self.generator = generator
        self.scores_: np.ndarray | None = None

    def query(
        self,
        clf: Any,
        dataset: Any,
        indices_unlabeled: Any,
        indices_labeled: Any,
        y: Any,
        n: int = 10,
    ) -> np.ndarray:
        """Return the ``n`` samples to label, the highest score first.

        Parameters
        ----------
        clf, indices_labeled, y
            Not looked at.
        dataset
            As many samples as the tracker has.
        indices_unlabeled : (u,) integers
            Positions in ``dataset``.
        n : int
            How many to pick.

        Returns
        -------
        (n,) integers
            Positions in ``dataset``.

        Raises
        ------
        EmptyPoolException, PoolExhaustedException
            There are no unlabeled samples, or fewer than ``n``.
        ValueError
            ``dataset`` has other samples than the tracker (``SubsamplingQueryStrategy`` gives a
            part of it), or an unlabeled sample has no score: the message says why. Indices are a
            mask.
        """
        n = at_least(0, "n", n)
        self._validate_query_input(indices_unlabeled, n)
        samples = _length(dataset)
        check_samples(self.stats, samples, "dataset")
        unlabeled = positions("indices_unlabeled", indices_unlabeled, samples)
        candidates = torch.from_numpy(unlabeled)
        chosen = self.stats.select(self.score, n, candidates, self.generator)
        self.scores_ = self.stats.score(self.score).cpu().numpy()
        picks: np.ndarray = chosen.cpu().numpy()
        return picks

    def __str__(self) -> str:
        return f"TrackedScore(score={self.score})"


def _length(dataset: Any) -> int:
    """Return the number of samples, also of a sparse matrix, which has no ``len``."""
    shape = getattr(dataset, "shape", None)
    return int(shape[0]) if shape else len(dataset)


def _checked(embeddings: Any) -> Any:
    """Return embeddings on the CPU, in a dtype that NumPy knows."""
    if hasattr(embeddings, "toarray"):
        raise TypeError(
            f"embeddings must be dense, got {type(embeddings).__name__}: pass "
            "embeddings.toarray(), or fewer dimensions, such as those of TruncatedSVD"
        )
    if isinstance(embeddings, torch.Tensor):
        embeddings = embeddings.detach().cpu()
        if embeddings.dtype == torch.bfloat16:
            embeddings = embeddings.float()
    if np.ndim(embeddings) != 2:
        raise ValueError(
            f"embeddings must have shape (samples, dimensions), got {np.shape(embeddings)}"
        )
    return embeddings

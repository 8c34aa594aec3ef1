"""The cases: one traversal, or the statistics of some epochs, and which inputs they take."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dynal_fast.bench import inputs

# What every method computes: two statistics over epochs, and the uncertainty in the last epoch.
TRACK = ("prediction_stability", "label_dispersion", "entropy", "least_confidence", "margin")


@dataclass(frozen=True)
class TraversalCase:
    """Pick ``k`` of ``n`` embeddings of ``d`` dimensions; ``labeled`` more are labeled already.

    ``inputs`` names the generator in ``inputs.EMBEDDINGS``, or is the path of a ``.npy`` file.
    """

    inputs: str
    n: int
    d: int
    k: int
    labeled: int = 0
    labeled_file: str = ""

    operation = "farthest-first"

    def title(self) -> str:
        """The case in words.

        >>> TraversalCase("gaussian", 150_000, 512, 4_000, labeled=25_000).title()
        'farthest-first, gaussian: 4,000 of 150,000 × 512, 25,000 labeled'
        """
        start = f", {self.labeled:,} labeled" if self.labeled else ", none labeled"
        return f"farthest-first, {self.inputs}: {self.k:,} of {self.n:,} × {self.d:,}{start}"

    def load(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The pool (n, d) and the labeled embeddings (labeled, d), float32."""
        if self.inputs in inputs.EMBEDDINGS:
            make = inputs.EMBEDDINGS[self.inputs]
            if self.inputs == "digits":
                every = torch.from_numpy(make(self.n + self.labeled, self.d, 0))
                return every[: self.n], every[self.n :] if self.labeled else None
            pool = torch.from_numpy(make(self.n, self.d, 0))
            labeled = torch.from_numpy(make(self.labeled, self.d, 1)) if self.labeled else None
            return pool, labeled
        pool = _load_rows(self.inputs)
        return pool, _load_rows(self.labeled_file) if self.labeled_file else None


def _load_rows(path: str) -> torch.Tensor:
    """The array of a file in row-major order, whatever order it was saved in."""
    return torch.from_numpy(np.ascontiguousarray(np.load(path, allow_pickle=False)))


@dataclass(frozen=True)
class StatisticsCase:
    """Observe ``n`` samples over ``classes`` in each of ``epochs`` epochs, then score them.

    What is tracked and scored is ``TRACK``; a pass observes ``batch`` samples at a time.
    """

    n: int
    classes: int
    epochs: int
    batch: int = 8192

    operation = "pool statistics"
    inputs = "logits"

    def title(self) -> str:
        """The case in words.

        >>> StatisticsCase(150_000, 100, 20).title()
        'pool statistics: 150,000 samples × 100 classes, 20 epochs'
        """
        return (
            f"pool statistics: {self.n:,} samples × {self.classes:,} classes, {self.epochs} epochs"
        )

    def load(self) -> torch.Tensor:
        """Logits (n + 7 epochs, classes) float32, of which ``epoch_logits`` cuts an epoch's."""
        return torch.from_numpy(inputs.logits(self.n + 7 * self.epochs, self.classes))

    def epoch_logits(self, base: torch.Tensor, epoch: int) -> torch.Tensor:
        """The logits (n, classes) of an epoch, from 1: a view of ``base`` that shifts by 7 rows."""
        first = 7 * (epoch - 1)
        return base[first : first + self.n]

    def moved_bytes(self) -> int:
        """The bytes that a pass must read and write to track ``TRACK`` in float32.

        For each sample: its id and logits are read; its mean and one label count are read and
        written; of its scalars, the stamp, count and M2 are read and written, three more written.

        >>> StatisticsCase(150_000, 100, 20).moved_bytes() / 150_000
        1246.0
        """
        scalars = 2 * 4 + 2 * 4 + 2 * 4 + 3 * 4
        return self.n * (8 + 4 * self.classes + 8 * self.classes + 2 + scalars)


@dataclass(frozen=True)
class GradientCase:
    """Pick ``k`` of ``n`` samples by BADGE, from ``d`` features and ``classes`` probabilities."""

    n: int
    classes: int
    d: int
    k: int

    operation = "badge"
    inputs = "clustered"
    labeled = 0  # they do not count

    def title(self) -> str:
        """The case in words.

        >>> GradientCase(20_000, 100, 768, 1_000).title()
        'badge: 1,000 of 20,000, 100 classes × 768 features'
        """
        return f"badge: {self.k:,} of {self.n:,}, {self.classes:,} classes × {self.d:,} features"

    def load(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (n, d) and probabilities (n, classes), float32."""
        features = torch.from_numpy(inputs.clustered(self.n, self.d))
        return features, torch.from_numpy(inputs.logits(self.n, self.classes)).softmax(1)


Case = TraversalCase | StatisticsCase | GradientCase
KINDS: dict[str, type] = {
    kind.operation: kind for kind in (TraversalCase, StatisticsCase, GradientCase)
}


def as_record(case: Case) -> dict[str, Any]:
    """The case as JSON holds it."""
    return {"operation": case.operation, **asdict(case)}


def from_record(record: dict[str, Any]) -> Case:
    """The case that ``as_record`` wrote.

    >>> case = StatisticsCase(10, 3, 2)
    >>> from_record(as_record(case)) == case
    True
    """
    fields = dict(record)
    return KINDS[fields.pop("operation")](**fields)

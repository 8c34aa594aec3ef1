"""The results of cycles, of runs, and of a grid of runs, as values."""

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynal_fast._version import __version__
from dynal_fast.measured import Measurement
from dynal_fast.plain import Count, NotNegative, Positive, Share, check_fields

REFERENCE = "all_data"


@dataclass(frozen=True)
class CycleResult:
    """One training and the selection after it. ``selected`` is empty after the last training.

    With an inflated pool ``labeled`` counts entries, as the long-tail paper does,
    ``distinct_labels`` the labels that the oracle gave, and ``selected`` names the originals.
    ``report`` is what the strategy said about its selection, such as a bound that it reached.
    ``by_class`` is the accuracy on each class of the test set, None where it has no such sample.
    ``accuracy`` is None without a test set. ``steps`` is how many optimizer steps the training
    took, None in results of earlier versions. ``accelerated`` is what the passes over the pool
    used, ``off``, ``fold`` or ``compile``; None without passes and in earlier versions.

    Raises
    ------
    ValueError
        A value is not finite, or out of range; the message names it.
    """

    cycle: Count
    labeled: Positive
    accuracy: Share | None
    train_loss: NotNegative
    selected: list[Count]
    distinct_labels: Positive | None = None
    report: dict[str, Any] = field(default_factory=dict)
    by_class: list[Share | None] = field(default_factory=list)
    steps: Positive | None = None
    accelerated: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class CycleTiming:
    """What one cycle took; ``selection`` is None after the last training."""

    cycle: Count
    train_seconds: NotNegative
    observe_seconds: NotNegative
    selection: Measurement | None = None


@dataclass(frozen=True)
class Request:
    """Samples whose labels a person is asked for, in the order in which they were picked.

    ``cycle`` is that of the training which waits for them. ``scores`` is what the strategy ranked
    by, empty if by nothing; ``predicted`` and ``probabilities`` are the model's class and its
    softmax output, empty before the first training. ``missing`` are the samples, maybe of earlier
    cycles, whose labels are not there yet.
    """

    cycle: Count
    ids: list[Count]
    scores: list[float] = field(default_factory=list)
    predicted: list[Count] = field(default_factory=list)
    probabilities: list[Share] = field(default_factory=list)
    missing: list[Count] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("scores", "predicted", "probabilities"):
            values = getattr(self, name)
            if values and len(values) != len(self.ids):
                raise ValueError(f"{name} must be {len(self.ids)} values, got {len(values)}")


@dataclass(frozen=True)
class RunResult:
    """One strategy with one seed; ``request`` is what it waits for, if its oracle is a person."""

    strategy: str
    seed: int
    initial: list[Count]
    cycles: list[CycleResult]
    timings: list[CycleTiming] = field(default_factory=list, compare=False)
    request: Request | None = field(default=None, compare=False)

    @property
    def labeled(self) -> list[int]:
        """The number of labeled samples at each training."""
        return [cycle.labeled for cycle in self.cycles]

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy after each training, in [0, 1]; empty without a test set."""
        return [cycle.accuracy for cycle in self.cycles if cycle.accuracy is not None]


@dataclass(frozen=True)
class Grid:
    """All runs of a grid. ``configuration`` is that of :class:`RunConfig`.

    ``environment`` is where the timings were measured, by default here; ``metric`` says what is
    called accuracy elsewhere: for segmentation ``"mean IoU"``. ``samples`` is the number of
    training samples of the data set, ``test_samples`` that of test samples, ``chance`` the accuracy
    of naming the test set's most frequent class always, and ``class_names`` what the classes are
    called, where they are known. Without a test set ``test_samples`` is 0.
    """

    configuration: dict[str, Any]
    runs: list[RunResult]
    environment: dict[str, Any] = field(default_factory=lambda: environment(), compare=False)
    metric: str = "accuracy"
    samples: Positive | None = None
    test_samples: Count | None = None
    chance: Share | None = None
    class_names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.metric.strip():
            raise ValueError(f"metric must be a name, got {self.metric!r}")

    @property
    def asked(self) -> bool:
        """Whether a person is the oracle, so that the labels of the pool are not known."""
        return self.configuration.get("oracle") == "ask"

    @property
    def evaluated(self) -> bool:
        """Whether there was a test set, and so an accuracy after each training."""
        return self.test_samples != 0

    def strategies(self) -> list[str]:
        """The strategies in the order they ran, without the reference."""
        return [name for name in dict.fromkeys(r.strategy for r in self.runs) if name != REFERENCE]

    @property
    def segments(self) -> bool:
        """Whether the labels are maps of pixels."""
        return self.metric == "mean IoU"

    def of(self, strategy: str) -> list[RunResult]:
        """The runs of one strategy."""
        return [run for run in self.runs if run.strategy == strategy]

    def reference_accuracies(self) -> list[float]:
        """The test accuracies of training on all labels, one for each seed; maybe none.

        The first training of a compression of the whole training set is such a one.
        """
        whole = [run.accuracies[-1] for run in self.of(REFERENCE)]
        if whole or not self.compresses:
            return whole
        firsts = {run.seed: run for run in self.runs if len(run.initial) == self.samples}
        return [firsts[seed].accuracies[0] for seed in sorted(firsts)]

    @property
    def compresses(self) -> bool:
        """Whether the runs leave labeled samples out instead of labeling more."""
        return bool(self.configuration.get("protocol", {}).get("compress"))


def environment() -> dict[str, Any]:
    """Return the versions and the machine that timings belong to."""
    import torch

    return {
        "dynal_fast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

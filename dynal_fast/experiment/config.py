"""The configuration of runs: protocol, training, and the grid of strategies and seeds.

Nothing here imports torch, so that the command line can show its options at once.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from dynal_fast.experiment.tables import merge_tables
from dynal_fast.plain import (
    Between,
    Count,
    NotNegative,
    Positive,
    build,
    check_fields,
    checked,
    shown,
    table,
)
from dynal_fast.threads import most_threads

Schedule = str | dict[str, Any]
ASKED_ABOUT = ("image-folder", "texts")
# What `from_mapping` takes for granted with these values of `oracle` and `data`.
DEFAULTS_WITH: dict[str, dict[str, Any]] = {
    "ask": {"strategies": ["margin"], "seeds": [0], "reference": False},
    "texts": {"model": "linear", "training": {"learning_rate": 1e-2}},
}


def option(default: Any, text: str) -> Any:
    """Return a dataclass field that carries its own help text."""
    factory = {"default_factory": lambda: type(default)(default)}
    mutable = isinstance(default, list | dict)
    return field(metadata={"help": text}, **(factory if mutable else {"default": default}))


def _require(condition: bool, name: str, expected: str, received: object) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {shown(received)}")


@dataclass(frozen=True)
class Protocol:
    """How many labels there are at first, how many each cycle adds, and for how long.

    Raises
    ------
    ValueError
        A count is out of range or a name is unknown; the message names the argument.

    >>> Protocol(initial=20, budget=10, cycles=3).labeled_counts()
    [20, 30, 40, 50]
    """

    initial: Positive = option(40, "labeled samples before the first training")
    balanced: bool = option(False, "draw the initial set with equal numbers of every class")
    budget: Positive = option(20, "samples labeled in each cycle")
    cycles: Annotated[int, Between(0, 100_000)] = option(
        5, "acquisitions; there is one more training than acquisitions"
    )
    retrain: Literal["scratch", "continue"] = option(
        "scratch", "each training starts from the initial weights, or from the last cycle's"
    )
    pool_flips: bool = option(False, "double the pool by mirror images (long-tail paper, 4.2)")
    pool_factor: float = option(
        1.0, "make the pool so many times as large by sampling it with replacement (4.4: 3)"
    )

    subset: Count = option(
        0, "candidates of each cycle: so many random unlabeled samples; 0 means all"
    )
    error_reduction: float = option(
        0.0, "stop once the test error fell by this much since the first training; 0 never stops"
    )
    compress: list[float] = option(
        [],
        "keep these shares of the initial set, which is then compressed instead of added to: there "
        "is no unlabeled pool, and budget and cycles do not count (long-tail paper, section 2)",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        _require(
            0 < self.pool_factor <= 1000,
            "pool_factor",
            "positive and at most 1000",
            self.pool_factor,
        )
        _require(
            self.subset == 0 or self.subset >= self.budget,
            "subset",
            f"0 or at least the budget of {self.budget}",
            self.subset,
        )
        _require(
            0 <= self.error_reduction < 1, "error_reduction", "in [0, 1)", self.error_reduction
        )
        _require(
            all(0 < share < 1 for share in self.compress),
            "compress",
            "shares above 0 and below 1",
            self.compress,
        )
        if self.compress:
            for name in ("retrain", "pool_flips", "pool_factor", "subset", "error_reduction"):
                default = self.__dataclass_fields__[name].default
                given = getattr(self, name)
                _require(given == default, name, f"{default!r} with compress", given)

    @property
    def selections(self) -> int:
        """How often a strategy selects; there is one more training."""
        return len(self.compress) or self.cycles

    @property
    def inflates(self) -> bool:
        """Whether the pool has other entries than the samples, once each."""
        return self.pool_flips or self.pool_factor != 1

    def entries(self, samples: int) -> int:
        """Return how many entries the initial set and the pool of so many samples have.

        >>> Protocol(initial=25_000, pool_flips=True, pool_factor=3).entries(50_000)
        175000
        """
        pool = max(samples - self.initial, 0) * (2 if self.pool_flips else 1)
        return min(self.initial, samples) + round(self.pool_factor * pool)

    def labeled_counts(self) -> list[int]:
        """Return the size of the labeled set at each training, of a compression at most.

        >>> Protocol(initial=50_000, compress=[0.64, 0.5]).labeled_counts()
        [50000, 32000, 25000]
        """
        if self.compress:
            return [self.initial, *(round(share * self.initial) for share in self.compress)]
        return [self.initial + self.budget * cycle for cycle in range(self.cycles + 1)]


@dataclass(frozen=True)
class Training:
    """How the model is trained in every cycle; the optimizer starts anew each time.

    The learning rate is multiplied by ``gamma`` after each epoch named in ``milestones`` (epochs
    count from 1), as in label dispersion 4.1: ``epochs=100, milestones=[60, 80], gamma=0.2``.
    ``crop_padding=4, horizontal_flip=True`` is its augmentation; ``unsupervised="ema"`` the
    semi-supervised objective of temporal output discrepancy 4.3.
    """

    epochs: Positive = option(30, "epochs of every training")
    batch_size: Positive = option(32, "labeled samples in a step, at most")
    optimizer: Literal["sgd", "adam"] = option("adam", "the optimizer")
    learning_rate: float = option(2e-3, "the learning rate at the start of every training")
    momentum: float = option(0.9, "momentum of sgd")
    weight_decay: NotNegative = option(0.0, "weight decay")
    milestones: list[int] = option([], "epochs after which the rate drops")
    gamma: float = option(0.1, "factor of each drop")
    crop_padding: Annotated[int, Between(0, 10_000)] = option(
        0, "crop images at random after padding them by so many pixels"
    )
    horizontal_flip: bool = option(False, "mirror images at random")
    unsupervised: Literal["none", "ema", "cyclic", "tod-code", "pseudo-labels"] = option(
        "none",
        "train with unlabeled batches beside labeled ones, on this output discrepancy or on the "
        "labels that the last cycle's model is confident of",
    )
    unsupervised_weight: NotNegative = option(
        0.05, "lambda of eq. 9, the unsupervised loss's weight"
    )
    confidence: float = option(0.95, "lowest softmax output of a pseudo-label")
    ema_alpha: float = option(0.999, "decay of the averaged weights of ema and tod-code")

    def __post_init__(self) -> None:
        check_fields(self)
        _require(self.learning_rate > 0, "learning_rate", "positive", self.learning_rate)
        _require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        _require(
            all(milestone >= 1 for milestone in self.milestones),
            "milestones",
            "epochs, which count from 1",
            self.milestones,
        )
        _require(self.gamma > 0, "gamma", "positive", self.gamma)
        _require(0 < self.confidence <= 1, "confidence", "above 0, at most 1", self.confidence)
        _require(0 <= self.ema_alpha <= 1, "ema_alpha", "in [0, 1]", self.ema_alpha)


@dataclass(frozen=True)
class RunConfig:
    """A grid of strategies and seeds on one data set: what ``dynal-fast run`` does.

    ``schedules`` says in which epochs a statistic observes the pool: ``"every"``, ``"final"``,
    ``{last = 5, interval = 5}`` (eq. 4 of prediction stability) or ``{epochs = [10, 20, 30]}``.
    ``options`` sets numbers of a strategy: ``{coreset = {time_limit = 600}}``.

    >>> config = RunConfig.from_mapping({"strategies": ["cod"], "training": {"epochs": 3}})
    >>> config.strategies, config.training.epochs
    (['cod'], 3)
    >>> RunConfig.from_mapping({"training": {"epoch": 3}})
    Traceback (most recent call last):
        ...
    ValueError: unknown key 'training.epoch'; did you mean 'training.epochs'?
    """

    data: str = option(
        "digits", "the data set: digits (bundled), mnist, cifar10, image-folder, texts, ..."
    )
    data_root: str = option(
        "", "folder that holds the data set's files; of texts the table (.csv), file or folder"
    )
    data_cache: str = option("", "folder that keeps decoded images for the next run (cifar10-jpeg)")
    image_size: list[Positive] = option(
        [], "height and width that images are scaled to (image-folder, caltech101, cityscapes)"
    )
    embeddings: str = option("", "file with the embedding of each text (texts)")
    oracle: Literal["data", "ask"] = option(
        "data",
        "who labels: the data set, or a person who is asked each cycle (image-folder, texts)",
    )
    classes: list[str] = option(
        [], "names of the classes, where no labeled sample shows them (oracle ask)"
    )
    labels: list[str] = option(
        [], "files of labels, tables or exports of Label Studio (oracle ask)"
    )
    holdout: str = option(
        "", "folder of a labeled hold-out, one folder a class (oracle ask, image-folder)"
    )
    model: str = option(
        "cnn",
        "the model: linear, mlp, cnn, cnn-bn, lenet, vgg16, resnet18, resnet18-dropout, resnet20, "
        "and for pixels drn-d-22, drn-d-22-dropout (default of texts: linear)",
    )
    strategies: list[str] = option(
        ["random", "least_confidence", "farthest_first"], "names as `dynal-fast strategies` lists"
    )
    seeds: list[int] = option([0, 1, 2], "one repeat for each seed")
    reference: bool = option(True, "also train on all labels, for comparison")
    device: str = option("cpu", "torch device that trains and observes, such as cpu or cuda")
    threads: Annotated[int, Between(0, most_threads())] = option(
        0, "CPU threads; 0 leaves torch's own choice"
    )
    accelerate: Literal["off", "fold", "compile", "auto"] = option(
        "off", "observe the pool through a faster copy of the model, equal up to rounding"
    )
    analysis: bool = option(
        False, "also record scores, losses and correctness of the pool, for `dynal-fast report`"
    )
    preset: str = option("", "start from a paper's protocol, as `dynal-fast presets` lists them")
    scale: float = option(
        1.0, "shrink a preset: its data set, labels and epochs, by this factor of at most 1"
    )
    protocol: Protocol = field(default_factory=Protocol)
    training: Training = field(default_factory=Training)
    schedules: dict[str, Schedule] = field(
        default_factory=dict, metadata={"help": "observed epochs of a statistic"}
    )
    options: dict[str, dict[str, float]] = field(
        default_factory=dict, metadata={"help": "options of strategies"}
    )

    def __post_init__(self) -> None:
        check_fields(self)
        _require(bool(self.strategies), "strategies", "a list of at least one name", [])
        _require(bool(self.seeds), "seeds", "a list of at least one number", [])
        _require(
            len(set(self.seeds)) == len(self.seeds) and min(self.seeds) >= 0,
            "seeds",
            "distinct numbers of at least 0",
            self.seeds,
        )
        _require(
            len(set(self.strategies)) == len(self.strategies),
            "strategies",
            "distinct names",
            self.strategies,
        )
        _require(0 < self.scale <= 1, "scale", "above 0 and at most 1", self.scale)
        _require(self.scale == 1 or bool(self.preset), "scale", "1 without a preset", self.scale)
        self._check_oracle()

    def _check_oracle(self) -> None:
        """Check what goes together with who labels, and with what is labeled."""
        texts = self.data == "texts"
        _require(bool(self.embeddings) == texts, "embeddings", "given with texts", self.embeddings)
        _require(bool(self.data_root) or not texts, "data_root", "given with texts", "")
        if self.oracle == "data":
            for name in ("classes", "labels", "holdout"):
                given = getattr(self, name)
                _require(not given, name, "left out without oracle 'ask'", given)
            return
        _require(self.data in ASKED_ABOUT, "data", "image-folder or texts to ask about", self.data)
        _require(bool(self.data_root), "data_root", "given with oracle 'ask'", self.data_root)
        _require(
            not self.holdout or not texts, "holdout", "the column split of texts", self.holdout
        )
        _require(self.scale == 1, "scale", "1 with oracle 'ask'", self.scale)
        _require(len(self.strategies) == 1, "strategies", "one with oracle 'ask'", self.strategies)
        _require(len(self.seeds) == 1, "seeds", "one with oracle 'ask'", self.seeds)
        _require(not self.reference, "reference", "off with oracle 'ask'", self.reference)
        _require(len(self.image_size) in (0, 2), "image_size", "height and width", self.image_size)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build the configuration from nested tables, as a config file holds them.

        Raises
        ------
        ValueError
            A key is unknown or a value has the wrong type; the message names the key.
        """
        given = table(values, "")
        preset = checked(given.get("preset", ""), str, "preset")
        if preset:
            from dynal_fast.experiment.presets import preset_values

            scale = checked(given.get("scale", 1.0), float, "scale")
            begun = preset_values(preset, scale)
            if "strategies" in given:  # options of others would be refused
                chosen = table(begun.get("options", {}), "options")
                begun["options"] = {k: v for k, v in chosen.items() if k in given["strategies"]}
            given = merge_tables(begun, given)
        for key, value in (("oracle", "ask"), ("data", "texts")):
            if given.get(key) == value:
                given = merge_tables(DEFAULTS_WITH[value], given)
        _check_keys(cls, given)
        return build(cls, given)

    def to_mapping(self) -> dict[str, Any]:
        """Return nested tables of plain values: what a config file would hold."""
        return dataclasses.asdict(self)


def _check_keys(cls: Any, values: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse unknown keys and suggest the closest known one."""
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"unknown key {shown(prefix + key)}{_suggestion(prefix + key)}")
        if dataclasses.is_dataclass(hints[key]):
            _check_keys(hints[key], table(value, key), f"{key}.")


def _suggestion(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, known_keys(), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known_keys())}"


def known_keys(cls: type = RunConfig, prefix: str = "") -> list[str]:
    """Return every key of a config file, nested ones as ``table.key``."""
    keys = []
    for name, hint in typing.get_type_hints(cls).items():
        nested = dataclasses.is_dataclass(hint)
        keys += known_keys(hint, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys

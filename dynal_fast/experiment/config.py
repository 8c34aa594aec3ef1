"""What a run is: the protocol, the training and the grid of strategies and seeds, checked once.

Nothing here imports torch, so that the command line can show its options at once.
"""

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Schedule = str | dict[str, Any]


def option(default: Any, text: str) -> Any:
    """Return a dataclass field that carries its own help text."""
    factory = {"default_factory": lambda: type(default)(default)}
    mutable = isinstance(default, list | dict)
    return field(metadata={"help": text}, **(factory if mutable else {"default": default}))


def _require(condition: bool, name: str, expected: str, received: object) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {received!r}")


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

    initial: int = option(40, "labeled samples before the first training")
    balanced: bool = option(False, "draw the initial set with equal numbers of every class")
    budget: int = option(20, "samples labeled in each cycle")
    cycles: int = option(5, "acquisitions; there is one more training than acquisitions")
    retrain: Literal["scratch", "continue"] = option(
        "scratch", "each training starts from the initial weights, or from the last cycle's"
    )
    pool_flips: bool = option(False, "double the pool by mirror images (long-tail paper, 4.2)")
    pool_factor: float = option(
        1.0, "make the pool so many times as large by sampling it with replacement (4.4: 3)"
    )

    subset: int = option(
        0, "candidates of each cycle: so many random unlabeled samples; 0 means all"
    )
    error_reduction: float = option(
        0.0, "stop once the test error fell by this much since the first training; 0 never stops"
    )
    compress: list[float] = option(  # noqa: RUF009
        [],
        "keep these shares of the initial set, which is then compressed instead of added to: there "
        "is no unlabeled pool, and budget and cycles do not count (long-tail paper, section 2)",
    )

    def __post_init__(self) -> None:
        _require(self.initial >= 1, "initial", "at least 1", self.initial)
        _require(self.budget >= 1, "budget", "at least 1", self.budget)
        _require(self.cycles >= 0, "cycles", "at least 0", self.cycles)
        _require(
            self.retrain in ("scratch", "continue"),
            "retrain",
            "'scratch' or 'continue'",
            self.retrain,
        )
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

    epochs: int = option(30, "epochs of every training")
    batch_size: int = option(32, "labeled samples in a step, at most")
    optimizer: Literal["sgd", "adam"] = option("adam", "the optimizer")
    learning_rate: float = option(2e-3, "the learning rate at the start of every training")
    momentum: float = option(0.9, "momentum of sgd")
    weight_decay: float = option(0.0, "weight decay")
    milestones: list[int] = option([], "epochs after which the rate drops")  # noqa: RUF009
    gamma: float = option(0.1, "factor of each drop")
    crop_padding: int = option(0, "crop images at random after padding them by so many pixels")
    horizontal_flip: bool = option(False, "mirror images at random")
    unsupervised: Literal["none", "ema", "cyclic", "tod-code"] = option(
        "none", "train with unlabeled batches beside labeled ones, on this output discrepancy"
    )
    unsupervised_weight: float = option(0.05, "lambda of eq. 9, the unsupervised loss's weight")
    ema_alpha: float = option(0.999, "decay of the averaged weights of ema and tod-code")

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        _require(self.optimizer in ("sgd", "adam"), "optimizer", "'sgd' or 'adam'", self.optimizer)
        _require(self.learning_rate > 0, "learning_rate", "positive", self.learning_rate)
        _require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        _require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        _require(
            all(milestone >= 1 for milestone in self.milestones),
            "milestones",
            "epochs, which count from 1",
            self.milestones,
        )
        _require(self.gamma > 0, "gamma", "positive", self.gamma)
        _require(self.crop_padding >= 0, "crop_padding", "at least 0", self.crop_padding)
        variants = typing.get_args(typing.get_type_hints(Training)["unsupervised"])
        _require(self.unsupervised in variants, "unsupervised", f"in {variants}", self.unsupervised)
        _require(
            self.unsupervised_weight >= 0,
            "unsupervised_weight",
            "at least 0",
            self.unsupervised_weight,
        )
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
        "digits", "the data set: digits (bundled), mnist, fashion-mnist, cifar10, ..."
    )
    data_root: str = option("", "folder that holds the data set's files")
    data_cache: str = option("", "folder that keeps decoded images for the next run (cifar10-jpeg)")
    image_size: list[int] = option(  # noqa: RUF009
        [], "height and width that images are scaled to (image-folder, caltech101, cityscapes)"
    )
    model: str = option(
        "cnn",
        "the model: mlp, cnn, lenet, vgg16, resnet18, resnet18-dropout, drn-d-22 for pixels",
    )
    strategies: list[str] = option(  # noqa: RUF009
        ["random", "least_confidence", "farthest_first"], "names as `dynal-fast strategies` lists"
    )
    seeds: list[int] = option([0, 1, 2], "one repeat for each seed")  # noqa: RUF009
    reference: bool = option(True, "also train on all labels, for comparison")
    device: str = option("cpu", "torch device that trains and observes, such as cpu or cuda")
    threads: int = option(0, "CPU threads; 0 leaves torch's own choice")
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
        _require(self.threads >= 0, "threads", "at least 0", self.threads)
        _require(0 < self.scale <= 1, "scale", "above 0 and at most 1", self.scale)
        _require(self.scale == 1 or bool(self.preset), "scale", "1 without a preset", self.scale)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build the configuration from nested tables, as a config file holds them.

        Raises
        ------
        ValueError
            A key is unknown or a value has the wrong type; the message names the key.
        """
        if values.get("preset"):
            from dynal_fast.experiment.presets import preset_values

            chosen = preset_values(values["preset"], values.get("scale", 1.0))
            values = merge_tables(chosen, values)
        return _build(cls, values, prefix="")

    def to_mapping(self) -> dict[str, Any]:
        """Return nested tables of plain values: what a config file would hold."""
        return dataclasses.asdict(self)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a ``.toml``, ``.yaml`` or ``.yml`` file into nested tables.

    Raises
    ------
    ValueError
        The file is missing, has another ending or cannot be parsed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"config file {path}: {_reason(error)}") from error
    if path.suffix == ".toml":
        parsed = _parse_toml(text, path)
    elif path.suffix in (".yaml", ".yml"):
        parsed = _parse_yaml(text, path)
    else:
        raise ValueError(f"config file {path}: expected a .toml, .yaml or .yml file")
    if not isinstance(parsed, dict):
        raise ValueError(f"config file {path}: expected a table of options at the top level")
    return parsed


def merge_tables(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over`` on top, table by table.

    >>> merge_tables({"training": {"epochs": 3, "gamma": 0.5}}, {"training": {"epochs": 4}})
    {'training': {'epochs': 4, 'gamma': 0.5}}
    """
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge_tables(merged[key], value) if both_tables else value
    return merged


def canonical_json(values: object) -> str:
    """Return the one JSON text of ``values``: sorted keys, no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _parse_toml(text: str, path: Path) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"config file {path}: {error}") from error


def _parse_yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"config file {path}: {' '.join(str(error).split())}") from error


def _build(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise ValueError(f"unknown key {name!r}{_suggestion(name)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name} must be a table, got {value!r}")
            arguments[key] = _build(hint, value, prefix=f"{name}.")
        else:
            arguments[key] = _checked(value, hint, name)
    return cls(**arguments)


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


def _checked(value: Any, hint: Any, name: str) -> Any:
    """Return ``value`` as the type ``hint``; only int to float is converted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        expected, fits = " or ".join(map(repr, arguments)), value in arguments
    elif origin is list:
        expected, fits = f"a list of {arguments[0].__name__}", isinstance(value, list)
        if fits:
            return [_checked(item, arguments[0], f"{name}[{i}]") for i, item in enumerate(value)]
    elif origin is dict:
        expected, fits = "a table", isinstance(value, Mapping)
        if fits:
            return {
                key: _checked(item, arguments[1], f"{name}.{key}") for key, item in value.items()
            }
    elif origin in (typing.Union, types.UnionType):
        expected, fits = "a name or a table", isinstance(value, str | Mapping)
    elif hint is float:
        expected = "a number"
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    else:
        expected = {"int": "an integer", "str": "text", "bool": "true or false"}[hint.__name__]
        fits = type(value) is hint
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return value

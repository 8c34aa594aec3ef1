"""What the papers say and what we conjecture, as comparisons of recorded strategies."""

from dataclasses import dataclass

# The same statements are tried in each of these settings, by the name of the record that has most.
SETTINGS = {
    "from-1000-mnist-mlp": "MNIST, perceptron",
    "from-1000-mnist-cnn": "MNIST, small CNN",
    "from-1000-texts-linear": "texts, linear head",
    "from-1000-texts-mlp": "texts, perceptron",
}
TAIL, SMALL = "long-tail-mnist", "mnist-small"
CONTINUED, CODE = "mnist-small-continue", "mnist-small-code"
DIVERSIFIED, INTERVAL = "mnist-small-diversified", "mnist-small-interval"


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, or a conjecture of ours, as a comparison of two strategies.

    ``better`` and ``than`` are names of a record and a strategy; with ``alike`` the statement is
    that neither is better.
    """

    statement: str
    source: str
    better: tuple[str, str]
    than: tuple[str, str]
    alike: bool = False


def _beside_random(strategy: str, source: str, statement: str = "", variant: str = "") -> Claim:
    """A strategy is better than random; in each setting, or in its record of a variant."""
    statement = statement or f"`{strategy}` is better than random"
    return Claim(statement, source, (variant, strategy), (variant, "random"))


# Here a record is named by what follows the setting's name in its own.
PROTOCOL_CLAIMS = (
    _beside_random("entropy", "prediction stability, 4.2 (CIFAR)"),
    _beside_random("margin", "label dispersion, Table 1 (CIFAR)"),
    _beside_random("label_dispersion", "label dispersion, 4.2 (CIFAR)"),
    Claim(
        "`label_dispersion` is better than `margin`",
        "label dispersion, 4.2 (CIFAR)",
        ("", "label_dispersion"),
        ("", "margin"),
    ),
    _beside_random("prediction_stability", "prediction stability, 4.2 (CIFAR)"),
    Claim(
        "`prediction_stability` is better than `entropy`",
        "prediction stability, 4.2 (CIFAR)",
        ("", "prediction_stability"),
        ("", "entropy"),
    ),
    _beside_random(
        "prediction_stability",
        "prediction stability, 4.4.2",
        "the same, at an interval of 1 epoch",
        "-interval-1",
    ),
    _beside_random(
        "prediction_stability",
        "prediction stability, 4.4.2",
        "the same, at an interval of 5 epochs",
        "-interval-5",
    ),
    _beside_random("cod", "output discrepancy, 5.2 (CIFAR and others)"),
    _beside_random(
        "cod", "output discrepancy, 4", "the same, training on from the last weights", "-continue"
    ),
    _beside_random("tod_code", "output discrepancy, as its authors' code has it"),
    _beside_random(
        "tod_code",
        "output discrepancy, as its authors' code has it",
        "the same, training on from the last weights",
        "-continue",
    ),
    _beside_random("farthest_first", "long tail, 4.1"),
    Claim(
        "`margin` is indistinguishable from `farthest_first`",
        "long tail, 4.1, of softmax response",
        ("", "margin"),
        ("", "farthest_first"),
        alike=True,
    ),
    _beside_random("bald", "none of the papers"),
    _beside_random("badge", "none of the papers"),
    Claim(
        "farthest-first from the shortlist of `prediction_stability` is better than the score",
        "conjecture",
        ("", "prediction_stability+farthest_first"),
        ("", "prediction_stability"),
    ),
    Claim(
        "farthest-first from the shortlist of `cod` is better than the score",
        "conjecture",
        ("", "cod+farthest_first"),
        ("", "cod"),
    ),
)

CLAIMS = (
    Claim(
        "FF-Active is better than random at as many labels",
        "long tail, 4.1",
        (TAIL, "farthest_first"),
        (TAIL, "random"),
    ),
    Claim(
        "softmax response is indistinguishable from FF-Active",
        "long tail, 4.1",
        (TAIL, "least_confidence"),
        (TAIL, "farthest_first"),
        alike=True,
    ),
    Claim(
        "label dispersion is better than random",
        "label dispersion, 4.2 (CIFAR)",
        (SMALL, "label_dispersion"),
        (SMALL, "random"),
    ),
    Claim(
        "label dispersion is better than margin",
        "label dispersion, 4.2 (CIFAR)",
        (SMALL, "label_dispersion"),
        (SMALL, "margin"),
    ),
    Claim(
        "margin is better than random",
        "label dispersion, Table 1 (CIFAR)",
        (SMALL, "margin"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability is better than random",
        "prediction stability, 4.3 (CIFAR-100, with epochs in a row)",
        (SMALL, "prediction_stability"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability does about as well as entropy, with five epochs in a row",
        "prediction stability, 4.2 (CIFAR-10, but at an interval of 5)",
        (SMALL, "prediction_stability"),
        (SMALL, "entropy"),
        alike=True,
    ),
    Claim(
        "the same, with epochs far apart",
        "prediction stability, 4.2 (CIFAR-10, at an interval of 5)",
        (INTERVAL, "prediction_stability"),
        (SMALL, "entropy"),
        alike=True,
    ),
    Claim(
        "COD is better than random",
        "output discrepancy, 5.2 (CIFAR and others)",
        (SMALL, "cod"),
        (SMALL, "random"),
    ),
    Claim(
        "COD is better than random when training goes on from the last weights",
        "conjecture",
        (CONTINUED, "cod"),
        (CONTINUED, "random"),
    ),
    Claim(
        "COD is better than random with the score of its authors' code, and nothing else of it",
        "conjecture",
        (CODE, "tod_code"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability gains from epochs far apart",
        "conjecture",
        (INTERVAL, "prediction_stability"),
        (SMALL, "prediction_stability"),
    ),
    Claim(
        "COD is better than random once farthest-first chooses from its shortlist",
        "conjecture",
        (DIVERSIFIED, "cod+farthest_first"),
        (SMALL, "random"),
    ),
    Claim(
        "prediction stability is better than random once farthest-first chooses from its shortlist",
        "conjecture",
        (DIVERSIFIED, "prediction_stability+farthest_first"),
        (SMALL, "random"),
    ),
)

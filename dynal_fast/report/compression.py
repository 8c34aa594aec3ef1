"""The part of a report about compressions: what leaving labeled samples out costs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from dynal_fast.charts.markup import Markup
from dynal_fast.experiment.results import mean_and_deviation
from dynal_fast.report.html import section, table
from dynal_fast.report.learning_curve import learning_curve
from dynal_fast.report.runs import Method
from dynal_fast.table import Table


def compression(methods: Sequence[Method]) -> Markup:
    """Return the section of the shares that the methods keep and what accuracy each costs."""
    rows = []
    for method in methods:
        grid = method.experiment.grid
        shares = [run.result.labeled for run in method.runs]
        random = {n: mean for n, (mean, _) in learning_curve(grid, "random").items()}
        for cycle in range(1, min(map(len, shares))):
            changes = [
                100 * (run.result.accuracies[cycle] - run.result.accuracies[0])
                for run in method.runs
            ]
            mean, deviation = mean_and_deviation(changes)
            reached, _ = mean_and_deviation([run.result.accuracies[cycle] for run in method.runs])
            kept, whole = shares[0][cycle], shares[0][0]
            needed = samples_needed(random, reached) if method.strategy != "random" else None
            rows.append(
                [
                    method.name,
                    f"{kept:,}",
                    f"{100 * kept / whole:.3g}",
                    f"{100 * reached:.2f}",
                    f"{mean:+.2f} ± {deviation:.2f}" if len(changes) > 1 else f"{mean:+.2f}",
                    f"{needed:,.0f}" if needed is not None else "",
                ]
            )
    header = ["method", "kept", "share (%)", "accuracy (%)", "change (points)", "random needs"]
    text = (
        "Test accuracy of the model retrained on the samples that each method keeps, and how far "
        "it is from that of the model trained on all of them (long tail, section 2: -1.5 points "
        "with half of CIFAR-10 by FF-Comp, -3.1 by random, which needs 64 % for the same). The "
        "change is the mean ± standard deviation over seeds. Random needs: as many samples as "
        "reach the accuracy, read from the line between random's own trainings; empty where it "
        "has none on both sides."
    )
    return section("compression", "Compression", text, table(Table(header, rows, "Compression")))


def samples_needed(curve: Mapping[int, float], accuracy: float) -> float | None:
    """Return at how many samples a curve of accuracies first reaches ``accuracy``, or None.

    >>> samples_needed({100: 0.5, 200: 0.7}, 0.6), samples_needed({100: 0.5, 200: 0.7}, 0.4)
    (150.0, None)
    """
    for low, high in pairwise(sorted(curve)):
        if curve[low] < accuracy <= curve[high]:
            return low + (high - low) * (accuracy - curve[low]) / (curve[high] - curve[low])
    return None

"""The parts of a report that need what ``dynal-fast run --analysis`` records."""

from collections.abc import Mapping, Sequence

import numpy as np

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, element
from dynal_fast.charts.scale import linear, logarithmic
from dynal_fast.charts.series import Series, inset_for
from dynal_fast.charts.style import DASHES, Style
from dynal_fast.report.analyses import Array, most_and_least_stable
from dynal_fast.report.bands import band, mean_and_std, percent
from dynal_fast.report.html import (
    LARGE_PANEL,
    NOTHING,
    both_widths,
    legend,
    missing,
    panels,
    section,
)
from dynal_fast.report.of_rankings import (
    FOUND,
    HISTOGRAMS,
    LOSS_BY_RANK,
    SCORE_AND_LOSS,
    highest_losses,
    histograms,
    loss_by_rank,
    score_and_loss,
)
from dynal_fast.report.of_results import run_again
from dynal_fast.report.recorded import (
    PORTIONS,
    Recorded,
    pool_portions,
)
from dynal_fast.report.runs import Method
from dynal_fast.table import Table

FOLLOWED = 4  # samples in each picture of trajectories
Recordings = Mapping[str, Sequence[Recorded]]
RANKED = "prediction_stability, label_dispersion, cod, entropy, margin or least_confidence"


def recorded_sections(
    methods: Sequence[Method], recordings: Recordings, styles: Mapping[str, Style]
) -> list[Markup]:
    """Return all sections; without recordings they name the command that records them.

    ``recordings`` holds the recorded runs of each method by its name; a method may have none.
    """
    if methods[0].experiment.grid.segments:
        note = missing(
            "Not for label maps: this analysis needs one label for each sample, so "
            + element("code", "--analysis")
            + " does not record segmentation."
        )
        every = (INFORMATIVENESS, LOSS_BY_RANK, FOUND, HISTOGRAMS, TRAJECTORIES)
        return [section(*each, note) for each in every]
    without = [method for method in methods if not recordings.get(method.name)]
    again = run_again((without or methods)[0].experiment, " --analysis")
    note = NOTHING
    if without:
        names = ", ".join(method.name for method in without)
        note = missing(
            f"Nothing is recorded of {names}. This records it, into a new folder: "
            + element("code", again)
            + ", with the file under "
            + element("a", "Settings", href="#settings")
            + "."
        )
    found = {name: runs for name, runs in recordings.items() if runs}
    rankings = {
        name: ranked
        for name, runs in found.items()
        if (ranked := [run.ranking for run in runs if run.ranking is not None])
    }
    unranked = note if not found else missing(
        "None of the recorded strategies ranks the pool by a score. Run one that does, such as "
        f"{RANKED}: " + element("code", f"{again} --strategies cod") + "."
    )  # fmt: skip
    return [
        section(*INFORMATIVENESS, *(_informativeness(found, styles, note) if found else (note,))),
        section(*SCORE_AND_LOSS, *(score_and_loss(rankings) if rankings else (unranked,))),
        section(*LOSS_BY_RANK, *(loss_by_rank(rankings) if rankings else (unranked,))),
        section(*FOUND, *(highest_losses(rankings, styles) if rankings else (unranked,))),
        section(*HISTOGRAMS, *(histograms(rankings) if rankings else (unranked,))),
        section(*TRAJECTORIES, *(_trajectories(methods, found) if found else (note,))),
    ]


INFORMATIVENESS = (
    "informativeness",
    "Informativeness of the queries",
    "Accuracy of the model on the samples that each method would query, before they are labeled, "
    "against how many it queries. The model is the one trained on the initial set, the same for "
    "all methods of a seed. The lower, the more there is to learn from the labels (label "
    "dispersion, Fig. 3). Means over seeds, with one standard deviation where there are several. A "
    "single marker: the method picks a batch without ranking the pool.",
)


def _informativeness(
    found: Recordings, styles: Mapping[str, Style], note: Markup
) -> tuple[Markup, list[Table]]:
    pool = float(np.mean([run.pool_accuracy for runs in found.values() for run in runs]))
    curves: dict[str, tuple[list[float], Array, Array]] = {}
    for name, runs in found.items():
        ranked = [run.ranking for run in runs if run.ranking is not None]
        if ranked:
            keep = pool_portions(min(len(ranking.scores) for ranking in ranked))
            values = 100 * np.array([ranking.accuracies[keep] for ranking in ranked])
            curves[name] = ([*(100 * PORTIONS[keep])], *mean_and_std(values))
        else:
            values = 100 * np.array([[run.picks_accuracy] for run in runs])
            share = 100 * float(np.mean([run.picks_share for run in runs]))
            curves[name] = ([share], *mean_and_std(values))

    lines = {
        name: Series(
            xs,
            [*mean],
            *band(mean, deviation),
            [f"{name}: {y:.1f} % at {x:.3g} %" for x, y in zip(xs, mean, strict=True)],
        )
        for name, (xs, mean, deviation) in curves.items()
    }

    def draw(width: int, height: int) -> Chart:
        every_x = [x for line in lines.values() for x in line.xs] + [100.0]
        every_y = [y for line in lines.values() for y in (*line.lows, *line.highs)]
        chart = Chart(
            logarithmic(every_x),
            linear([*every_y, 100 * pool]),
            "portion of the pool queried (%, logarithmic)",
            "accuracy on the queried samples (%)",
            width,
            height,
            inset=inset_for(lines),
        )
        chart.rule(y=100 * pool, label="whole pool")
        chart.series(lines, styles)
        return chart

    least = ", ".join(
        f"{name} {mean[0]:.1f} % at {xs[0]:.3g} %" for name, (xs, mean, _) in curves.items()
    )
    drawn = legend([(name, styles[name]) for name in curves])
    drawn += both_widths(
        draw, f"Accuracy on the queried samples: {least}; pool {100 * pool:.1f} %."
    )
    columns = sorted({x for xs, _, _ in curves.values() for x in xs})
    rows = []
    for name, (xs, mean, deviation) in curves.items():
        several = len(found[name]) > 1
        at = {x: percent(m, d, several) for x, m, d in zip(xs, mean, deviation, strict=True)}
        rows.append([name, *(at.get(x, "") for x in columns)])
    header = ["queried (%)", *(f"{x:.3g}" for x in columns)]
    return drawn + note, [Table(header, rows, "Accuracy (%) on the queried portion of the pool")]


TRAJECTORIES = (
    "trajectories",
    "Trajectories of single samples",
    "The probability that the model gives the true class, after each epoch of the first training. "
    "Of the samples followed, those whose probability varies least, and most, over the second half "
    "of the epochs (prediction stability, Fig. 1).",
)


def _trajectories(methods: Sequence[Method], found: Recordings) -> tuple[Markup, list[Table]]:
    name = next(
        (m.name for m in methods if m.strategy == "prediction_stability" and m.name in found),
        next(iter(found)),
    )
    run = found[name][0]
    epochs = len(run.trajectories)
    if epochs < 2:
        return missing("One epoch is no trajectory: these runs train for a single one."), []
    xs = [float(epoch) for epoch in range(1, epochs + 1)]
    pictures, tables = [], []
    groups = most_and_least_stable(run.trajectories, FOLLOWED)
    for kind, columns in zip(("most stable", "least stable"), groups, strict=True):
        chart = Chart(
            linear(xs, end_on_ticks=False),
            linear([0, 1]),
            "epoch",
            "probability of the true class",
            *LARGE_PANEL,
        )
        ids = [f"sample {run.followed[column]}" for column in columns]
        lines = [Style(f"c{i}", "", DASHES[i]) for i in range(len(ids))]
        for column, style in zip(columns, lines, strict=True):
            chart.line(xs, [*run.trajectories[:, column].astype(float)], style)
        ends = ", ".join(
            f"{i} ends at {run.trajectories[-1, c]:.2f}" for i, c in zip(ids, columns, strict=True)
        )
        drawn = legend([*zip(ids, lines, strict=True)]) + chart.svg(f"The {kind}: {ends}.")
        pictures.append((f"The {kind} of {len(run.followed)} samples", drawn))
        rows = [
            [str(epoch + 1), *(f"{run.trajectories[epoch, column]:.4f}" for column in columns)]
            for epoch in range(epochs)
        ]
        tables.append(Table([f"{kind}: epoch", *ids], rows, f"Trajectories of the {kind}"))
    return panels(pictures, large=True), tables

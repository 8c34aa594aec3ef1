"""The parts of a report that need what ``dynal-fast run --analysis`` records."""

from collections.abc import Mapping, Sequence

import numpy as np

from dynal_fast.report.analyses import Array, most_and_least_stable
from dynal_fast.report.html import (
    LARGE_PANEL,
    NOTHING,
    PANEL,
    both_widths,
    key,
    legend,
    missing,
    panels,
    section,
    table,
)
from dynal_fast.report.markup import Markup, element
from dynal_fast.report.of_results import percent, run_again
from dynal_fast.report.recorded import (
    FOUND_PORTIONS,
    PORTIONS,
    Ranking,
    Recorded,
    pool_portions,
)
from dynal_fast.report.runs import Method
from dynal_fast.report.svg import DASHES, Chart, Style, linear, logarithmic, marked, swatch

FOLLOWED = 4  # samples in each picture of trajectories
HISTOGRAM_BINS, FEW_VALUES = 24, 40
Recordings = Mapping[str, Sequence[Recorded]]
RANKED = "prediction_stability, label_dispersion, cod, entropy, margin or least_confidence"


def recorded_sections(
    methods: Sequence[Method], recordings: Recordings, styles: Mapping[str, Style]
) -> list[Markup]:
    """Return all sections; where nothing was recorded they say what records it, or why nothing can.

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
        section(*SCORE_AND_LOSS, *(_score_and_loss(rankings) if rankings else (unranked,))),
        section(*LOSS_BY_RANK, *(_loss_by_rank(rankings) if rankings else (unranked,))),
        section(*FOUND, *(_highest_losses(rankings, styles) if rankings else (unranked,))),
        section(*HISTOGRAMS, *(_histograms(rankings) if rankings else (unranked,))),
        section(*TRAJECTORIES, *(_trajectories(methods, found) if found else (note,))),
    ]


INFORMATIVENESS = (
    "informativeness",
    "Informativeness of the queries",
    "Accuracy of the model on the samples that each method would query, before they are labeled, "
    "against how many it queries. The model is the one trained on the initial set, the same for "
    "all methods of a seed. The lower, the more there is to learn from the labels (label "
    "dispersion, Fig. 3). A single marker: the method picks a batch without ranking the pool.",
)


def _informativeness(
    found: Recordings, styles: Mapping[str, Style], note: Markup
) -> tuple[Markup, Markup]:
    pool = float(np.mean([run.pool_accuracy for runs in found.values() for run in runs]))
    curves: dict[str, tuple[list[float], Array, Array]] = {}
    for name, runs in found.items():
        ranked = [run.ranking for run in runs if run.ranking is not None]
        if ranked:
            keep = pool_portions(min(len(ranking.scores) for ranking in ranked))
            values = 100 * np.array([ranking.accuracies[keep] for ranking in ranked])
            curves[name] = ([*(100 * PORTIONS[keep])], *_mean_and_std(values))
        else:
            values = 100 * np.array([[run.picks_accuracy] for run in runs])
            share = 100 * float(np.mean([run.picks_share for run in runs]))
            curves[name] = ([share], *_mean_and_std(values))

    def draw(width: int, height: int) -> Chart:
        every_x = [x for xs, _, _ in curves.values() for x in xs] + [100.0]
        every_y = [y for _, m, d in curves.values() for y in (*_least(m, d), *_most(m, d))]
        chart = Chart(
            logarithmic(every_x),
            linear([*every_y, 100 * pool]),
            "portion of the pool queried (%, logarithmic)",
            "accuracy on the queried samples (%)",
            width,
            height,
        )
        chart.rule(y=100 * pool, label="whole pool")
        for name, (xs, mean, deviation) in curves.items():
            if len(xs) > 1:
                chart.band(xs, _least(mean, deviation), _most(mean, deviation), styles[name])
                chart.line(xs, [*mean], styles[name])
        for name, (xs, mean, _) in curves.items():
            tips = [f"{name}: {y:.1f} % at {x:.3g} %" for x, y in zip(xs, mean, strict=True)]
            chart.points(xs, [*mean], styles[name], tips)
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
    return drawn + note, table(header, rows, "Accuracy (%) on the queried portion of the pool")


SCORE_AND_LOSS = (
    "score-and-loss",
    "Score and real loss over the cycles",
    "Mean score and mean cross-entropy of the unlabeled samples after each training, each as a "
    "share of its largest magnitude (temporal output discrepancy, Fig. 3, of COD). Where both fall "
    "together, the score follows the loss. Means over seeds.",
)
SCORE_STYLE, LOSS_STYLE = Style("c0", "circle"), Style("c1", "square", "6 3")


def _score_and_loss(rankings: Mapping[str, Sequence[Ranking]]) -> tuple[Markup, Markup]:
    pictures, tables = [], NOTHING
    for name, ranked in _cod_first(rankings):
        cycles = sorted(set.intersection(*(set(ranking.means) for ranking in ranked)))
        means = np.mean([[ranking.means[c] for c in cycles] for ranking in ranked], axis=0)
        highest = np.abs(means).max(axis=0)
        shares = 100 * means / np.where(highest > 0, highest, 1)
        chart = Chart(
            marked(cycles), linear([0.0, *shares.flatten()]), "cycle", "of the largest (%)", *PANEL
        )
        for column, style, what in ((0, SCORE_STYLE, "score"), (1, LOSS_STYLE, "loss")):
            values = [float(value) for value in shares[:, column]]
            tips = [
                f"{what}, cycle {c}: {v:.4g}" for c, v in zip(cycles, means[:, column], strict=True)
            ]
            chart.line(cycles, values, style)
            chart.points(cycles, values, style, tips)
        pictures.append((name, chart.svg(
            f"{name}: mean score from {means[0, 0]:.3g} to {means[-1, 0]:.3g}, mean loss from "
            f"{means[0, 1]:.3g} to {means[-1, 1]:.3g} nats."
        )))  # fmt: skip
        rows = [
            [str(cycle), f"{score:.4g}", f"{loss:.4g}"]
            for cycle, (score, loss) in zip(cycles, means, strict=True)
        ]
        header = [f"{name}: cycle", "mean score", "mean real loss (nats)"]
        tables += table(header, rows, f"Mean score and mean real loss of {name}")
    looks = legend([("mean score", SCORE_STYLE), ("mean real loss", LOSS_STYLE)])
    return looks + panels(pictures), tables


LOSS_BY_RANK = (
    "loss-by-rank",
    "Real loss by rank of the score",
    "Mean cross-entropy (nats) of the unlabeled samples in twenty equal parts, from the highest "
    "score on the left to the lowest, after each training (temporal output discrepancy, Fig. 5). "
    "Where a score measures the loss, the line falls from left to right. Means over seeds, in the "
    "numbers with their standard deviation; the stronger the line, the later the cycle.",
)


def _loss_by_rank(rankings: Mapping[str, Sequence[Ranking]]) -> tuple[Markup, Markup]:
    pictures, tables = [], NOTHING
    for name, ranked in _cod_first(rankings):
        cycles = sorted(set.intersection(*(set(ranking.losses) for ranking in ranked)))
        curves = {c: _mean_and_std(np.array([r.losses[c] for r in ranked])) for c in cycles}
        means = {c: mean for c, (mean, _) in curves.items()}
        bins = len(next(iter(means.values())))
        middles = [100 * (i + 0.5) / bins for i in range(bins)]
        chart = Chart(
            linear([0, 100]),
            linear([0.0, *(value for mean in means.values() for value in mean)]),
            "rank of the score, highest first (%)",
            "mean real loss (nats)",
            *PANEL,
        )
        for i, (cycle, mean) in enumerate(means.items()):
            style = Style("c0", "circle")
            chart.line(middles, [*mean], style, _strength(i, len(means)))
            tips = [
                f"cycle {cycle}, {m:.0f} %: {v:.3g}" for m, v in zip(middles, mean, strict=True)
            ]
            chart.points(middles, [*mean], style, tips, 2.2, _strength(i, len(means)))
        first, last = means[cycles[0]], means[cycles[-1]]
        pictures.append((name, chart.svg(
            f"{name}: mean loss from {first[0]:.3g} nats at the highest scores to {first[-1]:.3g} "
            f"at the lowest in cycle {cycles[0]}, and from {last[0]:.3g} to {last[-1]:.3g} in "
            f"cycle {cycles[-1]}."
        )))  # fmt: skip
        several = len(ranked) > 1
        rows = [
            [f"{100 * i / bins:.3g}–{100 * (i + 1) / bins:.3g}"]
            + [_spread(mean[i], deviation[i], several) for mean, deviation in curves.values()]
            for i in range(bins)
        ]
        header = [f"{name}: rank (%)", *(f"cycle {cycle}" for cycle in cycles)]
        tables += table(header, rows, f"Mean real loss in nats by rank of {name}")
    count = max(len(ranking.losses) for ranked in rankings.values() for ranking in ranked)
    line = Style("c0", marker="")
    looks = [(f"cycle {i}", swatch(line, opacity=_strength(i, count))) for i in range(count)]
    return key(looks) + panels(pictures), tables


def _strength(i: int, count: int) -> float:
    return 0.35 + 0.65 * (i + 1) / count


FOUND = (
    "highest-losses",
    "Share of the highest losses found",
    "Of the samples with the highest real losses, the share that is among equally many samples "
    "with the highest scores (temporal output discrepancy, Fig. 6). Mean over the cycles of a run, "
    "then over seeds; the band is one standard deviation over seeds. Random scores lie on the "
    "dashed line. How a score fares in each cycle is above; in the first, COD can only compare "
    "with the untrained model.",
)


def _highest_losses(
    rankings: Mapping[str, Sequence[Ranking]], styles: Mapping[str, Style]
) -> tuple[Markup, Markup]:
    xs = [*(100 * FOUND_PORTIONS)]
    curves = {
        name: _mean_and_std(100 * np.array([ranking.found for ranking in ranked]))
        for name, ranked in rankings.items()
    }

    def draw(width: int, height: int) -> Chart:
        chart = Chart(
            linear([0, 100]),
            linear([0, 100]),
            "portion of the pool sampled (%)",
            "highest losses found (%)",
            width,
            height,
        )
        chart.diagonal("random")
        for name, (mean, deviation) in curves.items():
            chart.band(xs, _least(mean, deviation), _most(mean, deviation), styles[name])
            chart.line(xs, [*mean], styles[name])
        for name, (mean, _) in curves.items():
            tips = [f"{name}: {y:.1f} % at {x:.0f} %" for x, y in zip(xs, mean, strict=True)]
            chart.points(xs, [*mean], styles[name], tips)
        return chart

    listed = ", ".join(f"{name} {mean[1]:.0f} %" for name, (mean, _) in curves.items())
    drawn = legend([(name, styles[name]) for name in curves])
    drawn += both_widths(draw, f"Share of the highest losses found at 10 % sampled: {listed}.")
    rows = [
        [
            name,
            *(percent(m, d, len(rankings[name]) > 1) for m, d in zip(mean, deviation, strict=True)),
        ]
        for name, (mean, deviation) in curves.items()
    ]
    header = ["sampled (%)", *(f"{x:.0f}" for x in xs)]
    return drawn, table(header, rows, "Share (%) of the highest losses found")


HISTOGRAMS = (
    "scores",
    "Distribution of the scores",
    "Scores of the pool at the first selection, all seeds together: of the samples that the model "
    "gets right and of those that it gets wrong, the share that lies in each bin. The farther the "
    "two are apart, the better the score tells what the model does not know. Right of the dashed "
    "line (the mean over seeds) lies what was queried.",
)
RIGHT, WRONG = Style("c0"), Style("c1")


def _histograms(rankings: Mapping[str, Sequence[Ranking]]) -> tuple[Markup, Markup]:
    pictures, tables = [], NOTHING
    for name, ranked in _cod_first(rankings):
        scores = np.concatenate([ranking.scores for ranking in ranked])
        correct = np.concatenate([ranking.correct for ranking in ranked])
        edges = bin_edges(scores)
        shares = {
            kind: 100 * np.histogram(scores[chosen], edges)[0] / max(1, chosen.sum())
            for kind, chosen in (("right", correct), ("wrong", ~correct))
        }
        lowests = np.array([[ranking.lowest_pick] for ranking in ranked])
        lowest, deviation = (float(part[0]) for part in _mean_and_std(lowests))
        chart = Chart(
            linear([*edges], 4, end_on_ticks=False),
            linear([0.0, *shares["right"], *shares["wrong"]]),
            "score",
            "share of its group (%)",
            *PANEL,
        )
        chart.steps([*edges], [*shares["right"]], RIGHT)
        chart.steps([*edges], [*shares["wrong"]], WRONG)
        chart.rule(x=min(max(lowest, edges[0]), edges[-1]), label="queried →")
        means = scores[correct].mean() if correct.any() else np.nan
        wrong = scores[~correct].mean() if not correct.all() else np.nan
        title = f"{name} (negated: the lowest are queried)" if ranked[0].negated else name
        pictures.append((title, chart.svg(
            f"Histogram of {title}: the mean score is {means:.3g} where the model is right and "
            f"{wrong:.3g} where it is wrong; queried from {lowest:.3g} on."
        )))  # fmt: skip
        rows = [
            [
                f"{edges[i]:.4g} to {edges[i + 1]:.4g}",
                f"{shares['right'][i]:.2f}",
                f"{shares['wrong'][i]:.2f}",
            ]
            for i in range(len(edges) - 1)
        ]
        queried = _spread(lowest, deviation, len(ranked) > 1)
        header = [f"{title}, queried from {queried}", "right (%)", "wrong (%)"]
        tables += table(header, rows, f"Histogram of {name}")
    looks = legend([("the model is right", RIGHT), ("the model is wrong", WRONG)], area=True)
    return looks + panels(pictures), tables


def bin_edges(scores: Array) -> Array:
    """Return the edges of bins of equal width, or of one bin for each value where they are few.

    >>> bin_edges(np.array([0.0, 0.5, 0.5, 1.0]))
    array([-0.25,  0.25,  0.75,  1.25])
    """
    values = np.unique(scores.astype(np.float64))
    if len(values) > FEW_VALUES:
        return np.linspace(values[0], values[-1], HISTOGRAM_BINS + 1)
    if len(values) == 1:
        return values[0] + np.array([-0.5, 0.5])
    middles = (values[1:] + values[:-1]) / 2
    return np.array([2 * values[0] - middles[0], *middles, 2 * values[-1] - middles[-1]])


TRAJECTORIES = (
    "trajectories",
    "Trajectories of single samples",
    "The probability that the model gives the true class, after each epoch of the first training. "
    "Of the samples followed, those whose probability varies least, and most, over the second half "
    "of the epochs (prediction stability, Fig. 1).",
)


def _trajectories(methods: Sequence[Method], found: Recordings) -> tuple[Markup, Markup]:
    name = next(
        (m.name for m in methods if m.strategy == "prediction_stability" and m.name in found),
        next(iter(found)),
    )
    run = found[name][0]
    epochs = len(run.trajectories)
    if epochs < 2:
        return missing("One epoch is no trajectory: these runs train for a single one."), NOTHING
    xs = [float(epoch) for epoch in range(1, epochs + 1)]
    pictures, tables = [], NOTHING
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
        tables += table([f"{kind}: epoch", *ids], rows, f"Trajectories of the {kind}")
    return panels(pictures, large=True), tables


def _cod_first(rankings: Mapping[str, Sequence[Ranking]]) -> list[tuple[str, Sequence[Ranking]]]:
    """Return the rankings with cod, which the papers draw, at the beginning."""
    return sorted(rankings.items(), key=lambda item: not item[0].startswith("cod"))


def _least(mean: Array, deviation: Array) -> list[float]:
    """Return the lower edge of a band of percentages."""
    return [*np.clip(mean - deviation, 0, 100)]


def _most(mean: Array, deviation: Array) -> list[float]:
    """Return the upper edge of a band of percentages."""
    return [*np.clip(mean + deviation, 0, 100)]


def _spread(mean: float, deviation: float, several: bool) -> str:
    """Return a value, with its deviation where there are several seeds."""
    return f"{mean:.4g} ± {deviation:.2g}" if several else f"{mean:.4g}"


def _mean_and_std(values: Array) -> tuple[Array, Array]:
    """Return mean and sample standard deviation over the first axis, 0 of a single one."""
    several = len(values) > 1
    return values.mean(axis=0), values.std(axis=0, ddof=1) if several else np.zeros(values.shape[1])

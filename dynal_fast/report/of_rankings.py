"""The parts of a report about how scores rank the pool, by what ``--analysis`` recorded."""

from collections.abc import Mapping, Sequence

import numpy as np

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, element
from dynal_fast.charts.scale import linear, marked
from dynal_fast.charts.series import Series, inset_for
from dynal_fast.charts.style import Style, swatch
from dynal_fast.report.analyses import Array
from dynal_fast.report.bands import band, mean_and_std, percent
from dynal_fast.report.html import PANEL, both_widths, key, legend, panels
from dynal_fast.report.recorded import (
    FOUND_PORTIONS,
    Ranking,
)
from dynal_fast.table import Table

HISTOGRAM_BINS, FEW_VALUES = 24, 40
Rankings = Mapping[str, Sequence[Ranking]]


SCORE_AND_LOSS = (
    "score-and-loss",
    "Score and real loss over the cycles",
    "Mean score and mean cross-entropy of the unlabeled samples after each training, each as a "
    "share of its largest magnitude (temporal output discrepancy, Fig. 3). Where both fall "
    "together, the score follows the loss. Means over seeds.",
)
SCORE_AND_LOSS_LOOKS = {
    "mean score": Style("c0", "circle"),
    "mean real loss": Style("c1", "square", "6 3"),
}


def score_and_loss(rankings: Rankings) -> tuple[Markup, list[Table]]:
    """Return the pictures of mean score and mean loss over cycles, and the tables behind them."""
    pictures, tables = [], []
    for name, ranked in _cod_first(rankings):
        cycles = sorted(set.intersection(*(set(ranking.means) for ranking in ranked)))
        means = np.mean([[ranking.means[c] for c in cycles] for ranking in ranked], axis=0)
        highest = np.abs(means).max(axis=0)
        shares = 100 * means / np.where(highest > 0, highest, 1)
        lines = {
            what: _line(cycles, shares[:, column], [
                f"{what}, cycle {c}: {v:.4g}" for c, v in zip(cycles, means[:, column], strict=True)
            ])
            for column, what in enumerate(SCORE_AND_LOSS_LOOKS)
        }  # fmt: skip
        y = linear([0.0, *shares.flatten()])
        chart = Chart(
            marked(cycles), y, "cycle", "of the largest (%)", *PANEL, inset=inset_for(lines)
        )
        chart.series(lines, SCORE_AND_LOSS_LOOKS)
        pictures.append((name, chart.svg(
            f"{name}: mean score from {means[0, 0]:.3g} to {means[-1, 0]:.3g}, mean loss from "
            f"{means[0, 1]:.3g} to {means[-1, 1]:.3g} nats."
        )))  # fmt: skip
        rows = [
            [str(cycle), f"{score:.4g}", f"{loss:.4g}"]
            for cycle, (score, loss) in zip(cycles, means, strict=True)
        ]
        header = [f"{name}: cycle", "mean score", "mean real loss (nats)"]
        tables.append(Table(header, rows, f"Mean score and mean real loss of {name}"))
    return legend([*SCORE_AND_LOSS_LOOKS.items()]) + panels(pictures), tables


LOSS_BY_RANK = (
    "loss-by-rank",
    "Real loss by rank of the score",
    "Mean cross-entropy (nats) of the unlabeled samples in twenty equal parts, from the highest "
    "score on the left to the lowest, after each training (temporal output discrepancy, Fig. 5). "
    "Where a score measures the loss, the line falls from left to right. Means over seeds, in the "
    "numbers with their standard deviation; the stronger the line, the later the cycle.",
)


def loss_by_rank(rankings: Rankings) -> tuple[Markup, list[Table]]:
    """Return the pictures of the real loss by rank, and the tables behind them."""
    pictures, tables = [], []
    for name, ranked in _cod_first(rankings):
        cycles = sorted(set.intersection(*(set(ranking.losses) for ranking in ranked)))
        curves = {c: mean_and_std(np.array([r.losses[c] for r in ranked])) for c in cycles}
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
        tables.append(Table(header, rows, f"Mean real loss in nats by rank of {name}"))
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
    "then over seeds, with one standard deviation where there are several. Random scores lie on "
    "the dashed line. How a score fares in each cycle is above.",
)


FIRST_DISCREPANCY = (
    "In the first cycle, cyclic output discrepancy can only compare with the untrained model."
)


def _discrepancy(name: str) -> bool:
    return name.partition(" (")[0] in ("cod", "tod_code")


def highest_losses(rankings: Rankings, styles: Mapping[str, Style]) -> tuple[Markup, list[Table]]:
    """Return the picture of the highest losses found, and the tables behind them."""
    xs = [*(100 * FOUND_PORTIONS)]
    curves = {
        name: mean_and_std(100 * np.array([ranking.found for ranking in ranked]))
        for name, ranked in rankings.items()
    }

    lines = {
        name: Series(
            xs,
            [*mean],
            *band(mean, deviation),
            [f"{name}: {y:.1f} % at {x:.0f} %" for x, y in zip(xs, mean, strict=True)],
        )
        for name, (mean, deviation) in curves.items()
    }

    def draw(width: int, height: int) -> Chart:
        axes = linear([0, 100]), linear([0, 100])
        labels = "portion of the pool sampled (%)", "highest losses found (%)"
        chart = Chart(*axes, *labels, width, height, inset=inset_for(lines))
        chart.diagonal("random")
        chart.series(lines, styles, radius=3.4)
        return chart

    listed = ", ".join(f"{name} {mean[1]:.0f} %" for name, (mean, _) in curves.items())
    drawn = legend([(name, styles[name]) for name in curves])
    drawn += both_widths(draw, f"Share of the highest losses found at 10 % sampled: {listed}.")
    if any(_discrepancy(name) for name in curves):
        drawn += element("p", FIRST_DISCREPANCY) + "\n"
    rows = [
        [
            name,
            *(percent(m, d, len(rankings[name]) > 1) for m, d in zip(mean, deviation, strict=True)),
        ]
        for name, (mean, deviation) in curves.items()
    ]
    header = ["sampled (%)", *(f"{x:.0f}" for x in xs)]
    return drawn, [Table(header, rows, "Share (%) of the highest losses found")]


HISTOGRAMS = (
    "scores",
    "Distribution of the scores",
    "Scores of the pool at the first selection, all seeds together: of the samples that the model "
    "gets right and of those that it gets wrong, the share that lies in each bin. The farther the "
    "two are apart, the better the score tells what the model does not know. Right of the dashed "
    "line (the mean over seeds) lies what was queried.",
)
RIGHT, WRONG = Style("c0"), Style("c1")


def histograms(rankings: Rankings) -> tuple[Markup, list[Table]]:
    """Return the histograms of the scores, and the tables behind them."""
    pictures, tables = [], []
    for name, ranked in _cod_first(rankings):
        scores = np.concatenate([ranking.scores for ranking in ranked])
        correct = np.concatenate([ranking.correct for ranking in ranked])
        edges = bin_edges(scores)
        shares = {
            kind: 100 * np.histogram(scores[chosen], edges)[0] / max(1, chosen.sum())
            for kind, chosen in (("right", correct), ("wrong", ~correct))
        }
        lowests = np.array([[ranking.lowest_pick] for ranking in ranked])
        lowest, deviation = (float(part[0]) for part in mean_and_std(lowests))
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
        tables.append(Table(header, rows, f"Histogram of {name}"))
    looks = legend([("the model is right", RIGHT), ("the model is wrong", WRONG)], area=True)
    return looks + panels(pictures), tables


def _line(xs: Sequence[float], values: Array, tips: list[str]) -> Series:
    means = [float(value) for value in values]
    return Series([*xs], means, means, means, tips)


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


def _cod_first(rankings: Rankings) -> list[tuple[str, Sequence[Ranking]]]:
    """Return the rankings with cod, which the papers draw, at the beginning."""
    return sorted(rankings.items(), key=lambda item: not _discrepancy(item[0]))


def _spread(mean: float, deviation: float, several: bool) -> str:
    """Return a value, with its deviation where there are several seeds."""
    return f"{mean:.4g} ± {deviation:.2g}" if several else f"{mean:.4g}"

"""The section of a report about the norms of the output's gradient, over the cycles."""

from collections.abc import Mapping, Sequence

import numpy as np

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup
from dynal_fast.charts.scale import linear, marked
from dynal_fast.charts.series import Series, banded, inset_for
from dynal_fast.charts.style import Style
from dynal_fast.report.html import both_widths, legend, section
from dynal_fast.report.recorded import Recorded
from dynal_fast.table import Table

TITLE = "Norms of the output's gradient"


def gradients_section(
    recordings: Mapping[str, Sequence[Recorded]], looks: Mapping[str, Style]
) -> Markup | None:
    """Return the section, or None if no run recorded the norms.

    ``recordings`` holds the recorded runs of each method by its name.
    """
    lines: dict[str, Series] = {}
    rows = []
    for name, runs in recordings.items():
        of_runs = [run.gradients for run in runs if run.gradients]
        if not of_runs:
            continue
        cycles = sorted(set.intersection(*map(set, of_runs)))
        if not cycles:
            continue
        every = [np.concatenate([norms[cycle] for norms in of_runs]) for cycle in cycles]
        means = [float(norms.mean()) for norms in every]
        spread = [float(norms.std(ddof=1)) if len(norms) > 1 else 0.0 for norms in every]
        pairs = [*zip(cycles, means, spread, strict=True)]
        lines[name] = Series(
            [*map(float, cycles)],
            means,
            [max(0.0, mean - deviation) for _, mean, deviation in pairs],
            [mean + deviation for _, mean, deviation in pairs],
            [
                f"{name}, cycle {c}: {mean:.3g}, deviation {deviation:.3g}"
                for c, mean, deviation in pairs
            ],
        )
        for (cycle, mean, deviation), norms in zip(pairs, every, strict=True):
            row = [name, str(cycle), f"{mean:.4g}", f"{deviation:.4g}", f"{norms.max():.4g}"]
            rows.append(row)
    if not lines:
        return None

    def draw(width: int, height: int) -> Chart:
        chart = Chart(
            marked(sorted({x for line in lines.values() for x in line.xs})),
            linear([0.0, *(high for line in lines.values() for high in line.highs)]),
            "cycle",
            "squared norm",
            width,
            height,
            inset=inset_for(lines),
        )
        chart.series(lines, looks)
        return chart

    ends = ", ".join(
        f"{name} from {line.means[0]:.3g} to {line.means[-1]:.3g}" for name, line in lines.items()
    )
    text = (
        "The squared norm of the gradient of the softmax output with respect to all weights, of "
        "samples spread evenly over all training samples, after each training that a selection "
        "follows (temporal output discrepancy, Fig. 1): mean over samples and seeds. The "
        f"{'band' if banded(lines) else 'bar'} is one standard deviation over samples. The paper "
        "argues with a norm that varies little over samples and is nearly the same in every cycle."
    )
    picture = legend([(name, looks[name]) for name in lines])
    picture += both_widths(draw, f"{TITLE}: {ends}.")
    header = ["method", "cycle", "mean", "deviation over samples", "most"]
    return section("gradients", TITLE, text, picture, [Table(header, rows, TITLE)])

"""A record as a picture: the others' times over ours, and the growth curves."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.record import Record
from dynal_fast.bench.table import pass_ratio, ratio, ratio_text
from dynal_fast.files import write_atomically

OURS_COLOR, THEIRS_COLOR = "#1b6ca8", "#b8b8b8"


def draw(record: Record, path: Path) -> None:
    """Write a picture, its format by ``path``'s suffix: one panel a case, then the growth curves.

    Bars are times over ours, on a logarithmic axis; hatched ones are extrapolated. Where other
    methods stream too, passes are compared.
    """
    cases = [
        case
        for case in record.cases()
        if sum(entry.median is not None for entry in record.measurements if entry.of == case) > 1
    ]
    panels = len(cases) + len(record.growth)
    columns = 2
    lines = max(1, -(-panels // columns))
    figure = Figure(figsize=(14, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    free = iter(axes.flat)
    for case in cases:
        axis = next(free)
        every = [entry for entry in reversed(record.measurements) if entry.of == case]
        passes = sum(entry.median_pass is not None for entry in every) > 1
        over_ours = pass_ratio if passes else ratio
        bars = [(e, times) for e in every if (times := over_ours(record, e)) is not None]
        for i, (entry, times) in enumerate(bars):
            axis.barh(
                i,
                times,
                left=0,
                color=OURS_COLOR if entry.method == OURS else THEIRS_COLOR,
                hatch="//" if entry.extrapolated and not passes else None,
                edgecolor="white",
            )
            axis.text(times, i, f" {ratio_text(times)}×", va="center", fontsize=8)
        axis.set_yticks(range(len(bars)), [entry.method for entry, _ in bars], fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.15)
        axis.set_title(f"{case.title()}{': a pass' * passes}", fontsize=9)
        axis.set_xlabel(f"{'a pass' if passes else 'time'} / ours", fontsize=8)
    for curve in record.growth:
        axis = next(free)
        axis.loglog(curve.values, curve.seconds, "o", color=OURS_COLOR)
        label = curve.variable
        if curve.coefficient is not None and curve.exponent is not None:
            ends = np.array([curve.values[0], curve.values[-1]], dtype=np.float64)
            axis.loglog(ends, curve.coefficient * ends**curve.exponent, "--", color=OURS_COLOR)
            label += f" (dashed: {curve.coefficient:.2g} s × {label}^{curve.exponent:.2f})"
        axis.set_title(f"{curve.operation} ({curve.fixed})", fontsize=9)
        axis.set_xlabel(label, fontsize=8)
        axis.set_ylabel("seconds", fontsize=8)
        axis.grid(visible=True, which="both", alpha=0.2)
    for axis in free:
        axis.set_visible(False)
    figure.suptitle(f"{record.device}, {record.threads} threads, {record.date}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.removeprefix("."), dpi=110)
    write_atomically(path, picture.getvalue())

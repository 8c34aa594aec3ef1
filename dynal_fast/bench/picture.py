"""A record as a picture: the others' times over ours, and the growth curves."""

from collections.abc import Sequence
from pathlib import Path

from dynal_fast.bench.cases import Case
from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.record import Growth, Measurement, Record
from dynal_fast.bench.table import pass_ratio, ratio, ratio_text
from dynal_fast.charts.chart import Chart
from dynal_fast.charts.picture import picture
from dynal_fast.charts.scale import Scale, logarithmic
from dynal_fast.charts.style import Style
from dynal_fast.files import write_atomically

OURS_STYLE, THEIRS_STYLE, FIT_STYLE = Style("c0"), Style("base"), Style("c0", dashes="6 4")
WIDTH, BAR, CURVE = 640, 24, 240  # pixels: of a panel; the height of a bar, and of growth curves


def draw(record: Record, path: Path) -> list[Path]:
    """Write an SVG file: one panel a case, then the growth curves. Return what was written.

    Bars are times over ours, on a logarithmic axis; pale ones are extrapolated. Where other methods
    stream too, passes are compared. Without anything to compare there is no picture.
    """
    measured = {
        case: [entry for entry in record.measurements if entry.of == case]
        for case in record.cases()
    }
    panels = [
        _case(record, case, entries)
        for case, entries in measured.items()
        if sum(entry.median is not None for entry in entries) > 1
    ]
    panels += [_growth(curve) for curve in record.growth if curve.values]
    if not panels:
        return []
    title = f"{record.device}, {record.threads} threads, {record.date}"
    note = f"{title}. Times over those of {OURS}; pale bars are extrapolated."
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, picture(panels, note, note, columns=min(2, len(panels))).encode())
    return [path]


def _case(record: Record, case: Case, entries: Sequence[Measurement]) -> tuple[str, Chart]:
    passes = sum(entry.median_pass is not None for entry in entries) > 1
    over_ours = pass_ratio if passes else ratio
    bars = [(e, times) for e in entries if (times := over_ours(record, e)) is not None][::-1]
    rows = Scale(-0.5, len(bars) - 0.5, {i: entry.method for i, (entry, _) in enumerate(bars)})
    scale = logarithmic([0.5, *(times for _, times in bars)], lambda tick: f"{tick:,.10g}×")
    label = f"{'a pass' if passes else 'time'} / ours"
    height = 60 + BAR * len(bars)
    chart = Chart(scale, rows, label, "", WIDTH, height, top=6, right=64, rows=True)
    for i, (entry, times) in enumerate(bars):
        style = OURS_STYLE if entry.method == OURS else THEIRS_STYLE
        pale = bool(entry.extrapolated) and not passes
        chart.bar(i, times, style, f"{ratio_text(times)}×", pale)
    return f"{case.title()}{': a pass' * passes}", chart


def _growth(curve: Growth) -> tuple[str, Chart]:
    label, seconds = curve.variable, list(curve.seconds)
    fit: list[float] = []
    ends = [float(curve.values[0]), float(curve.values[-1])]
    if curve.coefficient is not None and curve.exponent is not None:
        fit = [curve.coefficient * end**curve.exponent for end in ends]
        label += f" (dashed: {curve.coefficient:.2g} s × {label}^{curve.exponent:.2f})"
    x, y = logarithmic(curve.values), logarithmic([*seconds, *fit])
    chart = Chart(x, y, label, "seconds", WIDTH, CURVE)
    if fit:
        chart.line(ends, fit, FIT_STYLE)
    tips = [f"{s:.3g} s at {v:,}" for v, s in zip(curve.values, seconds, strict=True)]
    chart.points([*map(float, curve.values)], seconds, OURS_STYLE, tips)
    return f"{curve.operation} ({curve.fixed})", chart

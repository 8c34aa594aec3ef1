"""A record as text: the cells of its tables, and the tables aligned for the terminal."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats

from dynal_fast.bench.cases import Case, StatisticsCase
from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.record import Growth, Measurement, Record, Split
from dynal_fast.table import aligned

BUSY = 0.1  # from this share of the CPU on, taken by others, a row mentions it


def header(case: Case) -> tuple[str, ...]:
    """The columns of a case's table; statistics have two more, for a pass."""
    passes = ("a pass", "× ours") if isinstance(case, StatisticsCase) else ()
    return "method", "time", "spread", "× ours", *passes, "peak memory", "exactness", "remarks"


def seconds_text(seconds: float | None) -> str:
    """Seconds to three digits.

    >>> seconds_text(2.3456), seconds_text(0.01234), seconds_text(310.7), seconds_text(None)
    ('2.35 s', '12.3 ms', '311 s', '')
    """
    if seconds is None:
        return ""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def bytes_text(count: float | None) -> str:
    """Bytes in MB of 10^6.

    >>> bytes_text(123_456_789), bytes_text(2.5e9), bytes_text(None)
    ('123 MB', '2.5 GB', '')
    """
    if count is None:
        return ""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def ratio_text(ratio: float | None) -> str:
    """A ratio to three digits.

    >>> ratio_text(12.345), ratio_text(1234.5), ratio_text(None)
    ('12.3', '1,234', '')
    """
    if ratio is None:
        return ""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def two_digits(value: float | None) -> float | None:
    """Round to two significant digits: an extrapolation knows no more.

    >>> two_digits(790_745.0), two_digits(0.0123), two_digits(None)
    (790000.0, 0.012, None)
    """
    return None if value is None else float(f"{value:.1e}")


def exactness_text(exactness: dict[str, Any]) -> str:
    """How exact an answer is.

    >>> exactness_text({"agreement": 1.0, "radius_ratio": 1.0})
    'exact'
    >>> exactness_text({"agreement": 0.25, "radius_ratio": 1.0625})
    '25% of picks, radius × 1.0625'
    >>> exactness_text({"agreement": 0.9998, "radius_ratio": 1.0})
    '99.9% of picks, radius × 1'
    >>> statistics = {"stability_error": 1.2e-7, "dispersion_agreement": 1.0}
    >>> exactness_text(statistics | {"uncertainty_error": 2e-7})
    'stability to 1.2e-07, dispersion exact, uncertainty to 2.0e-07'
    >>> exactness_text({"certified": True, "gaps": 2, "largest_gap": 3e-8, "near_ties": 9})
    'certified, 9 near ties, 2 gaps up to 3e-08'
    """
    if not exactness:
        return ""
    if "wrong" in exactness:
        return exactness["wrong"]
    if "stability_error" in exactness:
        agreement = exactness["dispersion_agreement"]
        dispersion = "exact" if agreement == 1 else f"right for {agreement:.2%}"
        parts = [f"stability to {exactness['stability_error']:.1e}", f"dispersion {dispersion}"]
        if "uncertainty_error" in exactness:
            parts.append(f"uncertainty to {exactness['uncertainty_error']:.1e}")
        return ", ".join(parts)
    if "certified" in exactness:
        parts = ["certified" if exactness["certified"] else "NOT EXACT"]
        if exactness["near_ties"]:
            parts.append(_counted(exactness["near_ties"], "near tie"))
        if exactness.get("gaps"):
            gaps = _counted(exactness["gaps"], "gap")
            parts.append(f"{gaps} up to {exactness['largest_gap']:.1g}")
        return ", ".join(parts)
    if "first_pick" in exactness:
        return "drawn, from the largest gradient" if exactness["first_pick"] else "WRONG FIRST PICK"
    if exactness["agreement"] == 1:
        return "exact"
    agreement = min(100 * exactness["agreement"], 99.9)  # not rounded to all
    return f"{agreement:.3g}% of picks, radius × {exactness['radius_ratio']:.5g}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def ratio(record: Record, measurement: Measurement) -> float | None:
    """The median of a measurement over that of ours on the same case."""
    return _over_ours(record, measurement, lambda entry: entry.median)


def pass_ratio(record: Record, measurement: Measurement) -> float | None:
    """The median pass over that of ours."""
    return _over_ours(record, measurement, lambda entry: entry.median_pass)


def _over_ours(
    record: Record, measurement: Measurement, figure: Callable[[Measurement], float | None]
) -> float | None:
    ours = record.find(measurement.of, OURS)
    theirs, least = figure(measurement), figure(ours) if ours else None
    return theirs / least if least and theirs is not None else None


def row(record: Record, measurement: Measurement) -> tuple[str, ...]:
    """The cells of one measurement."""
    remarks = [measurement.extrapolated, measurement.defect, measurement.note]
    if measurement.others > BUSY:
        remarks.append(f"other processes took {measurement.others:.0%} of the CPU meanwhile")
    remark = "; ".join(filter(None, remarks))
    if measurement.unavailable:
        empty = [""] * (len(header(measurement.of)) - 3)
        return measurement.method, f"n/a: {measurement.unavailable}", *empty, remark
    figures: tuple[float | None, ...] = (
        measurement.median,
        ratio(record, measurement),
        measurement.memory_bytes,
    )
    about = ""
    if measurement.extrapolated:
        about, figures = "≈ ", tuple(map(two_digits, figures))
    time, times, memory = figures
    spread = ""
    if len(measurement.seconds) > 1:
        low, high = min(measurement.seconds), max(measurement.seconds)
        spread = f"{seconds_text(low)} – {seconds_text(high)}"
    passes: tuple[str, ...] = ()
    if isinstance(measurement.of, StatisticsCase):  # measured, where the whole is extrapolated too
        passes = (
            seconds_text(measurement.median_pass),
            ratio_text(pass_ratio(record, measurement)),
        )
    exactness = exactness_text(measurement.exactness)
    if measurement.extrapolated and exactness:
        exactness += ", as far as it ran"
    return (
        measurement.method,
        about + seconds_text(time),
        spread,
        about + ratio_text(times),
        *passes,
        about + bytes_text(memory),
        exactness,
        remark,
    )


def rows(record: Record, case: Case) -> list[tuple[str, ...]]:
    """The rows of a case, in the order measured."""
    return [row(record, entry) for entry in record.measurements if entry.of == case]


def text_table(record: Record, case: Case) -> str:
    """A case's rows for the terminal; a reason why figures are missing may run across columns."""
    body = [header(case), *rows(record, case)]
    shown = [line for line in body if not line[1].startswith("n/a")]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    widths[0] = max(len(line[0]) for line in body)
    lines = aligned(body, numbers=False, widths=widths).split("\n")
    return "\n".join([case.title(), *(f"  {line}" for line in lines)])


def growth_rows(growth: Sequence[Growth]) -> list[tuple[str, ...]]:
    """One row a curve: its range, times and fitted exponent, or why a point is missing."""
    rows: list[tuple[str, ...]] = []
    for curve in growth:
        span = times = ""
        if curve.values:
            span = f"{curve.values[0]:,} – {curve.values[-1]:,}"
            times = f"{seconds_text(curve.seconds[0])} – {seconds_text(curve.seconds[-1])}"
        if curve.unavailable:
            times = f"{times}; n/a: {curve.unavailable}".removeprefix("; ")
        exponent = "" if curve.exponent is None else f"{curve.exponent:.2f}"
        if (error := standard_error(curve.values, curve.seconds)) is not None:
            exponent += f" ± {error:.2f}"
        rows.append((curve.operation, curve.variable, curve.fixed, span, times, exponent))
    return rows


def standard_error(values: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The standard error of the fitted exponent: how far the points are from a power law.

    None for fewer than three points.

    >>> standard_error([1, 2, 4], [3.0, 6.0, 24.0])  # the exponent 1.5 between 1 and 2
    0.288...
    """
    if len(values) < 3:
        return None
    return float(scipy.stats.linregress(np.log(values), np.log(seconds)).stderr)


GROWTH_HEADER = ("operation", "variable", "fixed", "range", "time", "exponent")


def growth_text(growth: Sequence[Growth]) -> str:
    """The growth curves for the terminal."""
    return aligned([GROWTH_HEADER, *growth_rows(growth)], numbers=False)


def split_row(split: Split) -> tuple[str, ...]:
    """The cells of one way of doing something end to end: where the time goes."""
    total = seconds_text(sum(split.parts.values())) * bool(split.method)
    return (
        split.case,
        split.method,
        f"n/a: {split.unavailable}" if split.unavailable else total,
        ", ".join(
            f"{name} {seconds_text(value)}{_range(split.spread.get(name))}"
            for name, value in split.parts.items()
        ),
        bytes_text(split.memory_bytes),
    )


def _range(spread: list[float] | None) -> str:
    return f" ({seconds_text(spread[0])} – {seconds_text(spread[1])})" if spread else ""


def split_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for each way."""
    return [split_row(split) for split in record.splits]


SPLIT_HEADER = ("end to end", "way", "total", "parts", "peak memory")


def full_text(record: Record) -> str:
    """Everything in a record for the terminal."""
    parts = [text_table(record, case) for case in record.cases()]
    if record.growth:
        parts.append(growth_text(record.growth))
    for case, method, total, split, memory in split_rows(record):
        label = f", {method}" if method else ""
        parts.append(f"{case}{label}\n  {' '.join(filter(None, [total, f'({split})', memory]))}")
    return "\n\n".join(parts)

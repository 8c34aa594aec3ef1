"""Scales: where values lie along an axis, and which of them are labelled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The values from ``low`` to ``high`` along an axis, and its labelled ticks."""

    low: float
    high: float
    ticks: dict[float, str]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies, from 0 at ``low`` to 1 at ``high``."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(values: Sequence[float], count: int = 5, end_on_ticks: bool = True) -> Scale:
    """Return a scale over all ``values`` with about ``count`` ticks at round numbers.

    >>> list(linear([0.2, 9.7]).ticks.values())
    ['0', '2', '4', '6', '8', '10']
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low - abs(low or 1) / 10, high + abs(high or 1) / 10
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if not end_on_ticks:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [round(i * step, 12) for i in range(first, last + 1)]
    labels = dict(zip(ticks, tick_labels(ticks), strict=True))
    if end_on_ticks:
        low, high = ticks[0], ticks[-1]
    return Scale(low, high, labels)


def logarithmic(values: Sequence[float], label: Callable[[float], str] | None = None) -> Scale:
    """Return a logarithmic scale over positive ``values``, with ticks at 1, 2, 5 or at 1 alone.

    ``label`` writes a tick; by default as a plain number.

    >>> list(logarithmic([0.02, 0.7]).ticks.values())
    ['0.02', '0.05', '0.1', '0.2', '0.5', '1']
    """
    low, high = min(values), max(values)
    factors: Sequence[int] = (1, 2, 5) if high / low < 200 else (1,)
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    start = max(i for i, tick in enumerate(every) if tick <= low * 1.000001)
    end = min(i for i, tick in enumerate(every) if tick >= high * 0.999999 and i > start)
    ticks = every[start : end + 1]
    labels = [label(tick) for tick in ticks] if label is not None else tick_labels(ticks)
    return Scale(ticks[0], ticks[-1], dict(zip(ticks, labels, strict=True)), True)


def duration(seconds: float) -> str:
    """Return a time with its unit.

    >>> duration(0.0005), duration(0.02), duration(10.0)
    ('0.5 ms', '20 ms', '10 s')
    """
    return f"{seconds:,.10g} s" if seconds >= 0.9999 else f"{1000 * seconds:.10g} ms"


def marked(values: Sequence[float]) -> Scale:
    """Return a scale with a tick at each of the values.

    >>> marked([1000, 3000]).ticks
    {1000: '1,000', 3000: '3,000'}
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    return Scale(low, high, dict(zip(values, tick_labels(values), strict=True)))


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the numbers without needless zeros, thousands set apart.

    >>> tick_labels([0.0, 0.25, 0.5]), tick_labels([0.0, 5000.0])
    (['0', '0.25', '0.5'], ['0', '5,000'])
    """
    return [f"{tick:,.10g}" for tick in ticks]

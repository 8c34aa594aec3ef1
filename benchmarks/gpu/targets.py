"""The targets of the figures, and whether they are met."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Figure = Mapping[str, Any]


class Target(NamedTuple):
    """``what`` of ``figure`` must be at least ``value``, or at most if ``most``.

    ``what``: of_ceiling; ms; peak_mb; ratio (in turns); or times: how many times as long ``other``
    takes.
    """

    figure: str
    what: str
    value: float
    other: str = ""

    @property
    def most(self) -> bool:
        return self.what in ("ms", "peak_mb", "ratio")


_UPDATE, _HEAD = "update C=", "head in CUDA C++ C=1000, batches of 8192"
_LABELED = "farthest_first clustered, labeled"
_SINGLE = "farthest_first clustered, single start"

TARGETS = (
    Target(f"{_UPDATE}1000", "of_ceiling", 0.8),
    Target(f"{_UPDATE}100", "of_ceiling", 0.6),
    Target(f"{_UPDATE}1000", "times", 5.0, "plain torch C=1000"),
    Target(f"{_UPDATE}100", "times", 5.0, "plain torch C=100"),
    Target(f"{_UPDATE}10", "times", 5.0, "plain torch C=10"),
    Target(f"{_UPDATE}1000", "times", 1.5, "torch.compile C=1000"),
    Target(f"{_UPDATE}100", "times", 1.5, "torch.compile C=100"),
    Target(_HEAD, "of_ceiling", 0.6),
    Target(_HEAD, "times", 1.0, "cuBLAS head + update C=1000, batches of 8192"),
    # with a smaller gain the CUDA C++ is removed
    Target(_HEAD, "times", 1.3, "head in Triton C=1000, batches of 8192"),
    Target(_LABELED, "ms", 40.0),
    Target(_LABELED, "times", 20.0, "baseline clustered, labeled"),
    Target(_SINGLE, "times", 5.0, "baseline clustered, single start"),
    Target("observe_pool ResNet-18", "ratio", 1.03),
    Target(_LABELED, "peak_mb", 512.0),
    Target(_SINGLE, "peak_mb", 512.0),
    Target("head in Triton C=1000, all rows at once", "peak_mb", 512.0),
    Target(_HEAD, "peak_mb", 512.0),
    Target(f"{_UPDATE}1000", "peak_mb", 512.0),
)


def value(target: Target, figures: Mapping[str, Figure]) -> float | None:
    """The measured value, or None where a figure is missing."""
    figure = figures.get(target.figure, {})
    if target.what == "times":
        ours, theirs = figure.get("ms"), figures.get(target.other, {}).get("ms")
        return theirs / ours if ours and theirs else None
    if target.what == "peak_mb":
        peak = figure.get("peak_bytes")
        return None if peak is None else peak / 1e6
    return figure.get(target.what)


def is_met(target: Target, measured: float) -> bool:
    return measured <= target.value if target.most else measured >= target.value


def words(target: Target, measured: float | None) -> str:
    """Such as ``met    update C=1000: 82% of the ceiling (at least 80%)``."""
    form, unit = {
        "of_ceiling": ("{:.0%}", " of the ceiling"),
        "ms": ("{:.3g}", " ms"),
        "peak_mb": ("{:.3g}", " MB beyond pool and state"),
        "ratio": ("{:.3f}", " of the bare passes"),
        "times": ("{:.3g}", f" x faster than {target.other}"),
    }[target.what]
    wanted = f"{'at most' if target.most else 'at least'} {form.format(target.value)}"
    if measured is None:
        return f"MISSING {target.figure}: ?{unit} ({wanted})"
    how = "met" if is_met(target, measured) else "MISSED"
    return f"{how:<8}{target.figure}: {form.format(measured)}{unit} ({wanted})"

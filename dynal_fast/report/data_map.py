"""Data maps: labeled samples by the confidence and variability with which they were learned."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynal_fast.charts.chart import Chart
from dynal_fast.charts.markup import Markup, element, joined
from dynal_fast.charts.picture import picture
from dynal_fast.charts.scale import Scale, tick_labels
from dynal_fast.charts.style import Style
from dynal_fast.files import write_atomically
from dynal_fast.pool.training import TrainingDynamics
from dynal_fast.report.html import both_widths, legend, page, section
from dynal_fast.table import Table

REGIONS = ("easy to learn", "ambiguous", "hard to learn")
LOOKS = (Style("c2"), Style("c0", "diamond"), Style("c1", "cross"))
STYLES = dict(zip(REGIONS, LOOKS, strict=True))
MOST_DRAWN = 4000
SUSPECTS = 20
EXPLAINED = (
    "Confidence is the mean over epochs of the label's probability, variability its standard "
    "deviation. The third of the samples that varies most is ambiguous; of the others, those with "
    "a confidence below one half are hard to learn, or wrongly labeled. Swayamdipta et al. 2020."
)


def regions(confidence: Tensor, variability: Tensor) -> tuple[Tensor, float]:
    """Return the region of each sample, an index into ``REGIONS``, and where *ambiguous* begins.

    The paper takes thirds without saying where regions end; here the third that varies most is
    ambiguous, and of the others those with a confidence below 0.5 are hard to learn.

    Parameters
    ----------
    confidence, variability
        float (m,), without NaN.

    Returns
    -------
    tuple of Tensor and float
        int64 (m,), and the variability from which on a sample is ambiguous.

    >>> regions(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.4, 0.1]))[0]
    tensor([0, 1, 2])
    """
    if not len(confidence):
        return torch.zeros(0, dtype=torch.int64), 0.5
    bound = float(variability.double().quantile(2 / 3, interpolation="higher"))
    ambiguous = (variability >= bound) & (variability > 0)
    return torch.where(ambiguous, 1, torch.where(confidence < 0.5, 2, 0)), bound


def data_map(dynamics: TrainingDynamics, width: int = 760, height: int = 480) -> Chart:
    """Return a data map: variability across, confidence upwards, regions marked.

    Parameters
    ----------
    dynamics
        Of `dynal_fast.PoolStats.training_dynamics`; samples without a label are left out. Of more
        than ``MOST_DRAWN`` a fixed random choice is drawn.
    width, height
        In pixels of a text of 12 pixels.
    """
    known = dynamics.observations > 0
    across, up = dynamics.variability[known].cpu(), dynamics.confidence[known].cpu()
    region, bound = regions(up, across)
    most = max(0.1, float(across.max()) if len(across) else 0.1)
    end = min(0.5, np.ceil(10 * most) / 10)
    ticks = [round(0.1 * i, 1) for i in range(round(10 * end) + 1)]
    xs = Scale(0.0, end, dict(zip(ticks, tick_labels(ticks), strict=True)))
    halves = [0.0, 0.25, 0.5, 0.75, 1.0]
    ys = Scale(0.0, 1.0, dict(zip(halves, tick_labels(halves), strict=True)))
    chart = Chart(xs, ys, "variability", "confidence", width, height)
    if len(across):
        chart.rule(x=min(bound, end), label="ambiguous")
    chart.rule(y=0.5, label="easy to learn above, hard to learn below")
    drawn = torch.arange(len(across))
    if len(drawn) > MOST_DRAWN:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randperm(len(across), generator=generator)[:MOST_DRAWN]
    for i, name in enumerate(REGIONS):
        chosen = drawn[region[drawn] == i]
        chart.dots(across[chosen].tolist(), up[chosen].tolist(), STYLES[name])
    return chart


def data_map_table(dynamics: TrainingDynamics) -> Table:
    """Return how many samples each region holds, and how they were learned."""
    known = dynamics.observations > 0
    confidence, variability = dynamics.confidence[known].cpu(), dynamics.variability[known].cpu()
    correct = (dynamics.correct[known] / dynamics.observations[known]).cpu()
    region, _ = regions(confidence, variability)
    rows = []
    for i, name in enumerate(REGIONS):
        there = region == i
        means = [values[there].mean().item() for values in (confidence, variability, correct)]
        shares = [f"{mean:.3f}" if there.any() else "" for mean in means]
        rows.append([name, f"{int(there.sum()):,}", *shares])
    return Table(["region", "samples", "confidence", "variability", "correctness"], rows, "Regions")


def write_data_map(dynamics: TrainingDynamics, path: str | Path) -> Path:
    """Write a data map as an SVG file, with its legend, and return its path.

    Parameters
    ----------
    dynamics
        Of `dynal_fast.PoolStats.training_dynamics`.
    path
        The file, which is replaced.

    Raises
    ------
    OSError
        It cannot be written; the one before is intact.
    """
    counted = data_map_table(dynamics).rows
    title = ", ".join(f"{count} {name}" for name, count, *_ in counted)
    drawn = picture([(f"Data map: {title}", data_map(dynamics))], _described(dynamics), EXPLAINED)
    path = Path(path)
    write_atomically(path, drawn.encode())
    return path


def read_dynamics(path: str | Path) -> TrainingDynamics:
    """Read what ``numpy.savez(path, **stats.training_dynamics()._asdict())`` wrote.

    Raises
    ------
    ValueError
        It is no such file; the message names it.
    """
    wanted = TrainingDynamics._fields
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in wanted}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must hold training dynamics, numpy.savez(path, "
            f"**stats.training_dynamics()._asdict()); got {type(error).__name__}: {error}"
        ) from None
    shapes = {array.shape for array in arrays.values()}
    kinds = {array.dtype.kind for array in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not kinds <= set("iuf"):
        raise ValueError(f"{path} must hold numbers (samples,), got {sorted(shapes)}")
    return TrainingDynamics(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def write_data_maps(files: Sequence[str | Path], folder: str | Path) -> Path:
    """Write ``folder/index.html`` with the data map of each file, and return its path.

    Parameters
    ----------
    files
        Of training dynamics; see `read_dynamics`.

    Raises
    ------
    ValueError
        A file holds something else.
    OSError
        The page cannot be written; the one before is intact.
    """
    sections, contents = [], []
    for i, file in enumerate(files):
        name, identifier = Path(file).stem, f"data-map-{i + 1}"
        sections.append(_section(identifier, name, read_dynamics(file)))
        contents.append((identifier, name))
    lead = element("p", EXPLAINED) + "\n"
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page("How samples were learned", lead, sections, contents).encode())
    return path


def _section(identifier: str, name: str, dynamics: TrainingDynamics) -> Markup:
    labeled = int((dynamics.observations > 0).sum())
    drawn = min(labeled, MOST_DRAWN)
    text = f"{labeled:,} labeled samples" + (f", of which {drawn:,} are drawn" * (drawn < labeled))
    chart = both_widths(lambda w, h: data_map(dynamics, w, h), _described(dynamics))
    key = legend([*STYLES.items()], lines=False)
    tables = [data_map_table(dynamics), _suspects(dynamics)]
    return section(identifier, name, f"{text}.", joined([key, chart]), tables)


def _suspects(dynamics: TrainingDynamics) -> Table:
    """Return the samples with the lowest area under the margin."""
    ids = (dynamics.observations > 0).nonzero().squeeze(1)
    ids = ids[dynamics.aum[ids].argsort(stable=True)][:SUSPECTS]
    rows = [
        [
            str(i),
            str(int(dynamics.targets[i])),
            f"{dynamics.aum[i]:.3g}",
            f"{dynamics.confidence[i]:.3f}",
            f"{int(dynamics.correct[i])} of {int(dynamics.observations[i])}",
        ]
        for i in ids.tolist()
    ]
    header = ["sample", "label", "area under the margin", "confidence", "predicted"]
    return Table(header, rows, "Labels to look at first: the lowest area under the margin")


def _described(dynamics: TrainingDynamics) -> str:
    rows = data_map_table(dynamics).rows
    return "Confidence against variability: " + ", ".join(f"{n} {name}" for name, n, *_ in rows)

"""The statistics of two trackers combined, by the parallel form of Welford's update."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dynal_fast.pool.training import merge_training

ROWS_AT_A_TIME = 4096
LATEST_WINS = (
    "cycle_discrepancy",
    "teacher_discrepancy",
    "last_entropy",
    "last_top",
    "last_margin",
)


def merge_states(state: Mapping[str, Tensor], later: Mapping[str, Tensor]) -> None:
    """Add ``later`` to ``state`` in place, as if its observations had followed.

    Both hold the tensors of `dynal_fast.ops.pool_stats` by name, for the same samples; the label
    counts of ``state`` must have room for the sums.
    """
    for rows in slices(len(next(iter(state.values()), ()))):
        _merge_rows(
            {name: tensor[rows] for name, tensor in state.items()},
            {name: tensor[rows] for name, tensor in later.items()},
        )


def slices(rows: int) -> Iterator[slice]:
    """Yield slices of ``rows`` rows that keep temporaries small.

    >>> list(slices(5000))
    [slice(0, 4096, None), slice(4096, 5000, None)]
    """
    for start in range(0, rows, ROWS_AT_A_TIME):
        yield slice(start, min(rows, start + ROWS_AT_A_TIME))


def _merge_rows(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    if "count" in a:
        _merge_moments(a, b, "count", "mean", "m2", "class_m2")
        if "entropy_sum" in a:
            a["entropy_sum"].add_(b["entropy_sum"])
    if "logit_count" in a:
        _merge_moments(a, b, "logit_count", "logit_mean", "logit_m2", "")
    if "label_counts" in a:
        a["label_counts"].copy_(
            a["label_counts"].to(torch.int32) + b["label_counts"].to(torch.int32)
        )
    if "increase_count" in a:
        a["increase_count"].add_(b["increase_count"])
        a["increase_sum"].add_(b["increase_sum"])
        _replace(a["previous_output"], b["previous_output"], b["increase_count"] > 0)
    if "output" in a:
        latest = "latest_output" if "latest_output" in a else "output"
        earlier = "output" if "latest_output" in b else latest
        replace_known(a[earlier], b["output"])
        if "latest_output" in b:
            replace_known(a[latest], b["latest_output"])
            squares = (a[latest].float() - a["output"].float()).square().sum(dim=1)
            alone = b["cycle_discrepancy"].isnan()  # no earlier output to compare with
            _replace(a["cycle_discrepancy"], squares, alone & ~b["latest_output"][:, 0].isnan())
    if "training" in a:
        merge_training(a["training_count"], a["training"], b["training_count"], b["training"])
    for name in LATEST_WINS:
        if name in a:
            _replace(a[name], b[name], ~b[name].isnan())


def _merge_moments(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], count: str, mean: str, m2: str, class_m2: str
) -> None:
    """Chan, Golub and LeVeque: M2 = M2_a + M2_b + delta^2 n_a n_b / n, in float64."""
    n_a, n_b = a[count].double(), b[count].double()
    n = (n_a + n_b).clamp(min=1)
    delta = b[mean].double() - a[mean].double()
    between = delta.square() * (n_a * n_b / n)[:, None]
    a[mean].copy_(a[mean].double() + delta * (n_b / n)[:, None])
    a[count].add_(b[count])
    if m2 in a:
        a[m2].copy_(a[m2].double() + b[m2].double() + between.sum(dim=1))
    if class_m2 in a:
        a[class_m2].copy_(a[class_m2].double() + b[class_m2].double() + between)


def replace_known(target: Tensor, source: Tensor) -> None:
    """Copy the rows of outputs ``(rows, classes)`` that are not NaN in ``source``."""
    _replace(target, source, ~source[:, 0].isnan())


def _replace(target: Tensor, source: Tensor, where: Tensor) -> None:
    where = where.view(-1, *[1] * (target.ndim - 1))
    target.copy_(torch.where(where, source, target))

"""The statistics of two trackers combined, by the parallel form of Welford's update."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dynal_fast.ops.pool_stats import DROPPED, STAMP_STEP
from dynal_fast.pool.candidates import first_ids
from dynal_fast.pool.training import merge_training

ROWS_AT_A_TIME = 4096
LATEST_WINS = (
    "cycle_discrepancy",
    "teacher_discrepancy",
    "last_entropy",
    "last_top",
    "last_margin",
)

ORDERED = (*LATEST_WINS, "output", "latest_output")  # those of the last output
CURE = "give each sample to the same tracker in every pass, or let PoolStats(..., group=...) do it"


def check_increase(state: Mapping[str, Tensor], later: Mapping[str, Tensor], begin: int) -> None:
    """Raise ``ValueError`` if both saw a sample and ``absolute_increase`` is kept.

    The step from the last output here to the first one there is not in the sums.
    """
    if "increase_count" in state:
        both = (state["increase_count"] > 0) & (later["increase_count"] > 0)
        ids = begin + both.nonzero().squeeze(1)
        if len(ids):
            raise ValueError(
                f"merge cannot add up absolute_increase of {len(ids)} samples that both trackers "
                f"observed, as the step between their outputs is in neither: {first_ids(ids)}; "
                f"{CURE}"
            )


def check_order(
    state: Mapping[str, Tensor],
    later: Mapping[str, Tensor],
    stamp: Tensor,
    later_stamp: Tensor,
    begin: int,
) -> None:
    """Raise ``ValueError`` if trackers that shared the passes saw a sample in turns.

    They did if the passes that last saw it differ. Statistics of the last output then need the
    later one of the two, and training dynamics need all observations in their order.

    Parameters
    ----------
    stamp, later_stamp
        int32 (N,): by pass, as `dynal_fast.ops.pool_stats` keeps them.
    begin
        The id of the first sample.
    """
    here, there = stamp // STAMP_STEP, later_stamp // STAMP_STEP
    both = (stamp > 0) & (later_stamp > 0) & (stamp != DROPPED) & (later_stamp != DROPPED)
    what, wrong = "statistics of the last output (cod, emaod, entropy, ...)", torch.zeros_like(both)
    for name in ORDERED:
        if name in state and name in later:
            wrong |= both & (here > there) & known(state[name]) & known(later[name])
    if "training_count" in state and not bool(wrong.any()):
        what = "training dynamics (forgetting events, first learned)"
        wrong = both & (here != there)
        wrong &= (state["training_count"] > 0) & (later["training_count"] > 0)
    ids = begin + wrong.nonzero().squeeze(1)
    if len(ids):
        raise ValueError(
            f"merge cannot order the {what} of {len(ids)} samples that both trackers observed, in "
            f"passes of the same epochs: {first_ids(ids)}; {CURE}. If all of the other's "
            "observations came after those here, say follows=True"
        )


def known(values: Tensor) -> Tensor:
    """Return which samples have a value that is not NaN, (N,) bool."""
    return ~(values if values.ndim == 1 else values[:, 0]).isnan()


def merge_states(
    state: Mapping[str, Tensor], later: Mapping[str, Tensor], observed: bool = True
) -> None:
    """Add ``later`` to ``state`` in place, as if its observations had followed.

    Both hold the tensors of `dynal_fast.ops.pool_stats` by name, for the same samples; the label
    counts of ``state`` must have room for the sums. ``observed`` says whether ``later`` had a pass
    in its last cycle.
    """
    for rows in slices(len(next(iter(state.values()), ()))):
        _merge_rows(
            {name: tensor[rows] for name, tensor in state.items()},
            {name: tensor[rows] for name, tensor in later.items()},
            observed,
        )


def slices(rows: int) -> Iterator[slice]:
    """Yield slices of ``rows`` rows that keep temporaries small.

    >>> list(slices(5000))
    [slice(0, 4096, None), slice(4096, 5000, None)]
    """
    for start in range(0, rows, ROWS_AT_A_TIME):
        yield slice(start, min(rows, start + ROWS_AT_A_TIME))


def _merge_rows(a: Mapping[str, Tensor], b: Mapping[str, Tensor], observed: bool) -> None:
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
        if observed and "latest_output" not in b:
            squares = (b["output"].float() - a["output"].float()).square().sum(dim=1)
            alone = b["cycle_discrepancy"].isnan()  # b saw it once, with nothing to compare with
            _replace(a["cycle_discrepancy"], squares, alone & known(b["output"]))
        replace_known(a[earlier], b["output"])
        if "latest_output" in b:
            replace_known(a[latest], b["latest_output"])
            squares = (a[latest].float() - a["output"].float()).square().sum(dim=1)
            alone = b["cycle_discrepancy"].isnan()  # no earlier output to compare with
            _replace(a["cycle_discrepancy"], squares, alone & known(b["latest_output"]))
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
    _replace(target, source, known(source))


def _replace(target: Tensor, source: Tensor, where: Tensor) -> None:
    where = where.view(-1, *[1] * (target.ndim - 1))
    target.copy_(torch.where(where, source, target))

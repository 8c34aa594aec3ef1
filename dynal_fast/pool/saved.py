"""Checks of a saved state of the pool statistics, before any of it is loaded."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dynal_fast.ops.addressable import check_addressable
from dynal_fast.ops.pool_stats import DROPPED, LOGIT_LIMIT, MAX_PASSES, STAMP_STEP, STATE
from dynal_fast.ops.pool_stats.contract import LABEL_DTYPES, TRAINING, check_tensor
from dynal_fast.pool.merge import slices
from dynal_fast.pool.schedule import EveryEpoch, Schedule
from dynal_fast.pool.tracked import in_force

# The tensor of each part that counts the observations of each sample.
COUNTERS = {
    "probabilities": "count",
    "logits": "logit_count",
    "labels": "label_counts",
    "increase": "increase_count",
    "training": "training_count",
}
OPTIONAL = ("unknown_end", "epochs", "activation", "latest_output")
FREE = {"unknown_end": ((), torch.bool), "epochs": ((2,), torch.int64)}  # their shapes and dtypes
MAX_LABEL_PASSES = torch.iinfo(LABEL_DTYPES[-1]).max

_ROUNDED = 1e-3  # tolerance for rounding
_PROBABILITY = (-_ROUNDED, 1 + _ROUNDED)
_DISTANCE = (0.0, 2 + _ROUNDED)
_FINITE = torch.finfo(torch.float32).max
# Lowest and highest value of an observed sample.
RANGES: dict[str, tuple[float, float]] = {
    "count": (0, MAX_PASSES),
    "mean": _PROBABILITY,
    "m2": (0, _FINITE),
    "class_m2": (0, _FINITE),
    "entropy_sum": (-_ROUNDED, _FINITE),
    "logit_count": (0, MAX_PASSES),
    "logit_mean": (-LOGIT_LIMIT, LOGIT_LIMIT),
    "logit_m2": (0, _FINITE),
    "label_counts": (0, MAX_LABEL_PASSES),
    "increase_count": (0, MAX_PASSES),
    "increase_sum": (0, _FINITE),
    "previous_output": _PROBABILITY,
    "output": _PROBABILITY,
    "latest_output": _PROBABILITY,
    "cycle_discrepancy": _DISTANCE,
    "teacher_discrepancy": _DISTANCE,
    "last_entropy": (-_ROUNDED, _FINITE),
    "last_top": _PROBABILITY,
    "last_margin": _PROBABILITY,
    "training_count": (0, MAX_PASSES),
}
TRAINING_RANGES = {
    "mean": _PROBABILITY,
    "m2": (0, _FINITE),
    "correct": (0, MAX_PASSES),
    "flips": (0, MAX_PASSES),
    "first_learned": (0, MAX_PASSES),
    "margin_sum": (-_FINITE, _FINITE),
    "error_sum": (0, _FINITE),
    "target": (0, _FINITE),
}


def key_of(name: str, k: int) -> str:
    """Return the name in a saved state of tensor ``name`` of set k.

    >>> key_of("mean", 0), key_of("mean", 1)
    ('mean', 'mean.1')
    """
    return name if k == 0 else f"{name}.{k}"


def check_saved(
    saved: Mapping[str, Tensor], mine: Mapping[str, Tensor], parts: list[dict[str, Schedule]]
) -> None:
    """Check that ``saved`` is a state like ``mine``, and that its values are possible.

    Parameters
    ----------
    parts
        For each set, the schedules of its parts.

    Raises
    ------
    ValueError
        Names, shapes, dtypes, schedules or the activation differ; a count, a stamp or a value is
        one that passes over a pool cannot leave behind; or the counts contradict each other.
    TypeError
        It is not a mapping, or a value is not a tensor.
    """
    if not isinstance(saved, Mapping):
        raise TypeError(f"state_dict must map names to tensors, got {type(saved).__name__}")
    _check_activation(saved, mine)
    _check_names(saved, mine)
    for key, tensor in saved.items():
        _check_tensor(key, tensor, mine)
    _check_schedules(saved["schedules"], mine["schedules"])
    if bool(saved.get("unknown_end", False)):
        _check_latest_output(saved, parts)
    passes, label_passes = int(saved["passes"]), saved["label_passes"].tolist()
    if not 0 <= passes <= MAX_PASSES:
        raise ValueError(f"passes must be between 0 and {MAX_PASSES}, got {passes}")
    first, last = saved.get("epochs", torch.ones(2)).tolist()
    if not 1 <= first <= last:
        raise ValueError(f"epochs must be the first and the last one, got {first} and {last}")
    if not all(0 <= n <= MAX_LABEL_PASSES for n in label_passes):
        raise ValueError(f"label_passes must not be negative or overflow, got {label_passes}")
    for k, schedules in enumerate(parts):
        tensors = {name: saved[key_of(name, k)] for name in STATE if key_of(name, k) in saved}
        stamp = saved[key_of("stamp", k)]
        _check_stamps(key_of("stamp", k), stamp, saved["stamp"], passes)
        for rows in slices(len(stamp)):
            part = {name: tensor[rows] for name, tensor in tensors.items()}
            for name, values in part.items():
                _check_range(key_of(name, k), name, values, rows.start)
            _check_counts(part, schedules, label_passes[k], k, rows.start)


def _check_activation(saved: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> None:
    """Check that both are of one activation, that of a state without an entry being softmax."""
    for state in (saved, mine):
        check_tensor("activation", state.get("activation", torch.empty(0)))
    names = [
        bytes(state["activation"].tolist()).decode(errors="replace")
        if "activation" in state
        else "softmax"
        for state in (mine, saved)
    ]
    if names[0] != names[1]:
        raise ValueError(f"activation must be {names[0]!r}, got a state of {names[1]!r} outputs")


def _check_names(saved: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> None:
    def required(names: Mapping[str, Tensor]) -> set[str]:
        return {name for name in names if str(name).split(".")[0] not in OPTIONAL}

    lacking = required(mine) - set(saved)
    unexpected = {*required(saved) - set(mine)}
    outputs = {name.replace("latest_", "") for name in saved if str(name).startswith("latest_")}
    unexpected |= {f"latest_{name}" for name in outputs - set(mine)}
    if lacking or unexpected:
        raise ValueError(
            f"state_dict lacks {sorted(lacking)} and has unexpected "
            f"{sorted(unexpected, key=str)}: were track and schedules the same?"
        )


def _check_latest_output(saved: Mapping[str, Tensor], parts: list[dict[str, Schedule]]) -> None:
    """Check that there is a latest output where passes without ``num_epochs`` keep one."""
    for k, schedules in enumerate(parts):
        every = "cycle" in schedules and in_force("cycle", schedules["cycle"], None) == EveryEpoch()
        if every and key_of("latest_output", k) not in saved:
            raise ValueError(f"state_dict lacks {key_of('latest_output', k)!r}")


def _check_tensor(key: str, tensor: Tensor, mine: Mapping[str, Tensor]) -> None:
    check_tensor(key, tensor)
    check_addressable(key, tensor)
    if tensor.is_meta:
        raise ValueError(f"{key} must hold values, got a tensor on meta, which has none")
    like = mine[key.replace("latest_output", "output")] if key not in FREE else None
    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    if key in ("schedules", "activation"):
        shape, dtypes = tuple(tensor.shape[:1]), (torch.uint8,)
    elif like is None:
        shape, dtypes = FREE[key][0], (FREE[key][1],)
    else:
        labels = key.startswith("label_counts")
        shape, dtypes = tuple(like.shape), LABEL_DTYPES if labels else (like.dtype,)
    if tensor.shape != shape or tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(
            f"{key} must be {shape} {wanted}, got {tuple(tensor.shape)} {tensor.dtype}"
        )


def _check_schedules(theirs: Tensor, mine: Tensor) -> None:
    if not torch.equal(theirs.cpu(), mine):
        ours, others = (bytes(t.tolist()).decode(errors="replace") for t in (mine, theirs))
        raise ValueError(f"schedules must be {ours!r}, got {others!r}")


def _check_stamps(key: str, stamp: Tensor, first: Tensor, passes: int) -> None:
    dropped = stamp == DROPPED
    last = STAMP_STEP * passes + STAMP_STEP - 1
    _refuse(key, stamp, (stamp < 0) | ((stamp > last) & ~dropped), 0, f"passes = {passes}")
    other = dropped != (first == DROPPED).to(dropped.device)
    _refuse(key, stamp, other, 0, "what is dropped in the first stamp")


def _check_range(key: str, name: str, values: Tensor, start: int) -> None:
    if name == "training":
        for column, named in zip(values.unbind(1), TRAINING, strict=True):
            low, high = TRAINING_RANGES[named]
            bad = ~((column >= low) & (column <= high))
            _refuse(f"{key} ({named})", column, bad, start, f"its range, {low:.7g} to {high:.7g}")
        return
    low, high = RANGES[name]
    if values.dtype in (torch.uint8, torch.uint16):
        return
    bad = ~((values >= low) & (values <= high))
    if math.isnan(STATE[name].fresh):  # samples never observed are NaN, in all classes
        unknown = values.isnan()
        bad &= ~(unknown.all(dim=1, keepdim=True) if values.ndim == 2 else unknown)
    _refuse(key, values, bad, start, f"its range, {low:.7g} to {high:.7g}")


def _check_counts(
    tensors: Mapping[str, Tensor],
    schedules: Mapping[str, Schedule],
    label_passes: int,
    k: int,
    start: int,
) -> None:
    """Check the counts: equal for parts on one schedule, labels at most one for each pass."""
    seen: list[tuple[Schedule, str, Tensor]] = []
    for part, schedule in schedules.items():
        if part not in COUNTERS or part == "training":  # which counts labeled samples only
            continue
        name = COUNTERS[part]
        counts = tensors[name].to(torch.int64)
        if part == "labels":
            counts = counts.sum(dim=1)
            _refuse(key_of(name, k), counts, counts > label_passes, start,
                    f"label_passes = {label_passes}")  # fmt: skip
        for same, other_name, other in seen:
            if same == schedule:
                different = counts != other.to(counts.device)
                _refuse(key_of(name, k), counts, different, start, key_of(other_name, k))
        seen.append((schedule, name, counts))


def _refuse(key: str, values: Tensor, bad: Tensor, start: int, beside: str) -> None:
    if bool(bad.any()):
        at = bad.nonzero()[0]
        value = values[tuple(at)].item()
        raise ValueError(f"{key} of sample {start + int(at[0])} is {value}, against {beside}")

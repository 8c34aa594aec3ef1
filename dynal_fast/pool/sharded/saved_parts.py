"""Saved states of several ranks, put together for one."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dynal_fast.ops.pool_stats import STATE
from dynal_fast.ops.pool_stats.contract import check_tensor
from dynal_fast.pool.sharded.shard import Shard

KEY = "shard"  # int64 (3,): the first sample, the one after the last, and N


def own_rows(saved: Any, shard: Shard) -> Mapping[str, Tensor]:
    """Return the state of this rank's samples from one saved state, or from those of some ranks.

    Raises
    ------
    ValueError
        Rows are missing or there twice, or the states were not saved at the same time.
    TypeError
        It is neither a mapping nor several of them.
    """
    parts = [saved] if isinstance(saved, Mapping) else _several(saved)
    if len(parts) == 1 and KEY not in parts[0] and shard.is_whole:
        return parts[0]
    spans = [_span(part, shard) for part in parts]
    needed = sorted(
        (begin, end, part)
        for part, (begin, end) in enumerate(spans)
        if begin < shard.end and end > shard.begin
    )
    at = shard.begin
    for begin, end, _ in needed:
        if begin > at:
            break
        if begin < at and at > shard.begin:
            raise ValueError(f"two of the saved states hold the samples {begin} to {at - 1}")
        at = end
    if at < shard.end:
        given = ", ".join(f"{begin} to {end - 1}" for begin, end in spans if begin < end)
        raise ValueError(
            f"{shard} needs the samples {shard.begin} to {shard.end - 1}, and the saved states "
            f"hold {given or 'none'}: pass the states of all ranks, as a list"
        )
    used = [parts[part] for _, _, part in needed] or parts[:1]
    _check_alike(parts)
    own: dict[str, Tensor] = {}
    for key, value in used[0].items():
        if key == KEY:
            continue
        if not is_of_samples(key):
            own[key] = value
            continue
        pieces = []
        for part in used:
            begin, end = _span(part, shard)
            check_tensor(key, part[key])
            if part[key].ndim == 0 or len(part[key]) != end - begin:
                raise ValueError(
                    f"{key} must have a row for each of the samples {begin} to {end - 1}, got "
                    f"shape {tuple(part[key].shape)}"
                )
            low, high = max(begin, shard.begin), min(end, shard.end)
            pieces.append(part[key][low - begin : max(low, high) - begin])
        own[key] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return own


def is_of_samples(key: Any) -> bool:
    """Return whether a tensor of a saved state has a row for each sample.

    >>> is_of_samples("mean.1"), is_of_samples("stamp"), is_of_samples("passes")
    (True, True, False)
    """
    name = str(key).split(".")[0]
    return name in STATE or name == "stamp"


def _several(saved: Any) -> list[Mapping[str, Tensor]]:
    if not isinstance(saved, Iterable) or isinstance(saved, str | bytes | Tensor):
        raise TypeError(f"state_dict must map names to tensors, got {type(saved).__name__}")
    parts = list(saved)
    for part in parts:
        if not isinstance(part, Mapping):
            raise TypeError(f"each state_dict must map names to tensors, got {type(part).__name__}")
    if not parts:
        raise ValueError("state_dict must be a state or the parts of one, got none")
    return parts


def _span(part: Mapping[str, Tensor], shard: Shard) -> tuple[int, int]:
    if KEY not in part:
        return 0, shard.num_samples
    check_tensor(KEY, part[KEY])
    if part[KEY].shape != (3,) or part[KEY].dtype != torch.int64:
        raise ValueError(f"{KEY} must be (3,) torch.int64, got {tuple(part[KEY].shape)}")
    begin, end, samples = part[KEY].tolist()
    if samples != shard.num_samples or not 0 <= begin <= end <= samples:
        raise ValueError(
            f"{KEY} must be of {shard.num_samples} samples, got {begin} to {end} of {samples}"
        )
    return begin, end


def _check_alike(parts: list[Mapping[str, Tensor]]) -> None:
    """Check that the states are of one time: all but the rows is the same in each."""
    first = parts[0]
    for part in parts[1:]:
        if set(part) != set(first):
            raise ValueError(
                f"the saved states differ in {sorted(set(part) ^ set(first), key=str)}"
            )
        for key in first:
            if key == KEY or is_of_samples(key):
                continue
            check_tensor(key, part[key])
            if not torch.equal(first[key].cpu(), part[key].cpu()):
                raise ValueError(
                    f"the saved states were not saved at the same time: {key} is "
                    f"{first[key].tolist()} and {part[key].tolist()}"
                )

"""The kernel variants of the pool statistics that must compile."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.ahead_of_time.variant import Variant
from dynal_fast.ops.pool_stats import MAX_UNKNOWN_IDS, STATE, Head, Tracker, triton

BATCH, SAMPLES, WIDTH = 64, 256, 768
TYPICAL = ("count", "mean", "m2", "label_counts", "last_entropy", "last_top", "last_margin")
TRACKED = {"typical": TYPICAL, "everything": tuple(STATE)}
LIGHT = {
    "training": (*TYPICAL, "training_count", "training"),  # labeled samples
    "labels": ("count", "mean", "m2", "entropy_sum", "last_top", "last_margin"),  # of sigmoids
    "outputs": ("increase_count", "increase_sum", "previous_output", "output", "cycle_discrepancy"),
    "variances": ("count", "mean", "m2", "class_m2", "entropy_sum"),
}


def variants() -> Iterator[Variant]:
    """Yield both regimes of rows, each source of logits, little and everything tracked."""
    for tracked in TRACKED:
        for num_classes in (10, 1000, 21_841):
            yield _update(num_classes, tracked, torch.float32)
        for num_classes in (100, 1000):
            yield _update_from_features(num_classes, tracked, torch.bfloat16)
    yield _update(100, "typical", torch.float32)
    yield _update(4096, "everything", torch.float32)
    yield _update(1000, "everything", torch.float16)
    yield _update(1000, "typical", torch.bfloat16)
    yield _update(21_841, "everything", torch.float64)
    for num_classes in (100, 1000):
        yield _update_from_features(num_classes, "typical", torch.float32)
    for tracked in ("outputs", "variances"):
        yield _update_from_features(1000, tracked, torch.float16)
    yield _update_from_features(100, "variances", torch.float16)
    for num_classes in (100, 21_841):
        yield _update(num_classes, "training", torch.float32)
    for num_classes in (100, 1000):
        yield _update_from_features(num_classes, "training", torch.bfloat16)
    # A multi-label head: each kernel once.
    for num_classes in (100, 21_841):
        yield _update(num_classes, "labels", torch.float32)
    for num_classes in (100, 1000):
        yield _update_from_features(num_classes, "labels", torch.bfloat16)
    yield _update_from_features(1000, "labels", torch.float32)


def _update(num_classes: int, tracked: str, dtype: torch.dtype) -> Variant:
    teacher = tracked == "everything"
    logits = torch.zeros(BATCH, num_classes, dtype=dtype)
    tracker = _tracker(num_classes, tracked)
    theirs, targets = logits if teacher else None, _targets(tracked)
    call = partial(triton.update, _ids(), logits, theirs, tracker, targets)
    return Variant(f"update C={num_classes} {_name(dtype)} {tracked}", call)


def _update_from_features(num_classes: int, tracked: str, dtype: torch.dtype) -> Variant:
    head = Head(
        torch.zeros(BATCH, WIDTH, dtype=dtype),
        torch.zeros(num_classes, WIDTH, dtype=dtype),
        torch.zeros(num_classes, dtype=dtype),
    )
    teacher = head if tracked == "everything" else None
    tracker = _tracker(num_classes, tracked)
    targets = _targets(tracked)
    call = partial(triton.update_from_features, _ids(), head, teacher, tracker, targets)
    return Variant(f"update_from_features C={num_classes} {_name(dtype)} {tracked}", call)


def _ids() -> torch.Tensor:
    return torch.arange(BATCH)


def _targets(tracked: str) -> torch.Tensor | None:
    return torch.zeros(BATCH, dtype=torch.int64) if tracked == "training" else None


def _tracker(num_classes: int, tracked: str) -> Tracker:
    state = {}
    for name in (TRACKED | LIGHT)[tracked]:
        shape = STATE[name].shape(SAMPLES, num_classes)
        state[name] = torch.zeros(shape, dtype=STATE[name].dtypes[0])
    return Tracker(
        torch.zeros(1, dtype=torch.int32),
        torch.zeros(SAMPLES, dtype=torch.int32),
        torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64),
        state,
        "sigmoid" if tracked == "labels" else "softmax",
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

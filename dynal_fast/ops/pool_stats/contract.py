"""What one update of the pool statistics reads and writes, and the checks of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dynal_fast.ops import dtypes
from dynal_fast.ops.addressable import check_addressable

HALVES = (torch.float16, torch.bfloat16)
LOGIT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
ID_DTYPES = (torch.int32, torch.int64)
OUTPUT_DTYPES = (torch.float32, torch.float16)
LABEL_DTYPES = (torch.uint8, torch.uint16, torch.int32)

# How logits become probabilities: of classes that exclude each other, or of labels that do not.
ACTIVATIONS = ("softmax", "sigmoid")

# A stamp is 4 * pass number + flags; passes count from 1, so that 0 is "never seen".
STAMP_STEP = 4
NON_FINITE = 1
DUPLICATE = 2
DROPPED = 2**31 - 1
MAX_PASSES = DROPPED // STAMP_STEP - 1

# With logit_count, a row with a logit beyond +-2^40 counts as not finite, lest logit_m2 overflow
# float32. Up to 2^40 it cannot, with 2^19 classes in each of MAX_PASSES passes.
LOGIT_LIMIT = 2.0**40

# unknown_ids[0] is their number, the rest holds the first few.
MAX_UNKNOWN_IDS = 15


@dataclass(frozen=True)
class StateTensor:
    """One tensor of the state: its part, axes, dtypes and initial value.

    ``kept``: ``begin_cycle`` does not reset it. ``columns``: of a tensor with a few numbers per
    sample, which are read and written together.
    """

    part: str
    per_class: bool
    dtypes: tuple[torch.dtype, ...]
    fresh: float
    kept: bool = False
    columns: int = 0

    def shape(self, num_samples: int, num_classes: int | None) -> tuple[int, ...]:
        """Its shape for so many samples and classes."""
        if self.per_class:
            assert num_classes is not None
            return num_samples, num_classes
        return (num_samples, self.columns) if self.columns else (num_samples,)


# The columns of ``training``.
TRAINING = (
    "mean",  # of the target's probability p_y
    "m2",  # its Welford M2
    "correct",  # how often the target was predicted
    "flips",  # how often that changed, from not predicted before the first observation
    "first_learned",  # the observation, from 1, that first predicted it; 0: none
    "margin_sum",  # of the target's logit minus the largest other one
    "error_sum",  # of ||p - onehot(target)||_2
    "target",
)
_INT = (torch.int32,)
_FLOAT = (torch.float32,)
_NAN = float("nan")

# In the order of the operator's arguments.
STATE: dict[str, StateTensor] = {
    "count": StateTensor("probabilities", False, _INT, 0),
    "mean": StateTensor("probabilities", True, _FLOAT, 0),
    "m2": StateTensor("probabilities", False, _FLOAT, 0),
    "class_m2": StateTensor("probabilities", True, _FLOAT, 0),
    "entropy_sum": StateTensor("probabilities", False, _FLOAT, 0),
    "logit_count": StateTensor("logits", False, _INT, 0),
    "logit_mean": StateTensor("logits", True, _FLOAT, 0),
    "logit_m2": StateTensor("logits", False, _FLOAT, 0),
    "label_counts": StateTensor("labels", True, LABEL_DTYPES, 0),
    "increase_count": StateTensor("increase", False, _INT, 0),
    "increase_sum": StateTensor("increase", False, _FLOAT, 0),
    "previous_output": StateTensor("increase", True, OUTPUT_DTYPES, 0),
    "output": StateTensor("cycle", True, OUTPUT_DTYPES, _NAN, kept=True),
    "latest_output": StateTensor("cycle", True, OUTPUT_DTYPES, _NAN),
    "cycle_discrepancy": StateTensor("cycle", False, _FLOAT, _NAN),
    "teacher_discrepancy": StateTensor("teacher", False, _FLOAT, _NAN),
    "last_entropy": StateTensor("last", False, _FLOAT, _NAN),
    "last_top": StateTensor("last", False, _FLOAT, _NAN),
    "last_margin": StateTensor("last", False, _FLOAT, _NAN),
    "training_count": StateTensor("training", False, _INT, 0),
    "training": StateTensor("training", False, _FLOAT, 0, columns=len(TRAINING)),
}
# What each part needs; its other tensors are optional.
REQUIRED = {
    "probabilities": ("count", "mean"),
    "logits": ("logit_count", "logit_mean", "logit_m2"),
    "labels": ("label_counts",),
    "increase": ("increase_count", "increase_sum", "previous_output"),
    "cycle": ("output", "cycle_discrepancy"),
    "teacher": ("teacher_discrepancy",),
    "last": (),
    "training": ("training_count", "training"),
}


class Tracker(NamedTuple):
    """What an update writes to: the stamps of N samples, and their state by name (`STATE`).

    ``activation`` is one of `ACTIVATIONS`.
    """

    pass_stamp: Tensor  # (1,) int32, which is only read
    stamp: Tensor  # (N,) int32
    unknown_ids: Tensor  # (1 + MAX_UNKNOWN_IDS,) int64
    state: Mapping[str, Tensor]
    activation: str = "softmax"


class Head(NamedTuple):
    """A linear head and its inputs: logits are ``features @ weight.T + bias``."""

    features: Tensor  # (batch, d)
    weight: Tensor  # (classes, d)
    bias: Tensor | None  # (classes,)


def check_tracker(tracker: Tracker) -> None:
    """Raise ``ValueError`` unless the tensors fit together: kernels do not check them."""
    pass_stamp, stamp, unknown_ids, state, activation = tracker
    check_activation(activation)
    stamps = {"stamp": stamp, "unknown_ids": unknown_ids, "pass_stamp": pass_stamp}
    for name, tensor in {**stamps, **state}.items():
        check_tensor(name, tensor)
        check_addressable(name, tensor)
    if stamp.ndim != 1 or stamp.dtype != torch.int32:
        raise ValueError(f"stamp must be (num_samples,) int32, got {_describe(stamp)}")
    for name, tensor, size, dtype in (
        ("unknown_ids", unknown_ids, 1 + MAX_UNKNOWN_IDS, torch.int64),
        ("pass_stamp", pass_stamp, 1, torch.int32),
    ):
        if tensor.shape != (size,) or tensor.dtype != dtype:
            raise ValueError(f"{name} must be ({size},) {dtype}, got {_describe(tensor)}")
    unknown = [name for name in state if name not in STATE]
    if unknown:
        raise ValueError(f"state has unknown tensors {unknown}; it may have {list(STATE)}")
    for part in {STATE[name].part for name in state}:
        missing = [name for name in REQUIRED[part] if name not in state]
        if missing and (part != "logits" or "logit_count" in missing):
            raise ValueError(f"state has part {part!r} without {missing}")
    for name in ("label_counts", "training") if activation == "sigmoid" else ():
        if name in state:
            raise ValueError(
                f"{name} needs activation='softmax', got 'sigmoid': a sample may have several of "
                "the labels, so that no single one is predicted"
            )
    num_samples, num_classes = len(stamp), num_classes_of(state)
    for name, tensor in {**stamps, **state}.items():
        if tensor.device != stamp.device:
            raise ValueError(f"{name} is on {tensor.device}, stamp on {stamp.device}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous")
    for name, tensor in state.items():
        spec = STATE[name]
        shape = spec.shape(num_samples, num_classes)
        if tensor.shape != shape or tensor.dtype not in spec.dtypes:
            raise ValueError(
                f"{name} must be {shape} {_alternatives(spec.dtypes)}, got {_describe(tensor)}"
            )
    outputs = {state[n].dtype for n in state if STATE[n].dtypes == OUTPUT_DTYPES}
    if len(outputs) > 1:
        raise ValueError(f"the outputs kept must have one dtype, got {_alternatives(outputs)}")


def check_activation(activation: object) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}")


def num_classes_of(state: Mapping[str, Tensor]) -> int | None:
    """C, where some tensor of the state has a class axis."""
    return next((tensor.shape[-1] for name, tensor in state.items() if STATE[name].per_class), None)


def is_ready(
    sample_ids: object,
    logits: object,
    teacher_logits: object,
    num_classes: int | None,
    device: torch.device,
) -> bool:
    """Whether the kernels take a batch: `check_batch`, faster and without a reason."""
    if torch.compiler.is_compiling() or num_classes is None:
        return False
    if type(sample_ids) is not Tensor or sample_ids.dtype not in ID_DTYPES:
        return False
    try:
        if sample_ids.is_nested or sample_ids.dim() != 1:
            return False
        shape = (sample_ids.shape[0], num_classes)
        if not _lies_at_its_address(sample_ids, device) or not _is_ready(logits, shape, device):
            return False
        if teacher_logits is None:
            return True
        return _is_ready(teacher_logits, shape, device) and teacher_logits.dtype is logits.dtype  # type: ignore[attr-defined]
    except RuntimeError:  # a tensor without storage
        return False


def _is_ready(logits: object, shape: tuple[int, int], device: torch.device) -> bool:
    return (
        type(logits) is Tensor
        and logits.dtype in LOGIT_DTYPES
        and not logits.is_nested
        and logits.shape == shape
        and _lies_at_its_address(logits, device)
    )


def _lies_at_its_address(tensor: Tensor, device: torch.device) -> bool:
    """`check_addressable` and more, for a tensor of a real dtype that is not quantized."""
    return (
        tensor.data_ptr() != 0
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and tensor.device == device
    )


def check_batch(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    num_classes: int | None,
    device: torch.device,
    activation: str = "softmax",
) -> None:
    """Raise ``ValueError`` unless the kernels take the batch as it is."""
    check_ids(sample_ids, device)
    rows = len(sample_ids)
    check_tensor("logits", logits)
    check_addressable("logits", logits)
    if teacher_logits is not None:
        check_tensor("teacher_logits", teacher_logits)
        check_addressable("teacher_logits", teacher_logits)
    for name, tensor in (("logits", logits), ("teacher_logits", teacher_logits)):
        if tensor is None:
            continue
        expected = (rows, num_classes if num_classes is not None else logits.shape[-1])
        if tensor.ndim != 2 or tensor.shape != expected:
            raise ValueError(
                f"{name} must be (batch, classes) = {expected}, got {tuple(tensor.shape)}"
            )
        _check_floats(name, tensor, device)
    if logits.shape[1] < 1 + (activation == "softmax"):
        raise ValueError(
            f"logits must have at least 2 classes, got {logits.shape[1]}: the softmax of one "
            "logit is always 1, so no score could tell samples apart (for a binary classifier "
            "with one output z, pass the two columns (0, z))"
        )
    if teacher_logits is not None and teacher_logits.dtype != logits.dtype:
        raise ValueError(
            f"teacher_logits must have the dtype of logits ({logits.dtype}), "
            f"got {teacher_logits.dtype}"
        )


def check_ids(sample_ids: Tensor, device: torch.device) -> None:
    check_tensor("sample_ids", sample_ids)
    check_addressable("sample_ids", sample_ids)
    if sample_ids.ndim != 1 or sample_ids.dtype not in ID_DTYPES:
        raise ValueError(
            f"sample_ids must be (batch,) {_alternatives(ID_DTYPES)}, got {_describe(sample_ids)}"
        )
    _check_placed("sample_ids", sample_ids, device)


def check_targets(targets: Tensor, rows: int, device: torch.device, activation: str) -> None:
    """Raise ``ValueError`` unless the kernels take these targets of a batch of ``rows``."""
    check_tensor("targets", targets)
    check_addressable("targets", targets)
    if activation != "softmax":
        raise ValueError(
            f"targets need activation='softmax', where a sample has one class, got {activation!r}"
        )
    if targets.shape != (rows,) or targets.dtype != torch.int64:
        raise ValueError(f"targets must be (batch,) = ({rows},) int64, got {_describe(targets)}")
    _check_placed("targets", targets, device)


def check_head(
    prefix: str,
    head: Head,
    shape: tuple[int, int | None],
    dtype: torch.dtype,
    device: torch.device,
    activation: str = "softmax",
    by_id: bool = False,
) -> None:
    """Raise ``ValueError`` unless a head of ``dtype`` gives ``shape`` = (batch, classes).

    With ``by_id`` the features have a row for each sample, and may be on another device. Those of a
    float32 head may be float16 or bfloat16.
    """
    rows, num_classes = shape
    of = "num_samples" if by_id else "batch"
    features, weight, bias = head
    tensors = {prefix + "features": features, prefix + "weight": weight}
    if bias is not None:
        tensors[prefix + "bias"] = bias
    for name, tensor in tensors.items():
        check_tensor(name, tensor)
        check_addressable(name, tensor)
    if features.ndim != 2 or len(features) != rows or not features.shape[1]:
        raise ValueError(
            f"{prefix}features must be ({of}, d) with {of} = {rows} and d at least 1, "
            f"got {tuple(features.shape)}"
        )
    width = features.shape[1]
    classes = num_classes if num_classes is not None else len(weight)
    if weight.shape != (classes, width):
        raise ValueError(
            f"{prefix}weight must be (classes, d) = {(classes, width)}, got {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != (classes,):
        raise ValueError(f"{prefix}bias must be (classes,) = ({classes},), got {tuple(bias.shape)}")
    for name, tensor in tensors.items():
        _check_floats(name, tensor, tensor.device if by_id and tensor is features else device)
        narrow = tensor is features and tensor.dtype in HALVES and weight.dtype == torch.float32
        if tensor.dtype != dtype and not narrow:
            raise ValueError(
                f"{name} must have the dtype of features ({dtype}), got {tensor.dtype}"
            )
    if classes < 1 + (activation == "softmax"):
        raise ValueError(
            f"{prefix}weight must have at least 2 classes, got {classes}: the softmax of one "
            "logit is always 1, so no score could tell samples apart"
        )


def check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        kind = type(value)
        given = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
        raise TypeError(f"{name} must be a torch.Tensor, got {given}")


def _check_floats(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.dtype not in LOGIT_DTYPES:
        raise ValueError(f"{name} must be {_alternatives(LOGIT_DTYPES)}, got {tensor.dtype}")
    _check_placed(name, tensor, device)


def _check_placed(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, but the statistics are on {device}")
    if not tensor.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous, got shape {tuple(tensor.shape)} with strides "
            f"{tensor.stride()}; pass {name}.contiguous()"
        )


def _alternatives(accepted: Iterable[torch.dtype]) -> str:
    return " or ".join(map(dtypes.name, accepted))


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {dtypes.name(tensor.dtype)}"

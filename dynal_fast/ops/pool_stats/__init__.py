"""Pool statistics: fold one batch of logits into what is kept per sample, in place, in one pass.

The state is a set of flat tensors, row i for sample i. ``N`` samples, ``C`` classes, ``B`` rows in
a batch; ``p`` is the softmax of the logits, or their sigmoid, in float32. A tensor that is not
passed is neither read nor written, so a pass that only some statistics observe gets only their
tensors.

=================== ======= ================ ==================================================
tensor              shape   dtype            what an update does to the row of a sample
=================== ======= ================ ==================================================
count               (N,)    int32            += 1
mean                (N, C)  float32          Welford mean of p
m2                  (N,)    float32          += sum_c (p_c - old mean_c) (p_c - new mean_c)
class_m2            (N, C)  float32          the same per class
entropy_sum         (N,)    float32          += H(p), in nats
logit_count         (N,)    int32            += 1
logit_mean          (N, C)  float32          Welford mean of the logits
logit_m2            (N,)    float32          as m2, of the logits
label_counts        (N, C)  uint8, uint16,   [argmax of the logits] += 1, the lowest class on ties
                            int32
increase_count      (N,)    int32            += 1
increase_sum        (N,)    float32          += ||p - previous_output||_2, if increase_count was > 0
previous_output     (N, C)  float32, float16 = p
output              (N, C)  float32, float16 = p; NaN before the first time
latest_output       (N, C)  as output        = p, in the place of output, which then stays as it is
cycle_discrepancy   (N,)    float32          = ||p - output||_2^2, before output is replaced
teacher_discrepancy (N,)    float32          = ||p - q||_2^2, q of the teacher's logits
last_entropy        (N,)    float32          = H(p), in nats
last_top            (N,)    float32          = the largest p
last_margin         (N,)    float32          = the largest p minus the second largest
training_count      (N,)    int32            += 1, of a row with a target
training            (N, 8)  float32          of a row with a target: see below
=================== ======= ================ ==================================================

The activation is one for all tensors. With ``"softmax"`` the C classes exclude each other, and
``H(p) = - sum_c p_c ln p_c``. With ``"sigmoid"`` each of C labels is there or not, whatever the
others are: ``p_c = 1 / (1 + exp(-logit_c))`` is the probability of a Bernoulli variable. Then

- ``H(p)`` is the sum of the labels' entropies ``- p_c ln p_c - (1 - p_c) ln (1 - p_c)``;
- ``last_top`` and ``last_margin`` are those of the label that is least sure: the smallest
  ``max(p_c, 1 - p_c)`` and the smallest ``|p_c - (1 - p_c)|``;
- there are no ``label_counts``, since no single label is predicted, and C may be 1.

They come in parts, and `contract.REQUIRED` names what each part needs: ``count`` and ``mean`` go
together, the other three of ``probabilities`` are optional, and so on. With ``logit_count``, a row
with a logit beyond ``LOGIT_LIMIT`` (2^40) counts as not finite, lest its squares overflow float32;
``logit_count`` may be given without the rest of its part, for this check alone.

**Targets.** A batch may have the class y of each row, or a negative number (such as -100) where
there is none. In the row of ``training`` of a sample with a target (`contract.TRAINING`, in this
order): Welford's mean and M2 of p_y; how often y was predicted, the first class on ties; how often
that changed, not predicted being the state before the first observation; which observation was the
first that predicted it; the sums of ``z_y - max_{c != y} z_c`` of the logits z, limited to
``+-LOGIT_LIMIT``, and of ``||p - onehot(y)||_2``; and y. If a sample comes with another target than
before, its row and its count begin anew. A row with a target of C or more counts as not finite.

Three more tensors find bad input without a synchronisation:

- ``pass_stamp`` (1,) int32: 4 times the number of the current pass, counted from 1. It is a tensor
  so that a captured CUDA graph can be replayed in later passes.
- ``stamp`` (N,) int32: the ``pass_stamp`` of the last pass that saw the sample, plus flags. A row
  claims its sample by writing ``pass_stamp`` over an older stamp (with an atomic maximum). A row
  with a non-finite logit (also of the teacher, also minus infinity) claims its sample, adds
  ``NON_FINITE`` to the stamp and changes nothing else. A row whose sample was already claimed in
  this pass adds ``DUPLICATE`` and changes nothing else: the first row counts, whether the second
  comes in the same batch or later. (On a GPU the rows of a batch have no order; one of them
  counts.)
- ``unknown_ids`` (16,) int64: [0] counts the rows whose id is negative, beyond N - 1 or belongs to
  a dropped sample (``stamp == DROPPED``); [1:] are the first 15 such ids (on a GPU: any 15).

Neither the state nor the error record depends on the number of threads or on how a pass is cut into
batches. ``README.md`` lists the files of this operation and counts bytes and operations.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from dynal_fast._triton import require_triton
from dynal_fast.ops.addressable import is_traced
from dynal_fast.ops.backends import Backends, register
from dynal_fast.ops.pool_stats import reference
from dynal_fast.ops.pool_stats.contract import (
    ACTIVATIONS,
    DROPPED,
    DUPLICATE,
    HALVES,
    LOGIT_LIMIT,
    MAX_PASSES,
    MAX_UNKNOWN_IDS,
    NON_FINITE,
    REQUIRED,
    STAMP_STEP,
    STATE,
    Head,
    Tracker,
    check_batch,
    check_head,
    check_ids,
    check_targets,
    check_tracker,
    num_classes_of,
)
from dynal_fast.ops.pool_stats.dropout import Dropout, factors

__all__ = [
    "ACTIVATIONS",
    "BACKENDS",
    "DROPPED",
    "DUPLICATE",
    "Dropout",
    "Head",
    "LOGIT_LIMIT",
    "MAX_PASSES",
    "MAX_UNKNOWN_IDS",
    "NON_FINITE",
    "REQUIRED",
    "STAMP_STEP",
    "STATE",
    "Tracker",
    "pool_stats_update",
    "pool_stats_update_checked",
    "pool_stats_update_from_features",
]


class Implementation(NamedTuple):
    """What every backend does; batch, head and tracker were checked."""

    update: Callable[[Tensor, Tensor, Tensor | None, Tracker, Tensor | None], None]
    update_from_features: Callable[[Tensor, Head, Head | None, Tracker, Tensor | None], None]
    # Reads rows by id, if so told, and features of another dtype than the weights; drops some.
    update_from_store: (
        Callable[[Tensor, Head, Head | None, Tracker, Tensor | None, bool, Dropout | None], None]
        | None
    ) = None


def _cpu() -> Implementation:
    from dynal_fast.ops.pool_stats import cpu

    return Implementation(cpu.update, cpu.update_from_features, cpu.update_from_store)


def _triton() -> Implementation:
    require_triton()
    from dynal_fast.ops.pool_stats import triton

    return Implementation(triton.update, triton.update_from_features)


def _cuda() -> Implementation:  # Triton, but for the heads that a kernel in CUDA C++ is made for
    require_triton()
    from dynal_fast.ops.pool_stats import cuda, triton

    return Implementation(triton.update, cuda.update_from_features)


BACKENDS = Backends(
    {
        "reference": lambda: Implementation(reference.update, reference.update_from_features),
        "cpu": _cpu,
        "triton": _triton,
        "cuda": _cuda,
    },
    defaults={"cpu": "cpu", "cuda": "cuda"},
    devices={"reference": ("cpu",), "cpu": ("cpu",)},
)
PLAIN = (Tensor, Parameter, type(None))


def pool_stats_update(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    pass_stamp: Tensor,
    stamp: Tensor,
    unknown_ids: Tensor,
    state: Mapping[str, Tensor],
    activation: str = "softmax",
    *,
    targets: Tensor | None = None,
    backend: str | None = None,
) -> None:
    """Fold a batch into ``state`` in place; see the table of this module.

    Parameters
    ----------
    sample_ids
        (B,) int32 or int64, in any order.
    logits, teacher_logits
        (B, C) float32, float16, bfloat16 or float64, contiguous; both of one dtype. The teacher's
        are needed for ``teacher_discrepancy`` only.
    pass_stamp, stamp, unknown_ids, state
        The tracker's tensors; ``stamp``, ``unknown_ids`` and those in ``state`` are written.
    activation
        ``"softmax"``, or ``"sigmoid"`` for a multi-label head. The logits do not tell which of the
        two they were trained for.
    targets
        (B,) int64 classes, negative where there is none. Without them ``training`` is not updated.
    backend
        ``"reference"`` (NumPy, float64), ``"cpu"``, ``"triton"``, or ``"cuda"``: Triton too, but
        for the heads that `dynal_fast.ops.pool_stats.cuda` takes. By default the device's.

    Raises
    ------
    ValueError
        A shape, dtype, device or layout is not the one above, C < 2 for the softmax, or the state
        has a tensor that the activation gives no meaning. Bad ids and non-finite rows
        do not raise: they are recorded.
    TypeError
        A part of the batch is no tensor.
    ImportError
        The tensors are on a CUDA device, and Triton is missing or too old.

    Examples
    --------
    >>> state = {"label_counts": torch.zeros(4, 2, dtype=torch.uint8)}
    >>> pool_stats_update(
    ...     torch.tensor([2, 0]),
    ...     torch.tensor([[0.1, 0.9], [3.0, 0.0]]),
    ...     None,
    ...     pass_stamp=torch.tensor([STAMP_STEP], dtype=torch.int32),
    ...     stamp=torch.zeros(4, dtype=torch.int32),
    ...     unknown_ids=torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64),
    ...     state=state,
    ... )
    >>> state["label_counts"].tolist()
    [[1, 0], [0, 0], [0, 1], [0, 0]]
    """
    tracker = Tracker(pass_stamp, stamp, unknown_ids, state, activation)
    check_tracker(tracker)
    classes = num_classes_of(state)
    check_batch(sample_ids, logits, teacher_logits, classes, stamp.device, activation)
    if targets is not None:
        check_targets(targets, len(sample_ids), stamp.device, activation)
    pool_stats_update_checked(
        sample_ids, logits, teacher_logits, tracker, targets=targets, backend=backend
    )


def pool_stats_update_checked(
    sample_ids: Tensor,
    logits: Tensor,
    teacher_logits: Tensor | None,
    tracker: Tracker,
    *,
    targets: Tensor | None = None,
    backend: str | None = None,
) -> None:
    """Do `pool_stats_update` without its checks, for a tracker and a batch that were checked."""
    if "teacher_discrepancy" in tracker.state:
        if teacher_logits is None:
            raise ValueError("teacher_discrepancy needs teacher_logits, got None")
    else:
        teacher_logits = None
    chosen = _chosen(backend, logits, sample_ids, teacher_logits, targets)
    if chosen is None:
        torch.ops.dynal_fast.pool_stats_update(
            sample_ids, logits, teacher_logits, *_flat(tracker), targets
        )
    else:
        BACKENDS.load(chosen).update(sample_ids, logits, teacher_logits, tracker, targets)


def pool_stats_update_from_features(
    sample_ids: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_features: Tensor | None,
    teacher_weight: Tensor | None,
    teacher_bias: Tensor | None,
    pass_stamp: Tensor,
    stamp: Tensor,
    unknown_ids: Tensor,
    state: Mapping[str, Tensor],
    activation: str = "softmax",
    *,
    targets: Tensor | None = None,
    by_id: bool = False,
    dropout: Dropout | None = None,
    backend: str | None = None,
) -> None:
    """Do `pool_stats_update` with ``logits = features @ weight.T + bias``, never storing them.

    Parameters
    ----------
    features
        (B, d) float32, float16, bfloat16 or float64.
    weight, bias
        (C, d) and (C,) of the same dtype; ``bias`` may be None. The logits are accumulated and kept
        in float32 (float64 inputs: rounded to float32 first). On a GPU rows with logits beyond
        1e38 may count as not finite.
    teacher_features, teacher_weight, teacher_bias
        The teacher's, of the same dtype, its d may differ; for ``teacher_discrepancy`` only.
    by_id
        Row i of the features, of which there are N, is that of sample i, on any device. The CPU's
        kernel reads the rows in place; before others they are gathered, some at a time. float16 and
        bfloat16 features of a float32 head are read likewise, with and without ``by_id``.
    dropout
        Drop features of the head, not the teacher's: ``reference.kept_features`` says which. The
        CPU's kernel does so as it reads the rows; before others it is done to some at a time.

    The rest is as for `pool_stats_update`.
    """
    tracker = Tracker(pass_stamp, stamp, unknown_ids, state, activation)
    check_tracker(tracker)
    check_ids(sample_ids, stamp.device)
    head, teacher = Head(features, weight, bias), None
    count = len(stamp) if by_id else len(sample_ids)
    narrow = features.dtype in HALVES and weight.dtype == torch.float32
    dtype = weight.dtype if narrow else features.dtype
    check_head("", head, (count, num_classes_of(state)), dtype, stamp.device, activation, by_id)
    if targets is not None:
        check_targets(targets, len(sample_ids), stamp.device, activation)
    if "teacher_discrepancy" in state:
        if teacher_features is None or teacher_weight is None:
            raise ValueError("teacher_discrepancy needs teacher_features and teacher_weight")
        teacher = Head(teacher_features, teacher_weight, teacher_bias)
        check_head(
            "teacher_", teacher, (count, len(weight)), dtype, stamp.device, activation, by_id
        )
    if dropout is not None and not dropout.below:
        dropout = None
    others = (None, None, None) if teacher is None else teacher
    chosen = _chosen(backend, weight, sample_ids, features, bias, *others, targets)
    as_they_are = all(h is None or h.features.dtype == h.weight.dtype for h in (head, teacher))
    if by_id or dropout is not None or not as_they_are:
        here = all(h is None or h.features.device == stamp.device for h in (head, teacher))
        read = BACKENDS.load(chosen).update_from_store if chosen is not None and here else None
        if read is not None:
            read(sample_ids, head, teacher, tracker, targets, by_id, dropout)
            return
        for part, batch in _gathered(sample_ids, head, teacher, by_id, tracker, dropout):
            wanted = None if targets is None else targets[part]
            state_of: dict[str, Any] = tracker._asdict()
            pool_stats_update_from_features(**batch, **state_of, targets=wanted, backend=backend)
    elif chosen is None:
        torch.ops.dynal_fast.pool_stats_update_from_features(
            sample_ids, *head, *others, *_flat(tracker), targets
        )
    else:
        BACKENDS.load(chosen).update_from_features(sample_ids, head, teacher, tracker, targets)


GATHERED_ELEMENTS = 1 << 22


def _gathered(
    sample_ids: Tensor,
    head: Head,
    teacher: Head | None,
    by_id: bool,
    tracker: Tracker,
    dropout: Dropout | None,
) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Yield parts of a batch: which rows, and the arguments that give their features in order.

    For kernels that read neither rows by id nor features of another dtype than the weights, and
    that drop none.
    """
    device = tracker.stamp.device
    heads = {"": head} if teacher is None else {"": head, "teacher_": teacher}
    step = max(1, GATHERED_ELEMENTS // max(each.features.shape[1] for each in heads.values()))
    for first in range(0, len(sample_ids), step):
        part = slice(first, first + step)
        ids = sample_ids[part]
        arguments: dict[str, Any] = dict.fromkeys(("features", "weight", "bias"))
        arguments |= {f"teacher_{name}": None for name in arguments}
        arguments["sample_ids"] = ids
        for prefix, (features, weight, bias) in heads.items():
            rows = features[part]
            if by_id:  # ids of no sample are told apart by the update
                rows = features[ids.to(features.device).long().clamp(0, len(features) - 1)]
            rows = rows.to(device)
            if dropout is not None and not prefix:  # halves in float32, as the kernel does
                kept = factors(ids, rows.shape[1], dropout, tracker.pass_stamp)
                rows = rows * kept.to(rows.device)
            arguments[f"{prefix}features"] = rows.to(weight.dtype)
            arguments[f"{prefix}weight"], arguments[f"{prefix}bias"] = weight, bias
        yield part, arguments


def _chosen(backend: str | None, batch: Tensor, *others: Tensor | None) -> str | None:
    """Return the backend to call directly, or None for PyTorch's dispatcher: compilers see it."""
    plain = type(batch) in PLAIN
    for tensor in others:
        plain = plain and type(tensor) in PLAIN
    if backend is not None:
        if not plain and is_traced(batch, *others):
            raise ValueError(f"backend {backend!r} needs tensors with values, got fake ones")
        BACKENDS.check(backend, batch.device)
        return backend
    if torch.compiler.is_compiling() or not plain:
        return None
    return BACKENDS.defaults.get(batch.device.type)


def _flat(tracker: Tracker) -> list[Tensor | str | None]:
    """A tracker as the operators take it, None for the tensors that are not tracked."""
    pass_stamp, stamp, unknown_ids, state, activation = tracker
    return [pass_stamp, stamp, unknown_ids, *map(state.get, STATE), activation]


def _tracker(
    pass_stamp: Tensor, stamp: Tensor, unknown_ids: Tensor, *rest: Any
) -> tuple[Tracker, Tensor | None]:
    """The inverse of `_flat`, and the targets; the last two may be missing, as in the schemas."""
    named = zip(STATE, rest[: len(STATE)], strict=True)
    tracked = {name: tensor for name, tensor in named if tensor is not None}
    given = rest[len(STATE) :]
    activation = given[0] if given else "softmax"
    targets = given[1] if len(given) > 1 else None
    return Tracker(pass_stamp, stamp, unknown_ids, tracked, activation), targets


def _operator(backend: str) -> Callable[..., None]:
    def run(sample_ids: Tensor, logits: Tensor, teacher_logits: Tensor | None, *rest: Any) -> None:
        BACKENDS.load(backend).update(sample_ids, logits, teacher_logits, *_tracker(*rest))

    return run


def _operator_from_features(backend: str) -> Callable[..., None]:
    def run(
        sample_ids: Tensor,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher_features: Tensor | None,
        teacher_weight: Tensor | None,
        teacher_bias: Tensor | None,
        *rest: Any,
    ) -> None:
        head, teacher = Head(features, weight, bias), None
        if teacher_features is not None and teacher_weight is not None:
            teacher = Head(teacher_features, teacher_weight, teacher_bias)
        BACKENDS.load(backend).update_from_features(sample_ids, head, teacher, *_tracker(*rest))

    return run


def _register() -> None:
    state = ", ".join(f"Tensor(s{i}!)? {name}" for i, name in enumerate(STATE))
    tracker = f"Tensor pass_stamp, Tensor(a!) stamp, Tensor(b!) unknown_ids, {state}"
    tracker += ", str activation='softmax', Tensor? targets=None"
    head = "Tensor features, Tensor weight, Tensor? bias"
    teacher = "Tensor? teacher_features, Tensor? teacher_weight, Tensor? teacher_bias"
    for name, batch, operator in (
        ("pool_stats_update", "Tensor logits, Tensor? teacher_logits", _operator),
        ("pool_stats_update_from_features", f"{head}, {teacher}", _operator_from_features),
    ):
        register(
            name,
            f"(Tensor sample_ids, {batch}, {tracker}) -> ()",
            lambda *arguments: None,
            {device: operator(backend) for device, backend in BACKENDS.defaults.items()},
        )


_register()

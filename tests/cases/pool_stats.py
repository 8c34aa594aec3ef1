"""Cases that every implementation of the pool statistics runs, and how results are compared."""

from dataclasses import dataclass, field

import torch

from dynal_fast.ops import pool_stats
from dynal_fast.ops.pool_stats import (
    MAX_UNKNOWN_IDS,
    STAMP_STEP,
    STATE,
    Head,
    pool_stats_update,
    pool_stats_update_from_features,
    reference,
)
from dynal_fast.ops.pool_stats.contract import OUTPUT_DTYPES

CLASSES = (2, 3, 7, 10, 16, 17, 33, 63, 64, 65, 100, 1000)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Every tensor that sigmoids have.
OF_SIGMOIDS = tuple(n for n in STATE if STATE[n].part not in ("labels", "training"))
TYPICAL = ("count", "mean", "m2", "label_counts", "last_entropy", "last_top", "last_margin")


@dataclass
class Tracker:
    """The tensors that an update takes. ``exact`` gives float64 ones, for the reference."""

    num_samples: int
    num_classes: int
    names: tuple[str, ...] = tuple(STATE)
    output_dtype: torch.dtype = torch.float32
    label_dtype: torch.dtype = torch.uint8
    exact: bool = False
    device: str = "cpu"
    activation: str = "softmax"
    state: dict = field(init=False)

    def __post_init__(self):
        n, device = self.num_samples, self.device
        self.state = {}
        for name in self.names:
            spec = STATE[name]
            shape = spec.shape(n, self.num_classes)
            dtype = spec.dtypes[0]
            if spec.dtypes == OUTPUT_DTYPES:
                dtype = self.output_dtype
            if name == "label_counts":
                dtype = self.label_dtype
            if self.exact and dtype.is_floating_point:
                dtype = torch.float64
            self.state[name] = torch.full(shape, spec.fresh, dtype=dtype, device=device)
        self.pass_stamp = torch.zeros(1, dtype=torch.int32, device=device)
        self.stamp = torch.zeros(n, dtype=torch.int32, device=device)
        self.unknown_ids = torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=device)

    def begin_pass(self, number):
        self.pass_stamp.fill_(STAMP_STEP * number)
        self.unknown_ids.zero_()

    @property
    def tensors(self):
        guards = self.pass_stamp, self.stamp, self.unknown_ids
        return pool_stats.Tracker(*guards, self.state, self.activation)

    def update(self, ids, logits, teacher_logits=None, backend=None, targets=None):
        if self.exact:
            reference.update(ids, logits, teacher_logits, self.tensors, targets)
        else:
            options = {"targets": targets, "backend": backend}
            pool_stats_update(ids, logits, teacher_logits, *self.tensors, **options)

    def update_from_features(self, ids, *heads, backend=None, targets=None):
        if self.exact:
            head, teacher = Head(*heads[:3]), None if heads[3] is None else Head(*heads[3:])
            reference.update_from_features(ids, head, teacher, self.tensors, targets)
        else:
            options = {"targets": targets, "backend": backend}
            pool_stats_update_from_features(ids, *heads, *self.tensors, **options)


def batches(num_samples, num_classes, dtype, passes=3, rows=23, seed=0, offset=0.0):
    """Yield (pass number, ids, logits, teacher logits) of shuffled passes."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(1, passes + 1):
        id_dtype = torch.int32 if number % 2 else torch.int64
        for ids in torch.randperm(num_samples, generator=generator).to(id_dtype).split(rows):
            shape = (len(ids), num_classes)
            logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64) + offset
            teacher = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
            yield number, ids, logits.to(dtype), teacher.to(dtype)


def assert_same(got: Tracker, want: Tracker, rtol=1e-5, atol=2e-6):
    """Same errors, same counts; floats near those of the float64 reference."""
    assert torch.equal(got.stamp.cpu(), want.stamp)
    assert torch.equal(got.unknown_ids.cpu(), want.unknown_ids)
    half = got.output_dtype == torch.float16
    for name, tensor in got.state.items():
        loose = half and STATE[name].part in ("increase", "cycle")
        torch.testing.assert_close(
            tensor.cpu().double(),
            want.state[name].double(),
            rtol=2**-10 if loose else rtol,
            atol=2**-10 if loose else atol,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )

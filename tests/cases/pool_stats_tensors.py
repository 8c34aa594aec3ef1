"""A tracker's tensors twice: for a kernel on its device, and for the float64 reference."""

import torch

from dynal_fast.ops.pool_stats import (
    DROPPED,
    MAX_UNKNOWN_IDS,
    STAMP_STEP,
    STATE,
    contract,
    reference,
)
from dynal_fast.ops.pool_stats.contract import OUTPUT_DTYPES
from tests.triton_device import DEVICE

TYPICAL = ("count", "mean", "m2", "label_counts", "last_entropy", "last_top", "last_margin")


class Tracker:
    """The tensors of a tracker, on the device for the kernel and in float64 for the reference."""

    def __init__(
        self,
        n,
        num_classes,
        names,
        output_dtype=torch.float32,
        labels=torch.uint8,
        activation="softmax",
    ):
        self.state, self.want = {}, {}
        for name in names:
            spec = STATE[name]
            shape = spec.shape(n, num_classes)
            dtype = spec.dtypes[0]
            if spec.dtypes == OUTPUT_DTYPES:
                dtype = output_dtype
            if name == "label_counts":
                dtype = labels
            self.state[name] = torch.full(shape, spec.fresh, dtype=dtype, device=DEVICE)
            want = torch.full(shape, spec.fresh, dtype=dtype)
            self.want[name] = want.double() if want.is_floating_point() else want
        self.tensors = contract.Tracker(
            pass_stamp=torch.zeros(1, dtype=torch.int32, device=DEVICE),
            stamp=torch.zeros(n, dtype=torch.int32, device=DEVICE),
            unknown_ids=torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=DEVICE),
            state=self.state,
            activation=activation,
        )
        self.expected = contract.Tracker(
            *(tensor.cpu().clone() for tensor in self.tensors[:3]), self.want, activation
        )

    def begin_pass(self, number):
        for tensors in (self.tensors, self.expected):
            tensors.pass_stamp.fill_(STAMP_STEP * number)

    def drop(self, sample):
        for tensors in (self.tensors, self.expected):
            tensors.stamp[sample] = DROPPED

    def expect(self, ids, logits, teacher_logits=None, targets=None):
        reference.update(ids, logits, teacher_logits, self.expected, targets)

    def check(self, rtol=1e-5, atol=2e-6):
        assert torch.equal(self.tensors.stamp.cpu(), self.expected.stamp)
        unknown, want = self.tensors.unknown_ids.cpu(), self.expected.unknown_ids
        assert unknown[0] == want[0]
        assert unknown[1:].sort().values.tolist() == want[1:].sort().values.tolist()
        for name, tensor in self.state.items():
            got, want = tensor.cpu(), self.want[name]
            if not tensor.is_floating_point():
                assert torch.equal(got.long(), want.long()), name
                continue
            half = tensor.dtype == torch.float16 or "output" in self.halved(name)
            torch.testing.assert_close(
                got.double(),
                want,
                rtol=2**-10 if half else rtol,
                atol=2**-11 if half else atol,
                equal_nan=True,
                msg=lambda text, name=name: f"{name}: {text}",
            )

    def halved(self, name):
        """The tensor that a discrepancy was measured to, when it is kept in float16."""
        source = {"cycle_discrepancy": "output", "increase_sum": "previous_output"}.get(name)
        return source if source and self.state[source].dtype == torch.float16 else ""


def draw(rows, num_classes, dtype, seed, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, num_classes, generator=generator)).to(dtype)

"""A tracker's tensors, passes over them, and their error against the float64 reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.gate.errors import relative_error
from benchmarks.gpu.job import Job
from dynal_fast.ops.pool_stats import MAX_UNKNOWN_IDS, STAMP_STEP, STATE, Tracker, reference

TRACKED = ("count", "mean", "m2", "label_counts", "last_entropy", "last_top", "last_margin")
CHECKED = 2048  # samples that are compared with the reference


class Pass:
    """A tracker of ``n`` samples and one pass of batches over it, in order."""

    def __init__(self, job: Job, n: int, num_classes: int, batch: int) -> None:
        self.job, self.num_classes = job, num_classes
        self.state = {}
        for name in TRACKED:
            shape = STATE[name].shape(n, num_classes)
            self.state[name] = torch.zeros(shape, dtype=STATE[name].dtypes[0], device=job.device)
        self.pass_stamp = torch.zeros(1, dtype=torch.int32, device=job.device)
        self.stamp = torch.zeros(n, dtype=torch.int32, device=job.device)
        self.unknown_ids = torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=job.device)
        self.ids = torch.arange(n, device=job.device).split(batch)

    def shuffle(self) -> None:
        """Visit the samples in random order from now on: the state's rows are scattered."""
        ids = torch.randperm(len(self.stamp), device=self.job.device)
        self.ids = ids.split(len(self.ids[0]))

    @property
    def tensors(self) -> Tracker:
        return Tracker(self.pass_stamp, self.stamp, self.unknown_ids, self.state)

    def run(self, update: Callable[[Tensor, int], Any]) -> None:
        """Call ``update(ids, first row)`` for each batch of a new pass."""
        self.pass_stamp.add_(STAMP_STEP)
        row = 0
        for ids in self.ids:
            update(ids, row)
            row += len(ids)

    def reset(self) -> None:
        """Restore the state before the first pass, in the same memory, as a CUDA graph needs."""
        for tensor in (*self.tensors[:3], *self.state.values()):
            tensor.zero_()

    def error(
        self,
        call: Callable[[], Any],
        inputs: Tensor,
        logits: Callable[[Tensor], Tensor],
    ) -> dict[str, Any]:
        """Make two passes by ``call`` from the start, and compare some samples with the reference.

        ``logits(inputs[rows])`` are the logits in float64. The inputs change sign between the
        passes, in place; otherwise the second moments would be 0.
        """
        self.reset()
        rows = torch.linspace(0, len(self.stamp) - 1, min(CHECKED, len(self.stamp))).long()
        rows = rows.to(self.job.device)
        samples, few = torch.cat(self.ids)[rows], np.arange(len(rows))
        stamp, unknown = np.zeros(len(rows), np.int32), np.zeros(1 + MAX_UNKNOWN_IDS, np.int64)
        want = {}
        for name, tensor in self.state.items():
            kept = torch.zeros(len(rows), *tensor.shape[1:], dtype=tensor.dtype)
            want[name] = (kept.double() if kept.is_floating_point() else kept).numpy()
        for number in (1, 2):
            call()
            current = logits(inputs[rows]).double().cpu().numpy()
            now = np.array([STAMP_STEP * number], np.int32)
            reference.pool_stats_update(few, current, None, now, stamp, unknown, want)
            inputs.neg_()
        found: dict[str, Any] = {"error": 0.0, "wrong": 0}
        for name, tensor in self.state.items():
            got, right = tensor[samples].cpu(), torch.from_numpy(want[name])
            if not tensor.is_floating_point():
                found["wrong"] += int((got.long() != right.long()).sum())
            elif (error := relative_error(got.double(), right)) >= found["error"]:
                found |= {"error": error, "tensor": name}
        seen = self.state["count"]
        if int(seen.min()) != int(seen.max()):
            found["failed"] = f"samples were counted {int(seen.min())} to {int(seen.max())} times"
        return found

    def state_bytes(self) -> int:
        """The bytes of state that a pass must read and write, one label count a row."""
        per_row = 8  # the id
        for name, tensor in {**self.state, "stamp": self.stamp}.items():
            elements = self.num_classes if tensor.ndim == 2 and name != "label_counts" else 1
            reads = 0 if name.startswith("last_") else 1
            per_row += elements * tensor.element_size() * (1 + reads)
        return len(self.stamp) * per_row

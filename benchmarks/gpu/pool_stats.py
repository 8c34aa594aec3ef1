"""``pool_stats_update``: one pass over 150,000 samples in batches of 8,192, in order."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.timing import Figure, Setting, captured, milliseconds, peak_bytes
from dynal_fast.ops.pool_stats import MAX_UNKNOWN_IDS, STAMP_STEP, STATE, pool_stats_update

TRACKED = ("count", "mean", "m2", "label_counts", "last_entropy", "last_top", "last_margin")


class Pass:
    """A tracker and one pass of batches over it."""

    def __init__(self, setting: Setting, n: int, num_classes: int, batch: int) -> None:
        self.setting = setting
        self.num_classes = num_classes
        self.state = {}
        for name in TRACKED:
            shape = (n, num_classes) if STATE[name].per_class else (n,)
            self.state[name] = torch.zeros(
                shape, dtype=STATE[name].dtypes[0], device=setting.device
            )
        self.pass_stamp = torch.zeros(1, dtype=torch.int32, device=setting.device)
        self.stamp = torch.zeros(n, dtype=torch.int32, device=setting.device)
        self.unknown_ids = torch.zeros(
            1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=setting.device
        )
        self.ids = torch.arange(n, device=setting.device).split(batch)

    def shuffle(self) -> None:
        """Visit the samples in random order from now on, which scatters the state's rows."""
        n = len(self.stamp)
        ids = torch.randperm(n, device=self.setting.device)
        self.ids = ids.split(len(self.ids[0]))

    @property
    def guard(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.pass_stamp, self.stamp, self.unknown_ids

    def run(self, update: Callable[[Tensor, int], Any]) -> None:
        """Call ``update(ids, first row)`` for each batch of a new pass."""
        self.pass_stamp.add_(STAMP_STEP)
        row = 0
        for ids in self.ids:
            update(ids, row)
            row += len(ids)

    def check(self, passes_at_least: int) -> None:
        """Fail unless every sample was observed equally often and nothing was flagged."""
        count = self.state["count"]
        if int(count.min()) != int(count.max()) or int(count.min()) < passes_at_least:
            raise AssertionError(f"observed {int(count.min())} to {int(count.max())} times")
        if bool((self.stamp != self.pass_stamp).any()) or int(self.unknown_ids[0]):
            raise AssertionError("a pass without bad rows flagged some")
        if not bool(torch.isfinite(self.state["mean"]).all()):
            raise AssertionError("the mean is not finite")

    def state_bytes(self) -> int:
        """Bytes of state that a pass must move: read and written, one element of label counts."""
        rows = len(self.stamp)
        per_row = 8  # the id
        for name, tensor in {**self.state, "stamp": self.stamp}.items():
            elements = self.num_classes if tensor.ndim == 2 and name != "label_counts" else 1
            reads = 0 if name.startswith("last_") else 1
            per_row += elements * tensor.element_size() * (1 + reads)
        return rows * per_row


def plain_update(state: dict[str, Tensor], ids: Tensor, logits: Tensor) -> None:
    """The same statistics in plain torch operations, in place."""
    p = torch.softmax(logits.float(), 1)
    state["count"][ids] += 1
    mean = state["mean"][ids]
    delta = p - mean
    mean = mean + delta / state["count"][ids][:, None]
    state["mean"][ids] = mean
    state["m2"][ids] += (delta * (p - mean)).sum(1)
    top, label = p.max(1)  # two maxima are fused by torch.compile, topk is not
    others = torch.arange(p.shape[1], device=p.device) != label[:, None]
    state["label_counts"][ids, label] += 1
    state["last_entropy"][ids] = torch.special.entr(p).sum(1)
    state["last_top"][ids] = top
    state["last_margin"][ids] = top - torch.where(others, p, -1.0).amax(1)


def figures(setting: Setting) -> Iterator[Figure]:
    n, batch = setting.size(150_000, 60), setting.size(8192, 32)
    compiled = []
    for num_classes in (10, 100, 1000):
        classes = setting.size(num_classes, min(num_classes, 20))
        logits = 3 * torch.randn(n, classes, device=setting.device)
        sweep = Pass(setting, n, classes, batch)

        def ours(sweep: Pass = sweep, logits: Tensor = logits) -> None:
            sweep.run(
                lambda ids, row: pool_stats_update(
                    ids,
                    logits[row : row + len(ids)],
                    None,
                    *sweep.guard,
                    sweep.state,
                    backend=setting.backend,
                )
            )

        def plain(sweep: Pass = sweep, logits: Tensor = logits, update: Any = plain_update) -> None:
            sweep.run(lambda ids, row: update(sweep.state, ids, logits[row : row + len(ids)]))

        bound = setting.bound_ms(sweep.state_bytes() + logits.numel() * logits.element_size())
        yield Figure(
            f"update C={classes}",
            milliseconds(setting, captured(setting, ours)),
            bound,
            {
                "n": n,
                "batch": batch,
                "eager_ms": milliseconds(setting, ours),
                "peak_bytes": peak_bytes(setting, ours),
            },
        )
        sweep.check(passes_at_least=4)
        sweep.shuffle()
        yield Figure(
            f"update C={classes} shuffled", milliseconds(setting, captured(setting, ours)), bound
        )
        sweep.check(passes_at_least=4)
        yield Figure(
            f"plain torch C={classes}", milliseconds(setting, captured(setting, plain)), bound
        )
        if num_classes >= 100:
            compiled.append((f"torch.compile C={classes}", plain, bound))
    for name, plain, bound in compiled:  # last: it takes a minute to compile, or fails
        yield _compiled(setting, name, plain, bound)


def _compiled(
    setting: Setting, name: str, plain: Callable[..., None], bound: float | None
) -> Figure:
    if setting.smoke:
        return Figure(name, None, bound, {"skipped": "not in a smoke run"})
    try:
        compiled = torch.compile(plain_update, dynamic=False)
        ms = milliseconds(setting, captured(setting, lambda: plain(update=compiled)))
    except Exception as error:  # Inductor may not work on this machine; the rest still counts
        return Figure(name, None, bound, {"failed": repr(error)[:500]})
    return Figure(name, ms, bound)

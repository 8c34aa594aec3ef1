"""`PoolState`: the tensors behind `PoolStats`, thinned out, merged, saved and restored."""

from collections.abc import Mapping
from copy import copy

import torch
from torch import Tensor

from dynal_fast.ops.pool_stats import DROPPED, MAX_UNKNOWN_IDS, STAMP_STEP, STATE
from dynal_fast.ops.pool_stats.contract import LABEL_DTYPES, OUTPUT_DTYPES
from dynal_fast.pool.allocate import full
from dynal_fast.pool.merge import merge_states
from dynal_fast.pool.schedule import Schedule
from dynal_fast.pool.tracked import plan

Tensors = dict[str, Tensor]


class PoolState:
    """What is kept of every sample: tensors by name, in as many sets as the schedules need.

    Attributes
    ----------
    tensors
        Of each set, the tensors of `dynal_fast.ops.pool_stats` by name; their first axis is the
        pool.
    guards
        Of each set, ``stamp`` (N,) int32 and ``unknown_ids`` as the operation takes them.
    pass_stamp
        int32 (1,): the stamp of the current pass.
    passes
        How many passes there were.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        schedules: Mapping[str, Schedule],
        output_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.schedules = schedules
        self.device = device
        self.passes = 0
        self.pass_stamp = torch.zeros(1, dtype=torch.int32, device=device)
        self._parts, names, self._home = plan(schedules)
        self._label_passes = [0] * len(names)
        self.tensors: list[Tensors] = []
        self.guards: list[tuple[Tensor, Tensor]] = []
        for wanted in names:
            tensors = {}
            for name in (name for name in STATE if name in wanted):
                spec = STATE[name]
                shape = (num_samples, num_classes) if spec.per_class else (num_samples,)
                dtype = output_dtype if spec.dtypes == OUTPUT_DTYPES else spec.dtypes[0]
                tensors[name] = full(shape, spec.fresh, dtype, device)
            stamp = torch.zeros(num_samples, dtype=torch.int32, device=device)
            unknown_ids = torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=device)
            self.tensors.append(tensors)
            self.guards.append((stamp, unknown_ids))

    @property
    def dropped(self) -> Tensor:
        """Which samples are dropped, (N,) bool."""
        return self.guards[0][0] == DROPPED

    def of(self, score: str) -> Tensors:
        """Return the set of tensors that a score is computed from."""
        return self.tensors[self._home[score]]

    def begin_pass(
        self, epoch: int, num_epochs: int
    ) -> list[tuple[tuple[Tensor, Tensor], Tensors]]:
        """Stamp a new pass; return the guards and tensors that observe it, set by set."""
        due = []
        self.passes += 1
        self.pass_stamp.fill_(STAMP_STEP * self.passes)
        for k, parts in enumerate(self._parts):
            observing = {p for p, s in parts.items() if s.observes(epoch, num_epochs)}
            if not observing:
                continue
            if "labels" in observing:
                self._label_passes[k] += 1
                self._make_room_for_labels(k)
            tensors = {n: t for n, t in self.tensors[k].items() if STATE[n].part in observing}
            self.guards[k][1].zero_()
            due.append((self.guards[k], tensors))
        _share_teacher([tensors for _, tensors in due])
        return due

    def forget_dynamics(self) -> None:
        """Make everything fresh but what is kept from cycle to cycle."""
        self._label_passes = [0] * len(self._label_passes)
        for tensors in self.tensors:
            for name, tensor in tensors.items():
                if not STATE[name].kept:
                    tensor.fill_(STATE[name].fresh)

    def drop(self, ids: Tensor) -> None:
        """Mark samples as dropped and forget them."""
        for tensors, (stamp, _) in zip(self.tensors, self.guards, strict=True):
            for name, tensor in tensors.items():
                _indexable(tensor).index_fill_(0, ids, STATE[name].fresh)
            stamp.index_fill_(0, ids, DROPPED)

    def subset(self, ids: Tensor) -> "PoolState":
        """Return a copy of the samples ``ids``, in their order."""
        other = copy(self)
        other.pass_stamp = self.pass_stamp.clone()
        other._label_passes = list(self._label_passes)
        other.tensors = [
            {name: _indexable(tensor)[ids].view(tensor.dtype) for name, tensor in tensors.items()}
            for tensors in self.tensors
        ]
        other.guards = [(stamp[ids], unknown_ids.clone()) for stamp, unknown_ids in self.guards]
        return other

    def merge(self, later: "PoolState") -> None:
        """Add what another state of the same samples and schedules holds, as if it had followed."""
        dropped = self.dropped | later.dropped
        self.passes = max(self.passes, later.passes)
        for k, tensors in enumerate(self.tensors):
            self._label_passes[k] += later._label_passes[k]
            self._make_room_for_labels(k)
            merge_states(tensors, later.tensors[k])
        self.drop(dropped.nonzero().squeeze(1))

    def nbytes(self) -> dict[str, int]:
        """Return the bytes of each part, of the guards (``"stamps"``), and the ``"total"``."""
        parts: dict[str, int] = {}
        for tensors in self.tensors:
            for name, tensor in tensors.items():
                part = STATE[name].part
                parts[part] = parts.get(part, 0) + tensor.nbytes
        parts["stamps"] = sum(stamp.nbytes + unknown.nbytes for stamp, unknown in self.guards)
        parts["total"] = sum(parts.values())
        return parts

    @property
    def described_schedules(self) -> str:
        """The schedules as text."""
        return "; ".join(f"{name}: {s}" for name, s in sorted(self.schedules.items()))

    def state_dict(self) -> Tensors:
        """Return everything as tensors, which share memory with these."""
        saved = {
            "passes": torch.tensor(self.passes),
            "label_passes": torch.tensor(self._label_passes, dtype=torch.int64),
            "schedules": torch.tensor(list(self.described_schedules.encode()), dtype=torch.uint8),
        }
        for k, tensors in enumerate(self.tensors):
            named = {**tensors, "stamp": self.guards[k][0]}
            saved.update({_key(name, k): tensor for name, tensor in named.items()})
        return saved

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned, or change nothing.

        Raises
        ------
        ValueError
            Names, shapes, dtypes or schedules are not those of this state.
        """
        self._check_saved(saved)
        for k, tensors in enumerate(self.tensors):
            for name, tensor in tensors.items():
                restored = saved[_key(name, k)]
                if tensor.dtype == restored.dtype:
                    tensor.copy_(restored)  # stays where it was allocated, in huge pages
                else:
                    tensors[name] = restored.to(self.device, copy=True)
        self.passes = int(saved["passes"])
        self._label_passes = saved["label_passes"].tolist()
        for k, (stamp, _) in enumerate(self.guards):
            stamp.copy_(saved[_key("stamp", k)])

    def _check_saved(self, saved: Mapping[str, Tensor]) -> None:
        mine = self.state_dict()
        if set(mine) != set(saved):
            raise ValueError(
                f"state_dict lacks {sorted(set(mine) - set(saved))} and has unexpected "
                f"{sorted(set(saved) - set(mine))}: were track and schedules the same?"
            )
        for key, tensor in saved.items():
            if key == "schedules":
                continue
            labels = key.startswith("label_counts") and tensor.dtype in LABEL_DTYPES
            if tensor.shape != mine[key].shape or not (labels or tensor.dtype == mine[key].dtype):
                raise ValueError(
                    f"{key} must be {tuple(mine[key].shape)} {mine[key].dtype}, "
                    f"got {tuple(tensor.shape)} {tensor.dtype}"
                )
        if not torch.equal(saved["schedules"].cpu(), mine["schedules"]):
            theirs = bytes(saved["schedules"].tolist()).decode(errors="replace")
            raise ValueError(f"schedules must be {self.described_schedules!r}, got {theirs!r}")

    def _make_room_for_labels(self, k: int) -> None:
        """Promote label counts before a pass could overflow them."""
        counts = self.tensors[k].get("label_counts")
        if counts is None:
            return
        dtype = next(d for d in LABEL_DTYPES if torch.iinfo(d).max >= self._label_passes[k])
        if torch.iinfo(dtype).max > torch.iinfo(counts.dtype).max:
            self.tensors[k]["label_counts"] = counts.to(dtype)


def _share_teacher(sets: list[Tensors]) -> None:
    """Let each set compare with the teacher if one does, for a bad teacher row to void them all.

    They write the same values.
    """
    for tensors in sets:
        if "teacher_discrepancy" in tensors:
            for other in sets:
                other.setdefault("teacher_discrepancy", tensors["teacher_discrepancy"])
            return


def _key(name: str, k: int) -> str:
    return name if k == 0 else f"{name}.{k}"


def _indexable(tensor: Tensor) -> Tensor:
    """Return ``tensor``, seen as int16 where it is uint16, which torch cannot index."""
    return tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor

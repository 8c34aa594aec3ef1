"""`PoolState`: the tensors behind `PoolStats`; how they are dropped, merged, saved, restored."""

from collections.abc import Callable, Collection, Mapping
from copy import copy

import torch
from torch import Tensor

from dynal_fast.ops.pool_stats import DROPPED, MAX_UNKNOWN_IDS, NON_FINITE, STAMP_STEP, STATE
from dynal_fast.ops.pool_stats.contract import LABEL_DTYPES, OUTPUT_DTYPES, Tracker
from dynal_fast.pool.allocate import full
from dynal_fast.pool.merge import (
    check_increase,
    check_order,
    merge_states,
    replace_known,
    slices,
)
from dynal_fast.pool.saved import COUNTERS, check_saved, key_of
from dynal_fast.pool.schedule import Schedule, observes_once
from dynal_fast.pool.scores import TRACKABLE
from dynal_fast.pool.tracked import in_force, observes, part_of, plan

Tensors = dict[str, Tensor]


class PoolState:
    """What is kept of every sample: tensors by name, in one set or in more.

    Statistics that share a tensor but not a schedule need more than one set.

    Attributes
    ----------
    tensors
        For each set, tensors of `dynal_fast.ops.pool_stats` by name; their first axis is the pool.
    guards
        For each set, ``stamp`` int32 (N,) and ``unknown_ids``, as the operation takes them.
    pass_stamp
        int32 (1,): the stamp of the current pass.
    passes
        How many passes there were.
    unknown_end
        Whether a pass since the last `forget_dynamics` had ``num_epochs=None``.
    epochs
        The first and the last epoch of the passes since then, None before the first.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        schedules: Mapping[str, Schedule],
        output_dtype: torch.dtype,
        device: torch.device,
        activation: str = "softmax",
    ) -> None:
        self.schedules = schedules
        self.activation = activation
        self.device = device
        self.passes = 0
        self.unknown_end = False
        self.epochs: tuple[int, int] | None = None
        self.pass_stamp = torch.zeros(1, dtype=torch.int32, device=device)
        self._parts, names, self._home = plan(schedules)
        self._label_passes = [0] * len(names)
        self.tensors: list[Tensors] = []
        self.guards: list[tuple[Tensor, Tensor]] = []
        for wanted in names:
            tensors = {}
            for name in (name for name in STATE if name in wanted):
                spec = STATE[name]
                shape = spec.shape(num_samples, num_classes)
                dtype = output_dtype if spec.dtypes == OUTPUT_DTYPES else spec.dtypes[0]
                tensors[name] = full(shape, spec.fresh, dtype, device)
            stamp = torch.zeros(num_samples, dtype=torch.int32, device=device)
            unknown_ids = torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=device)
            self.tensors.append(tensors)
            self.guards.append((stamp, unknown_ids))
        for k, parts in enumerate(self._parts):
            if "cycle" in parts and not observes_once(parts["cycle"]):
                self._keep_latest_output(k)

    @property
    def dropped(self) -> Tensor:
        """Which samples are dropped, (N,) bool."""
        return self.guards[0][0] == DROPPED

    def of(self, score: str) -> Tensors:
        """Return the set of tensors from which a score is computed."""
        return self.tensors[self._home[score]]

    def observed(self, score: str) -> Tensor:
        """Return which samples the score's statistic has observed, (N,) bool."""
        tensors = self.of(score)
        counter = COUNTERS.get(part_of(score))
        if counter == "label_counts":
            return tensors[counter].to(torch.int32).amax(dim=1) > 0
        if counter is not None:
            return tensors[counter] > 0
        if TRACKABLE[score].compares_cycles:
            known = ~tensors["output"][:, 0].isnan()
            latest = tensors.get("latest_output")
            return known if latest is None else known | ~latest[:, 0].isnan()
        return ~tensors[TRACKABLE[score].tensors[0]].isnan()

    def refused(self, score: str) -> Tensor:
        """Return whose last row had a logit that was not finite or too large, (N,) bool."""
        stamp = self.guards[self._home[score]][0]
        return (stamp & NON_FINITE > 0) & (stamp != DROPPED)

    def begin_pass(
        self, epoch: int, num_epochs: int | None, only: Collection[str] | None = None
    ) -> list[Tracker]:
        """Begin a pass: return a tracker for each set of tensors that observes it.

        ``only`` are the parts that may, by default all.
        """
        due, shared = [], []
        self.passes += 1
        self.unknown_end |= num_epochs is None
        self.epochs = _hull(self.epochs, (epoch, epoch))
        self.pass_stamp.fill_(STAMP_STEP * self.passes)
        for k, parts in enumerate(self._parts):
            observing = {p for p, s in parts.items() if observes(p, s, epoch, num_epochs)}
            if only is not None:
                observing &= set(only)
            if not observing:
                continue
            if "cycle" in observing and (num_epochs is None or only is not None):
                self._keep_latest_output(k)  # epochs may follow
            if "labels" in observing:
                self._label_passes[k] += 1
                self._make_room_for_labels(k)
            tensors = {n: t for n, t in self.tensors[k].items() if STATE[n].part in observing}
            self.guards[k][1].zero_()
            due.append(Tracker(self.pass_stamp, *self.guards[k], tensors, self.activation))
            shared.append(tensors)
        _share(shared)
        return due

    def forget_dynamics(self) -> None:
        """Reset all tensors but those that are kept from cycle to cycle."""
        self._label_passes = [0] * len(self._label_passes)
        self.unknown_end = False
        self.epochs = None
        for tensors in self.tensors:
            if "latest_output" in tensors:  # the next cycle compares with it
                for rows in slices(len(tensors["output"])):
                    replace_known(tensors["output"][rows], tensors["latest_output"][rows])
            for name, tensor in tensors.items():
                if not STATE[name].kept:
                    tensor.fill_(STATE[name].fresh)

    def drop(self, ids: Tensor) -> None:
        """Mark samples as dropped and reset their rows."""
        for tensors, (stamp, _) in zip(self.tensors, self.guards, strict=True):
            for name, tensor in tensors.items():
                _indexable(tensor).index_fill_(0, ids, STATE[name].fresh)
            stamp.index_fill_(0, ids, DROPPED)

    def subset(self, take: Callable[[Tensor], Tensor]) -> "PoolState":
        """Return a copy of some samples: ``take`` gives their rows of a tensor."""
        other = copy(self)
        other.pass_stamp = self.pass_stamp.clone()
        other._label_passes = list(self._label_passes)
        other.tensors = [
            {name: take(_indexable(tensor)).view(tensor.dtype) for name, tensor in tensors.items()}
            for tensors in self.tensors
        ]
        other.guards = [(take(stamp), unknown_ids.clone()) for stamp, unknown_ids in self.guards]
        return other

    def check_merge(self, later: "PoolState", follows: bool, begin: int = 0) -> None:
        """Raise ``ValueError`` where `merge` would be wrong.

        Two states that had as many passes, of epochs that do not follow on each other, are taken
        to have shared them, unless ``follows``. ``begin`` is the id of the first sample.
        """
        parallel = self.passes == later.passes and not _follow(self.epochs, later.epochs)
        for k, tensors in enumerate(self.tensors):
            check_increase(tensors, later.tensors[k], begin)
            if parallel and not follows:
                stamps = self.guards[k][0], later.guards[k][0]
                check_order(tensors, later.tensors[k], *stamps, begin)

    def merge(self, later: "PoolState") -> None:
        """Add the observations of another state of the same samples, as if they had followed."""
        dropped = self.dropped | later.dropped
        self.passes = max(self.passes, later.passes)
        self.unknown_end |= later.unknown_end
        for k, tensors in enumerate(self.tensors):
            if "latest_output" in later.tensors[k]:
                self._keep_latest_output(k)
            self._label_passes[k] += later._label_passes[k]
            self._make_room_for_labels(k)
            merge_states(tensors, later.tensors[k], observed=later.epochs is not None)
            stamp, later_stamp = self.guards[k][0], later.guards[k][0]
            torch.maximum(stamp, later_stamp, out=stamp)
        self.epochs = _hull(self.epochs, later.epochs)
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

    @property
    def replaced(self) -> dict[str, Schedule]:
        """By score, the schedules that replace others because a pass had ``num_epochs=None``."""
        if not self.unknown_end:
            return {}
        used = {n: in_force(part_of(n), s, None) for n, s in sorted(self.schedules.items())}
        return {name: s for name, s in used.items() if s != self.schedules[name]}

    def state_dict(self) -> Tensors:
        """Return everything as tensors, which share memory with this state."""
        saved = {
            "passes": torch.tensor(self.passes),
            "label_passes": torch.tensor(self._label_passes, dtype=torch.int64),
            "schedules": torch.tensor(list(self.described_schedules.encode()), dtype=torch.uint8),
        }
        if self.unknown_end:
            saved["unknown_end"] = torch.tensor(True)
        if self.epochs is not None:
            saved["epochs"] = torch.tensor(self.epochs)
        if self.activation != "softmax":
            saved["activation"] = torch.tensor(list(self.activation.encode()), dtype=torch.uint8)
        for k, tensors in enumerate(self.tensors):
            named = {**tensors, "stamp": self.guards[k][0]}
            saved.update({key_of(name, k): tensor for name, tensor in named.items()})
        return saved

    def check_saved(self, saved: Mapping[str, Tensor]) -> None:
        """Check what `load_state_dict` is given.

        Raises
        ------
        ValueError
            Names, shapes, dtypes, schedules or the activation differ from this state's, or values
            are impossible.
        TypeError
            A value is not a tensor.
        """
        check_saved(saved, self.state_dict(), self._parts)

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned and `check_saved` took."""
        replaced: dict[tuple[int, str], Tensor] = {}
        for k, tensors in enumerate(self.tensors):
            counts = saved.get(key_of("label_counts", k))
            if counts is not None and counts.dtype != tensors["label_counts"].dtype:
                layout = torch.contiguous_format
                counts = counts.to(self.device, copy=True, memory_format=layout)
                replaced[k, "label_counts"] = counts
            if key_of("latest_output", k) in saved and "latest_output" not in tensors:
                replaced[k, "latest_output"] = torch.empty_like(tensors["output"])
        for (k, name), tensor in replaced.items():
            self.tensors[k][name] = tensor
        for k, tensors in enumerate(self.tensors):
            for name, tensor in tensors.items():
                restored = saved.get(key_of(name, k))
                if restored is None:  # latest_output, of which the other tracker had none
                    tensor.fill_(STATE[name].fresh)
                else:
                    tensor.copy_(restored)  # in place: the memory is in huge pages
        self.passes = int(saved["passes"])
        self.unknown_end = bool(saved.get("unknown_end", False))
        first, last = saved.get("epochs", torch.zeros(2, dtype=torch.int64)).tolist()
        self.epochs = (first, last) if first else None
        self._label_passes = saved["label_passes"].tolist()
        for k, (stamp, _) in enumerate(self.guards):
            stamp.copy_(saved[key_of("stamp", k)])

    def _keep_latest_output(self, k: int) -> None:
        """Keep the latest output in a tensor of its own, beside that of the last cycle.

        Several passes of a cycle compare with the last cycle's output; a single one may overwrite
        it.
        """
        tensors = self.tensors[k]
        if "latest_output" not in tensors:
            output = tensors["output"]
            tensors["latest_output"] = full(
                tuple(output.shape), STATE["latest_output"].fresh, output.dtype, self.device
            )

    def _make_room_for_labels(self, k: int) -> None:
        """Widen the label counts if this pass could overflow them."""
        counts = self.tensors[k].get("label_counts")
        if counts is None:
            return
        dtype = next(d for d in LABEL_DTYPES if torch.iinfo(d).max >= self._label_passes[k])
        if torch.iinfo(dtype).max > torch.iinfo(counts.dtype).max:
            self.tensors[k]["label_counts"] = counts.to(dtype)


def _share(sets: list[Tensors]) -> None:
    """Give every set the tensors that decide which rows are bad, if one set has them.

    These are of the teacher, whose logits must be finite, and of the logits, whose range is
    limited. A row that is bad for one set is then bad for all and changes none. All sets write the
    same teacher values, and only the set with the logits' mean writes logit counts.
    """
    for name in ("teacher_discrepancy", "logit_count"):
        for tensors in [tensors for tensors in sets if name in tensors]:
            for other in sets:
                other.setdefault(name, tensors[name])


def _hull(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the first and the last epoch of both.

    >>> _hull((2, 3), (5, 5)), _hull(None, (1, 1))
    ((2, 5), (1, 1))
    """
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _follow(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Return whether the epochs of ``other`` come after those of ``one``; True if unknown."""
    return one is None or other is None or other[0] > one[1]


def _indexable(tensor: Tensor) -> Tensor:
    """Return ``tensor``, viewed as int16 if it is uint16, which torch cannot index."""
    return tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor

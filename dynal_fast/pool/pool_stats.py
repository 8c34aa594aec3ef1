"""`PoolStats`: what is remembered about every pool sample while a model trains."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor

from dynal_fast.acquisition.scores import ALIASES, SCORES
from dynal_fast.acquisition.top import candidate_ids, first_ids, integer, top_b
from dynal_fast.ops.pool_stats import (
    BACKENDS,
    DROPPED,
    DUPLICATE,
    LOGIT_LIMIT,
    MAX_PASSES,
    MAX_UNKNOWN_IDS,
    NON_FINITE,
    STAMP_STEP,
    pool_stats_update_checked,
    pool_stats_update_from_features,
)
from dynal_fast.ops.pool_stats.contract import OUTPUT_DTYPES, Tracker, check_batch, is_ready
from dynal_fast.pool import missing
from dynal_fast.pool.batch import as_floats, as_ids
from dynal_fast.pool.errors import PoolObservationError
from dynal_fast.pool.schedule import Schedule
from dynal_fast.pool.state import PoolState
from dynal_fast.pool.tracked import (
    KEEPS_LAST,
    check_without_end,
    checked_schedules,
    checked_track,
    observes,
    part_of,
)


class PoolStats:
    """Learning dynamics and uncertainty of every pool sample, folded into a few numbers in place.

    Parameters
    ----------
    num_samples, num_classes
        N and C. Sample ids are 0..N-1.
    track
        Names of the scores wanted (`dynal_fast.acquisition.scores`); only what they need is
        allocated, and only they can be scored. ``"random"`` needs nothing.
    schedules
        Per name, which epochs it observes. By default (``tracked.DEFAULT_SCHEDULES``) dynamics
        observe the last 5 epochs or every epoch, scores of a single output the last. Statistics
        that share a tensor but not a schedule get one each, for a second kernel call per batch.
        Where the number of epochs is unknown, see ``begin_pass``.
    device
        Where the state lives; logits must be there too.
    output_dtype
        float32, or float16 to halve the copy of the last output that ``cod`` and
        ``absolute_increase`` compare with.
    backend
        ``"reference"``, ``"cpu"``, ``"triton"`` or ``"cuda"`` instead of the one for the device.

    Raises
    ------
    ValueError
        A name, schedule, size or dtype is not one of the above.
    TypeError
        A size is not an integer.

    Notes
    -----
    The running mean is float32. After n observations of a sample, the standard deviation behind its
    prediction stability is off by at most n × 2^-25 (6e-6 after 200) beside float32's own 1e-6.

    Examples
    --------
    >>> stats = PoolStats(3, 2, track=("label_dispersion", "margin"))
    >>> for epoch in (1, 2):
    ...     with stats.observe(epoch, num_epochs=2):
    ...         logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [-1.0, epoch]])
    ...         stats.update(torch.tensor([0, 2, 1]), logits)
    >>> stats.score("label_dispersion")
    tensor([0., 0., 0.])
    >>> stats.select("margin", 1)
    tensor([0])
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        track: Iterable[str],
        *,
        schedules: Mapping[str, Schedule] | None = None,
        device: torch.device | str = "cpu",
        output_dtype: torch.dtype = torch.float32,
        backend: str | None = None,
    ) -> None:
        num_samples = integer("num_samples", num_samples)
        num_classes = integer("num_classes", num_classes)
        if num_samples < 0:
            raise ValueError(f"num_samples must not be negative, got {num_samples}")
        if num_classes < 2:
            raise ValueError(
                f"num_classes must be at least 2, got {num_classes}: the softmax of one logit is "
                "always 1, so no score could tell samples apart (for a binary classifier with one "
                "output z, use 2 classes and the logits (0, z))"
            )
        if output_dtype not in OUTPUT_DTYPES:
            raise ValueError(f"output_dtype must be one of {OUTPUT_DTYPES}, got {output_dtype}")
        if backend is not None and backend not in BACKENDS:
            raise ValueError(f"backend must be one of {sorted(BACKENDS)}, got {backend!r}")
        self.num_samples = num_samples
        self.num_classes = num_classes
        self.output_dtype = output_dtype
        self.backend = backend
        self.device = torch.empty(0, device=device).device
        self.track = checked_track(track)
        self.schedules = checked_schedules(self.track, schedules or {})
        asked_for = {ALIASES.get(name, name) for name in schedules or {}}
        self._asked_for = {name: self.schedules[name] for name in asked_for}
        self._state = PoolState(num_samples, num_classes, self.schedules, output_dtype, self.device)
        self._due: list[Tracker] | None = None
        self._partial = False
        self._last: tuple[int, int | None] | None = None  # the epoch last asked about

    # Passes

    def observes(self, epoch: int, num_epochs: int | None = None) -> bool:
        """Return whether any tracked statistic observes this epoch (from 1) of ``num_epochs``.

        ``num_epochs`` is None where it is unknown, as in ``begin_pass``.
        """
        epoch, num_epochs = _checked_epoch(epoch, num_epochs)
        if num_epochs is None:
            check_without_end(self._asked_for)
        self._last = epoch, num_epochs
        return any(observes(part_of(n), s, epoch, num_epochs) for n, s in self.schedules.items())

    @contextmanager
    def observe(
        self, epoch: int, num_epochs: int | None = None, partial: bool = False
    ) -> Iterator["PoolStats"]:
        """Observe one pass over the pool: ``begin_pass`` before, ``end_pass`` after.

        When the body raises, the pass is closed without the checks of ``end_pass``.
        """
        self.begin_pass(epoch, num_epochs, partial)
        try:
            yield self
        except BaseException:
            self._due = None
            raise
        self.end_pass()

    def begin_pass(self, epoch: int, num_epochs: int | None = None, partial: bool = False) -> None:
        """Begin a pass over the pool, in which each sample is to be seen once.

        Parameters
        ----------
        epoch, num_epochs
            The epoch, from 1 to ``num_epochs`` (N_e of eq. 4 in the prediction stability paper).
            None where the training does not know when it ends (early stopping, ``max_steps``, a
            stream). Scores of a single output then observe every epoch and keep the last, so that
            the training may stop after any: each epoch costs one pass over the pool, and ``cod``
            keeps a second (N, C) output, to compare every epoch with the last output before
            ``begin_cycle``. Default schedules that count back from the end are replaced by
            ``EveryEpoch()`` and ``EveryEpoch(s)`` by ``FromEpoch(s, s)``, which ``metadata``
            says; an explicit ``LastEpochs`` of a statistic over epochs is refused: give it
            ``FromEpoch(start, interval)``.
        partial
            Samples may stay unseen.

        Raises
        ------
        RuntimeError
            The previous pass was not ended.
        ValueError
            No tracked statistic observes this epoch, ``num_epochs`` is no number of epochs (some
            libraries have -1 or 2^63 - 1 for None), or a schedule cannot do without it.

        Warns
        -----
        UserWarning
            At the first pass of a cycle without ``num_epochs``, which statistics over epochs
            observe others than they would with it. A schedule that needs no end is not replaced.
        """
        self._check_between_passes("begin_pass")
        if not self.observes(epoch, num_epochs):
            of = "" if num_epochs is None else f" of {num_epochs}"
            raise ValueError(
                f"no tracked statistic observes epoch {epoch}{of} "
                f"({self.schedules}); ask observes(epoch, num_epochs) first"
            )
        if self._state.passes >= MAX_PASSES:
            raise RuntimeError(f"a tracker can take {MAX_PASSES} passes, and this one has")
        replaced_before = self._state.replaced
        self._due = self._state.begin_pass(*_checked_epoch(epoch, num_epochs))
        self._partial = partial
        if not replaced_before:
            self._warn_of_replaced()

    def update(self, sample_ids: Any, logits: Any, teacher_logits: Any = None) -> None:
        """Fold a batch into every statistic that observes this pass, in place.

        Parameters
        ----------
        sample_ids
            (B,) integers of any kind: a tensor, an array or a list, on any device. int64 and int32
            tensors on the tracker's are taken as they are, others copied.
        logits
            (B, C) float32, float16, bfloat16 or float64, on the tracker's device: a tensor or a
            NumPy array. A batch that is not contiguous is copied.
        teacher_logits
            (B, C) of the same dtype: the EMA teacher's for the same inputs. Needed in the passes
            that ``emaod`` observes, ignored in others.

        Raises
        ------
        RuntimeError
            Outside of a pass.
        ValueError
            A shape, dtype, device or layout is wrong. Bad rows are found by ``end_pass``.
        TypeError
            An argument is none of the above.
        """
        due = self._due_sets()
        if not is_ready(sample_ids, logits, teacher_logits, self.num_classes, self.device):
            sample_ids = as_ids(sample_ids, self.device)
            logits = as_floats("logits", logits)
            if teacher_logits is not None:
                teacher_logits = as_floats("teacher_logits", teacher_logits)
            check_batch(sample_ids, logits, teacher_logits, self.num_classes, self.device)
        for tracker in due:
            pool_stats_update_checked(
                sample_ids, logits, teacher_logits, tracker, backend=self.backend
            )

    def update_from_features(
        self,
        sample_ids: Any,
        features: Any,
        weight: Any,
        bias: Any = None,
        teacher_features: Any = None,
        teacher_weight: Any = None,
        teacher_bias: Any = None,
    ) -> None:
        """Do ``update`` with ``logits = features @ weight.T + bias``, which are never stored.

        Cached features of a whole pool may come in one call, which on a GPU takes less time than
        batches: each call reads the weights again.

        Parameters
        ----------
        features
            (B, d) float32, float16, bfloat16 or float64; copied if they are not contiguous.
        weight, bias
            (C, d) and (C,), of the same dtype, as in ``torch.nn.Linear``.
        teacher_features, teacher_weight, teacher_bias
            The EMA teacher's, where ``emaod`` observes this pass. Its features are ``features``
            again where only the head is averaged.
        """
        due = self._due_sets()
        sample_ids = as_ids(sample_ids, self.device)
        features, weight = as_floats("features", features), as_floats("weight", weight)
        bias = None if bias is None else as_floats("bias", bias)
        if teacher_features is not None:
            teacher_features = as_floats("teacher_features", teacher_features)
        if teacher_weight is not None:
            teacher_weight = as_floats("teacher_weight", teacher_weight)
        if teacher_bias is not None:
            teacher_bias = as_floats("teacher_bias", teacher_bias)
        if weight.shape[:1] != (self.num_classes,):
            raise ValueError(
                f"weight must be (classes, d) with classes = {self.num_classes}, "
                f"got {tuple(weight.shape)}"
            )
        for tracker in due:
            pool_stats_update_from_features(
                sample_ids,
                features,
                weight,
                bias,
                teacher_features,
                teacher_weight,
                teacher_bias,
                *tracker,
                backend=self.backend,
            )

    def end_pass(self) -> None:
        """End the pass and look, for the first time, at what went wrong in it.

        Raises
        ------
        PoolObservationError
            With the ids, for rows with a non-finite logit (or, where
            ``prediction_stability_logits`` observes, one beyond 2^40 in absolute value), samples
            seen more than once, ids out of range or dropped and, unless the pass is partial,
            samples not seen.
        """
        _, stamp, unknown_ids, tensors = self._due_sets()[0]
        self._due = None
        current = STAMP_STEP * self._state.passes
        wrong = (stamp > current) if self._partial else (stamp != current)
        wrong &= stamp != DROPPED
        any_wrong, num_unknown = torch.stack([wrong.any().long(), unknown_ids[0]]).tolist()
        if not any_wrong and not num_unknown:
            return
        wrong_ids = wrong.nonzero().squeeze(1).cpu()
        stamps = stamp.cpu()[wrong_ids]
        seen = stamps >= current
        raise PoolObservationError(
            wrong_ids[seen & (stamps & NON_FINITE > 0)],
            wrong_ids[seen & (stamps & DUPLICATE > 0)],
            wrong_ids[~seen],
            unknown_ids[1 : 1 + min(num_unknown, MAX_UNKNOWN_IDS)].cpu(),
            num_unknown,
            LOGIT_LIMIT if "logit_count" in tensors else None,
        )

    def begin_cycle(self) -> None:
        """Forget the dynamics, for a model trained anew; the outputs that ``cod`` needs stay.

        ``cod`` compares with the last output of each sample before this call. Only where its
        schedule has one epoch of a cycle of known length, for which one output is kept, it compares
        with the pass before: do not observe that epoch twice.
        """
        self._check_between_passes("begin_cycle")
        self._last = None
        self._state.forget_dynamics()

    # Scores

    def score(self, name: str, **options: Any) -> Tensor:
        """Return a tracked score, (N,) float32: higher is more informative.

        Samples that its statistic never observed, and dropped ones, score NaN; so do those with too
        few observations: ``cod`` needs one in each of two cycles, ``unbiased`` variances need two.

        Parameters
        ----------
        name
            One of ``track``.
        options
            Of the score's function in `dynal_fast.acquisition.scores`; for ``"random"`` a
            ``generator``.
        """
        name = self._tracked(name)
        if name == "random":
            return self._random(**options)
        tensors, score = self._state.of(name), SCORES[name]
        return score.function(*(tensors[tensor] for tensor in score.tensors), **options)

    def select(
        self,
        name: str,
        b: int,
        candidates: Tensor | None = None,
        generator: torch.Generator | None = None,
        ties: str = "random",
        **options: Any,
    ) -> Tensor:
        """Return the ids of the ``b`` samples with the highest score, (b,) int64, best first.

        Parameters
        ----------
        name, options
            As for ``score``.
        b
            How many.
        candidates
            Ids (m,) or a mask (N,) bool; by default every sample that was not dropped.
        generator
            For ties and ``"random"``; torch's global one by default.
        ties
            ``"random"``, or ``"first"`` for the lowest id.

        Raises
        ------
        ValueError
            A candidate was dropped or has no score (with its id and the reason: it was never
            observed, the epochs that are observed never came, or too few did), or ``top_b``
            objects.

        Warns
        -----
        UserWarning
            A statistic over the last epochs has seen some of them, and training has not ended.
        """
        if self._tracked(name) == "random":
            options = {"generator": generator, **options}
        if candidates is None:
            ids = self.remaining()
        else:
            ids = candidate_ids(candidates, self.num_samples, self.device)
            dropped = ids[self._state.dropped[ids]]
            if len(dropped):
                raise ValueError(f"{len(dropped)} candidates were dropped: {first_ids(dropped)}")
        scores = self.score(name, **options)
        without = ids[scores[ids].isnan()]
        if len(without):
            score = self._tracked(name)
            observed, refused = self._state.observed(score), self._state.refused(score)
            schedule = self.schedules[score]
            raise ValueError(missing.reason(name, without, observed, refused, schedule, self._last))
        score = self._tracked(name)
        if score in self.schedules:
            stopped = missing.stopped_early(score, self.schedules[score], self._last)
            if stopped:
                warnings.warn(stopped, stacklevel=2)
        return top_b(scores, b, ids, generator, ties)

    # Samples

    def remaining(self) -> Tensor:
        """Return the ids of the samples that were not dropped, sorted int64."""
        return (~self._state.dropped).nonzero().squeeze(1)

    def drop(self, sample_ids: Tensor) -> None:
        """Take samples out of the pool for good, such as those that became labelled.

        Ids keep their meaning and the tensors their size. A dropped sample scores NaN, cannot be
        selected, and need not be seen by a pass; seeing it is an error.
        """
        self._check_between_passes("drop")
        self._state.drop(candidate_ids(sample_ids, self.num_samples, self.device))

    def subset(self, sample_ids: Tensor) -> "PoolStats":
        """Return a smaller tracker that holds a copy of these samples only.

        They are renumbered: sample j of it is ``sample_ids[j]`` of this one, or the j-th of a mask
        (N,) bool. To keep the ids, use ``drop``, which frees no memory.
        """
        self._check_between_passes("subset")
        chosen = torch.as_tensor(sample_ids, device=self.device)
        ids = candidate_ids(chosen, self.num_samples, self.device)
        if chosen.dtype != torch.bool:
            ids = chosen.long()  # in their order
        other = copy(self)
        other.num_samples = len(ids)
        other._state = self._state.subset(ids)
        return other

    def merge(self, other: "PoolStats") -> "PoolStats":
        """Add what another tracker of the same pool observed, as if it had followed here.

        Moments are combined by the parallel form of Welford's update (Chan et al.), so the two may
        have observed the same samples or different ones; counts of labels add. Of values that
        describe one output (``cod``, ``emaod``, entropy, ...), the other's are taken where it has
        them. ``absolute_increase`` lacks the step between the two. Dropped in one is dropped.

        Raises
        ------
        ValueError
            The sizes, tracked names, schedules or output dtype differ.
        """
        self._check_between_passes("merge")
        other._check_between_passes("merge")
        for attribute in ("num_samples", "num_classes", "schedules", "output_dtype", "device"):
            mine, theirs = getattr(self, attribute), getattr(other, attribute)
            if mine != theirs:
                raise ValueError(f"merge needs the same {attribute}: {mine} here, {theirs} there")
        self._state.merge(other._state)
        return self

    # Memory and checkpoints

    def nbytes(self) -> dict[str, int]:
        """Return the bytes of each part (``"labels"``, ...), ``"stamps"`` and ``"total"``."""
        return self._state.nbytes()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as plain tensors, which safetensors can store; they share memory.

        Keys are the names of `dynal_fast.ops.pool_stats`, with ``.1``, ``.2`` ... where a second
        schedule has its own; ``stamp``; ``passes``, the number of passes; ``label_passes``;
        ``schedules``, the bytes of their description; and ``unknown_end`` if this cycle had a pass
        without ``num_epochs``.
        """
        self._check_between_passes("state_dict")
        return self._state.state_dict()

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned into a tracker made with the same arguments.

        Raises
        ------
        ValueError
            Names, shapes or dtypes are not those of this tracker, or a count, a stamp or a value is
            none that passes can leave behind. Nothing was changed then.
        TypeError
            A value is no tensor.
        """
        self._check_between_passes("load_state_dict")
        self._state.load_state_dict(tensors)

    @property
    def metadata(self) -> dict[str, str]:
        """What the tensors do not say, as text: what is tracked and when."""
        described = [
            f"{name}: {s}"
            if name not in replaced
            else f"{name}: {replaced[name]} instead of {s}, num_epochs being unknown"
            for replaced in [self._state.replaced]
            for name, s in sorted(self.schedules.items())
        ]
        return {"track": " ".join(self.track), "schedules": "; ".join(described)}

    def __repr__(self) -> str:
        return (
            f"PoolStats({self.num_samples}, {self.num_classes}, track={self.track}, "
            f"device={str(self.device)!r}): {self.nbytes()['total']:,} bytes"
        ) + "".join(
            f", {name} observes {used} instead of {self.schedules[name]}"
            for name, used in self._state.replaced.items()
        )

    # Inside

    def _random(self, generator: torch.Generator | None = None) -> Tensor:
        source = generator.device if generator is not None else torch.device("cpu")
        scores = torch.rand(self.num_samples, generator=generator, device=source).to(self.device)
        return scores.masked_fill(self._state.dropped, torch.nan)

    def _tracked(self, name: str) -> str:
        name = ALIASES.get(name, name)
        if name not in self.track:
            raise ValueError(f"{name!r} is not tracked: track={self.track}")
        return name

    def _warn_of_replaced(self) -> None:
        """Say which statistics over epochs get another value, for want of an end."""
        replaced = {n: s for n, s in self._state.replaced.items() if part_of(n) not in KEEPS_LAST}
        if replaced:
            used = ", ".join(
                f"{n} observes {s}, not {self.schedules[n]}" for n, s in replaced.items()
            )
            warnings.warn(
                f"num_epochs is None: {used}. Pass num_epochs where it is known; otherwise choose "
                "a schedule that needs no end, such as FromEpoch(start, interval) or EveryEpoch()",
                stacklevel=3,
            )

    def _due_sets(self) -> list[Tracker]:
        if self._due is None:
            raise RuntimeError("no pass is open: use `with stats.observe(epoch, num_epochs):`")
        return self._due

    def _check_between_passes(self, what: str) -> None:
        if self._due is not None:
            raise RuntimeError(f"{what} must not be called within a pass; call end_pass first")


def _checked_epoch(epoch: int, num_epochs: int | None) -> tuple[int, int | None]:
    epoch = integer("epoch", epoch)
    if num_epochs is None:
        if epoch < 1:
            raise ValueError(f"epoch counts from 1, got {epoch}")
        return epoch, None
    unknown = "pass num_epochs=None where the number of epochs is unknown"
    try:
        num_epochs = integer("num_epochs", num_epochs)
    except TypeError as error:
        raise TypeError(f"{error}; {unknown}") from None
    if not 1 <= num_epochs <= MAX_PASSES:
        raise ValueError(f"num_epochs must be 1 to {MAX_PASSES}, got {num_epochs}; {unknown}")
    if not 1 <= epoch <= num_epochs:
        raise ValueError(
            f"epoch must be between 1 and num_epochs = {num_epochs}, got {epoch}; {unknown}"
        )
    return epoch, num_epochs

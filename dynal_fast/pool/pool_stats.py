"""`PoolStats`: what is remembered about every pool sample while a model trains."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor

from dynal_fast._deprecated import renamed_argument
from dynal_fast.collective import Alone, as_collective, check_alike, on_all_ranks
from dynal_fast.ops.pool_stats import BACKENDS, MAX_PASSES, Dropout
from dynal_fast.ops.pool_stats.contract import OUTPUT_DTYPES
from dynal_fast.pool import missing, replaced
from dynal_fast.pool.candidates import candidate_ids, first_ids
from dynal_fast.pool.open_pass import OpenPass
from dynal_fast.pool.schedule import Schedule
from dynal_fast.pool.scores import ALIASES, TRACKABLE, TRAINING_SCORES
from dynal_fast.pool.sharded.saved_parts import KEY, own_rows
from dynal_fast.pool.sharded.shard import Shard, code_of
from dynal_fast.pool.sharded.sharded_pass import ShardedPass
from dynal_fast.pool.sharded.top import top_k_of_ranks
from dynal_fast.pool.state import PoolState
from dynal_fast.pool.top import top_k
from dynal_fast.pool.tracked import (
    KEEPS_LAST,
    check_without_end,
    checked_epoch,
    checked_schedules,
    checked_sizes,
    checked_track,
    observes,
    part_of,
)
from dynal_fast.pool.training import (
    LabelsAndProbabilities,
    TrainingDynamics,
    labels_and_probabilities,
    training_dynamics,
)


class PoolStats:
    """Learning dynamics and uncertainty of every pool sample, updated in place batch by batch.

    A few numbers per sample stand for all of its outputs. In each observed epoch the moments of its
    output p, the softmax of its logits, are updated by Welford's method::

        mean_t = mean_{t-1} + (p_t - mean_{t-1}) / t
        M2_t = M2_{t-1} + sum_c (p_t - mean_{t-1})_c (p_t - mean_t)_c

    The predicted label is counted, and so on, as the tracked scores need. Below, N is the number of
    samples, C that of classes, and B that of samples in a batch.

    Parameters
    ----------
    num_samples, num_classes
        N and C, which is at least 2, or 1 with ``activation="sigmoid"``. Sample ids are 0 .. N-1.
    track
        Names of the scores wanted (`dynal_fast.pool.scores.SCORES`). Only what they need is
        allocated, and only they can be scored. ``"random"`` needs nothing.
        `TRAINING_SCORES` of the same module are of labeled samples, whose targets `update` takes.
    schedules
        By name, the epochs that a score's statistic observes. By default dynamics observe the last
        5 epochs or every epoch, and scores of a single output the last (``SCORES[name].schedule``).
        Statistics that share a tensor but not a schedule get one tensor each, and each batch then
        takes a second kernel call. If the number of epochs is unknown, see `begin_pass`.
    device
        Where the state is kept. Logits must be on the same device.
    output_dtype
        float32, or float16 to halve the memory of the copy of the last output that ``cod`` and
        ``absolute_increase`` compare with.
    activation
        How logits become probabilities. ``"softmax"``: a sample has one of C classes.
        ``"sigmoid"``: it has any of C labels, as multi-label heads are trained with a binary
        cross-entropy; p_c is then the probability that label c is there. Variances, distances,
        entropy and BALD are summed over the labels, ``margin`` and ``least_confidence`` are those
        of the label that is least sure, and scores of predicted labels are refused. The logits do
        not tell which of the two they were trained for, so a tracker cannot find a wrong choice.
    training_dynamics
        Track all of ``TRAINING_SCORES``, too: 36 bytes per sample.
    backend
        ``"reference"``, ``"cpu"``, ``"triton"`` or ``"cuda"`` instead of the one for the device.
    group
        A process group of torch.distributed, whose ranks keep the statistics together: each holds
        the rows of a range of the samples, N / ranks of them (`owned`), and what the methods return
        is the same on all ranks, and what one process would return. See the notes.

    Raises
    ------
    ValueError
        A name, schedule, size, dtype or activation is not one of the above, or a score has no
        meaning with this activation.
    TypeError
        A size is not an integer.

    Notes
    -----
    The running mean is float32. After n observations of a sample, the standard deviation behind its
    prediction stability is off by at most n × 2^-25 (6e-6 after 200) beside float32's own 1e-6.

    With a ``group``, all ranks make the tracker with the same arguments and call the same methods
    in the same order, but for `update`, `update_from_features`, `owned`, `nbytes` and
    `state_dict`, which talk to nobody: the ranks may have different numbers of batches. Give each
    rank its own samples (`PoolShardSampler`). Rows of samples of other ranks are kept until the
    pass ends, and then sent to their owners, so that this rank holds as many more logits. Errors
    are the same on all ranks and name the rank. One that dies or is cut off ends the others within
    half a minute with a ``RankError``, and what the body of `observe` raises on one rank ends the
    pass on all.

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

    A multi-label head: the first sample's labels are sure, of the second's one is not.

    >>> stats = PoolStats(2, 3, track=("margin",), activation="sigmoid")
    >>> with stats.observe(1, 1):
    ...     stats.update([0, 1], torch.tensor([[9.0, 9.0, -9.0], [9.0, 0.0, -9.0]]))
    >>> stats.select("margin", 1)
    tensor([1])
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        track: Iterable[str] = (),
        *,
        schedules: Mapping[str, Schedule] | None = None,
        device: torch.device | str = "cpu",
        output_dtype: torch.dtype = torch.float32,
        activation: str = "softmax",
        training_dynamics: bool = False,
        backend: str | None = None,
        group: Any = None,
    ) -> None:
        self.num_samples, self.num_classes = checked_sizes(num_samples, num_classes, activation)
        self.activation = activation
        if output_dtype not in OUTPUT_DTYPES:
            raise ValueError(f"output_dtype must be one of {OUTPUT_DTYPES}, got {output_dtype}")
        if backend is not None and backend not in BACKENDS:
            raise ValueError(f"backend must be one of {sorted(BACKENDS)}, got {backend!r}")
        self.output_dtype = output_dtype
        self.backend = backend
        self.device = torch.empty(0, device=device).device
        if training_dynamics and not isinstance(track, str):
            track = tuple(track)
            track += tuple(name for name in TRAINING_SCORES if name not in track)
        self.track = checked_track(track, activation)
        self.schedules = checked_schedules(self.track, schedules or {})
        given = {ALIASES.get(name, name) for name in schedules or {}}
        self._given_schedules = {name: self.schedules[name] for name in given}
        self.shard = Shard(self.num_samples, Alone() if group is None else as_collective(group))
        self._state = PoolState(
            len(self.shard),
            self.num_classes,
            self.schedules,
            output_dtype,
            self.device,
            activation,
        )
        self._open: OpenPass | None = None
        self._last: tuple[int, int | None] | None = None  # the last epoch given to observes()
        self._stopped = False  # whether passes are for scores of the last output alone

    # Passes

    def observes(self, epoch: int, num_epochs: int | None = None) -> bool:
        """Return whether any tracked statistic observes this epoch.

        Parameters
        ----------
        epoch, num_epochs
            The epoch, from 1, and how many there are; None if unknown, as in `begin_pass`.

        Raises
        ------
        ValueError
            ``epoch`` is not in 1 .. ``num_epochs``, or a schedule cannot do without it.
        TypeError
            One is not an integer.

        Examples
        --------
        >>> stats = PoolStats(3, 2, track=("prediction_stability",))  # observes the last 5
        >>> [epoch for epoch in range(1, 9) if stats.observes(epoch, 8)]
        [4, 5, 6, 7, 8]
        """
        epoch, num_epochs = checked_epoch(epoch, num_epochs)
        if num_epochs is None:
            check_without_end(self._given_schedules)
        self._last = epoch, num_epochs
        return any(
            observes(part_of(n), s, epoch, num_epochs)
            for n, s in self.schedules.items()
            if not self._stopped or part_of(n) in KEEPS_LAST
        )

    def _lacks_last(self, epoch: int, num_epochs: int | None, had_pass: bool) -> bool:
        """Return whether a score of a single output lacks ``epoch``, which was the last.

        ``had_pass`` says whether it was observed, as one of ``num_epochs``.
        """
        return any(
            observes(part_of(n), s, epoch, None if num_epochs is None else epoch)
            and not (had_pass and observes(part_of(n), s, epoch, num_epochs))
            for n, s in self.schedules.items()
            if part_of(n) in KEEPS_LAST
        )

    def _adds_to_a_training(self) -> bool:
        """Return whether statistics over epochs hold a training that `begin_cycle` did not end."""
        return self._last is not None and any(
            part_of(name) not in KEEPS_LAST for name in self.schedules
        )

    @contextmanager
    def _training_stopped(self) -> Iterator[None]:
        """Let passes of the epoch that turned out to be the last reach scores of that output alone.

        Each observation of these replaces the one before, so that the epoch may have had a pass.
        Statistics over epochs observe nothing, and tell of the epochs that they lack as before.
        """
        last, self._stopped = self._last, True
        try:
            yield
        finally:
            self._last, self._stopped = last, False

    @contextmanager
    def observe(
        self, epoch: int, num_epochs: int | None = None, partial: bool = False
    ) -> Iterator["PoolStats"]:
        """Observe one pass over the pool: `begin_pass` on entry, `end_pass` on exit.

        If the body raises, the pass is closed without the checks of `end_pass`. Parameters and
        errors are those of the two.

        Examples
        --------
        >>> stats = PoolStats(2, 2, track=("entropy",))
        >>> with stats.observe(epoch=1, num_epochs=1):
        ...     stats.update([0, 1], torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
        >>> stats.score("entropy")
        tensor([0.6931, 0.0012])
        """
        with self.shard.session():
            self.begin_pass(epoch, num_epochs, partial)
            try:
                yield self
            except BaseException:
                self._open = None
                raise
            self.end_pass()

    def begin_pass(self, epoch: int, num_epochs: int | None = None, partial: bool = False) -> None:
        """Begin a pass over the pool, in which each sample is to be seen once.

        Parameters
        ----------
        epoch, num_epochs
            The epoch, from 1 to ``num_epochs`` (N_e of eq. 4 in the prediction stability paper).
            None if the training does not know when it ends (early stopping, ``max_steps``, a
            stream). Scores of a single output then observe every epoch and keep the last, so that
            the training may stop after any: each epoch costs a pass over the pool, and ``cod``
            keeps a second (N, C) output, to compare every epoch with the last output before
            `begin_cycle`. Default schedules that count back from the end are replaced by
            ``EveryEpoch()``, and ``EveryEpoch(s)`` by ``FromEpoch(s, s)``, as `metadata` reports.
            A ``LastEpochs`` that was given for a statistic over epochs is refused: give
            ``FromEpoch(start, interval)``.
        partial
            Samples may stay unseen.

        Raises
        ------
        RuntimeError
            The previous pass was not ended.
        ValueError
            No tracked statistic observes this epoch, ``num_epochs`` is not a number of epochs (some
            libraries have -1 or 2^63 - 1 for None), or a schedule cannot do without it.

        Warns
        -----
        UserWarning
            At the first pass of a cycle without ``num_epochs``: names the statistics over epochs
            whose schedules are replaced.

        Examples
        --------
        >>> stats = PoolStats(1, 2, track=("margin",))
        >>> stats.begin_pass(epoch=3)  # nobody knows how many epochs follow
        >>> stats.update([0], torch.tensor([[1.0, 1.0]]))
        >>> stats.end_pass()
        >>> stats.metadata["schedules"]
        'margin: EveryEpoch(interval=1) instead of LastEpochs(n=1, interval=1), num_epochs being \
unknown'
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
        only = KEEPS_LAST if self._stopped else None
        due = self._state.begin_pass(*checked_epoch(epoch, num_epochs), only)
        common = due, self._state.passes, partial, self.num_classes, self.device, self.backend
        alone = self.shard.is_whole
        self._open = OpenPass(*common) if alone else ShardedPass(*common, shard=self.shard)
        warning = replaced.warning(self.schedules, self._state.replaced)
        if warning and not replaced_before:
            warnings.warn(warning, stacklevel=2)

    def update(
        self, sample_ids: Any, logits: Any, teacher_logits: Any = None, targets: Any = None
    ) -> None:
        """Fold a batch into every statistic that observes this pass, in place.

        Parameters
        ----------
        sample_ids
            (B,) integers of any kind: a tensor, an array or a list, on any device. int64 and int32
            tensors on the tracker's device are read in place, others are copied.
        logits
            (B, C) float32, float16, bfloat16 or float64, on the tracker's device: a tensor or a
            NumPy array. A batch that is not contiguous is copied.
        teacher_logits
            (B, C) of the same dtype: the EMA teacher's for the same inputs. Needed in the passes
            that ``emaod`` observes, ignored in others.
        targets
            (B,) integers of any kind: the class of each sample, which `training_dynamics` and the
            scores of ``TRAINING_SCORES`` compare with. Negative where there is none, such as -100.
            If the target of a sample changes, its training dynamics begin anew.

        Raises
        ------
        RuntimeError
            No pass is open.
        ValueError
            A shape, dtype, device or layout is wrong, or targets come and no score needs them. Bad
            rows are found by `end_pass`.
        TypeError
            An argument is none of the above.

        Examples
        --------
        >>> stats = PoolStats(2, 2, track=("emaod",))
        >>> logits, teacher_logits = torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> with stats.observe(1, 1, partial=True):
        ...     stats.update([1], logits, teacher_logits)
        >>> stats.score("emaod")  # the distance of (1, 0) to (1/2, 1/2)
        tensor([   nan, 0.7071])
        """
        self._pass().update(sample_ids, logits, teacher_logits, self._wanted(targets))

    def update_from_features(
        self,
        sample_ids: Any,
        features: Any,
        weight: Any,
        bias: Any = None,
        teacher_features: Any = None,
        teacher_weight: Any = None,
        teacher_bias: Any = None,
        targets: Any = None,
        *,
        by_id: bool = False,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Do `update` with ``logits = features @ weight.T + bias``, which are never stored.

        On a GPU one call with the cached features of a whole pool is faster than batches, since
        each call reads the weights again.

        Parameters
        ----------
        sample_ids
            As in `update`.
        features
            (B, d) float32, float16, bfloat16 or float64; copied if not contiguous.
        weight, bias
            (C, d) and (C,), of the same dtype, as in ``torch.nn.Linear``; or float32, where the
            features are float16 or bfloat16.
        teacher_features, teacher_weight, teacher_bias
            The EMA teacher's, where ``emaod`` observes this pass. If only the head is averaged, the
            teacher's features are ``features`` again.
        targets
            As in `update`.
        by_id
            The features are those of all N samples, (N, d): row i is that of sample i, such as a
            store of `embedding_store` or a memory map. A CPU reads the rows where they are, without
            a copy; for a GPU they are gathered, some at a time, from where the store is.
        dropout
            The rate of dropout in front of the head, from 0 to below 1, for MC dropout on cached
            features: each of the T passes drops others, and scales what it keeps, as
            ``torch.nn.Dropout`` does. A CPU's kernel makes the masks as it reads the features; none
            is stored. The teacher's features are not dropped.
        seed
            Of the masks, below 2^64. A mask depends on it, on the number of the pass in the
            tracker, on the sample and on the feature alone, so that a run that is repeated or
            resumed has the same masks, whatever its batches, threads, device and ranks.

        Raises
        ------
        RuntimeError, ValueError, TypeError
            As in `update`; with ``by_id`` also where the features would have to be copied.
            ValueError also for a rate or a seed out of range.

        Examples
        --------
        >>> stats = PoolStats(2, 2, track=("margin",))
        >>> head = torch.nn.Linear(3, 2)
        >>> with torch.no_grad(), stats.observe(1, 1):
        ...     stats.update_from_features([0, 1], torch.zeros(2, 3), head.weight, 0 * head.bias)
        >>> stats.score("margin")
        tensor([-0., -0.])

        Ten passes of MC dropout:

        >>> stats = PoolStats(2, 2, track=("bald",))
        >>> features = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
        >>> weight = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
        >>> for _ in range(10):
        ...     with stats.observe(1, 1):
        ...         stats.update_from_features([0, 1], features, weight, dropout=0.5)
        >>> stats.score("bald") > 0.01
        tensor([False,  True])
        """
        self._pass().update_from_features(
            sample_ids,
            features,
            weight,
            bias,
            teacher_features,
            teacher_weight,
            teacher_bias,
            self._wanted(targets),
            by_id,
            Dropout(dropout, seed),
        )

    def end_pass(self) -> None:
        """End the pass and report the rows that were bad and the samples that were not seen.

        Until here nothing waits for the device.

        Raises
        ------
        RuntimeError
            No pass is open.
        PoolObservationError
            Names the ids of rows with a logit that is not finite (or, where
            ``prediction_stability_logits`` observes, beyond 2^40 in absolute value) or a target of
            C or more, of samples
            seen more than once, of rows with an id out of range or dropped and, unless the pass is
            partial, of samples not seen. All other rows were folded in.

        Examples
        --------
        >>> stats = PoolStats(3, 2, track=("margin",))
        >>> stats.begin_pass(1, 1)
        >>> stats.update([0, 0], torch.zeros(2, 2))
        >>> stats.end_pass()
        Traceback (most recent call last):
        dynal_fast.pool.errors.PoolObservationError: 1 samples seen more than once: 0; \
2 samples not seen (pass partial=True if that is meant): 1, 2
        """
        ended = self._pass()
        self._open = None
        with self.shard.session():
            ended.end()

    def begin_cycle(self) -> None:
        """Forget the dynamics, for a model trained anew, but keep the outputs that ``cod`` needs.

        ``cod`` compares with the last output of each sample before this call. If its schedule has
        one epoch of a cycle of known length, only one output is kept, and it compares with the pass
        before: do not observe that epoch twice.

        Raises
        ------
        RuntimeError
            A pass is open.

        Examples
        --------
        >>> stats = PoolStats(1, 2, track=("cod",))
        >>> for logits in (torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 0.0]])):
        ...     stats.begin_cycle()
        ...     with stats.observe(1, 1):
        ...         stats.update([0], logits)
        >>> stats.score("cod")  # the distance of (1/2, 1/2) to (1, 0), eq. 5
        tensor([0.7071])
        """
        self._check_between_passes("begin_cycle")
        self._last = None
        self._state.forget_dynamics()

    # Scores

    def score(self, name: str, **options: Any) -> Tensor:
        """Return a tracked score, float32 (N,): higher is more informative.

        Scores of labeled samples are what their papers define, and not all are of that sign:
        ``TRAINING_SCORES[name].selects`` says which end `select` picks.

        Parameters
        ----------
        name
            One of ``track``.
        options
            Of the score's function in `dynal_fast.pool.formulas`; for ``"random"`` a ``generator``.

        Returns
        -------
        Tensor
            float32 (N,). Dropped samples score NaN, and so do samples with too few observations:
            most scores need one, ``cod`` one in each of two cycles, ``unbiased`` variances two.

        Raises
        ------
        ValueError
            The score is not tracked, or an option is out of range.

        Examples
        --------
        >>> stats = PoolStats(2, 2, track=("least_confidence",))
        >>> with stats.observe(1, 1, partial=True):
        ...     stats.update([1], torch.tensor([[0.0, 0.0]]))
        >>> stats.score("least_confidence")
        tensor([   nan, 0.5000])
        """
        return self.shard.whole(self._own_scores(self._tracked(name), **options))

    @renamed_argument("b", "k")
    def select(
        self,
        name: str,
        k: int,
        candidates: Tensor | None = None,
        generator: torch.Generator | None = None,
        ties: str = "random",
        **options: Any,
    ) -> Tensor:
        """Return the ids of the ``k`` samples with the highest score.

        Of ``confidence``, ``correctness`` and ``aum``, the lowest: the samples that are hard to
        learn, or mislabeled.

        Parameters
        ----------
        name, options
            As in `score`.
        k
            How many.
        candidates
            int (m,) ids or a bool (N,) mask; by default every sample that was not dropped. With a
            ``group``, each rank may give all of them or only those that it knows of.
        generator
            For ties and ``"random"``; torch's global one by default. With a ``group``, what rank 0
            draws counts.
        ties
            ``"random"``, or ``"first"`` for the lowest id.

        Returns
        -------
        Tensor
            int64 (k,), best first.

        Raises
        ------
        ValueError
            A candidate was dropped, or it has no score: the message names the ids and the reason,
            such as that no epoch of the schedule came. Or `top_k` refuses an argument.

        Warns
        -----
        UserWarning
            A statistic over the last epochs has seen only some of them, as training has not ended.

        Examples
        --------
        >>> stats = PoolStats(3, 2, track=("margin",))
        >>> with stats.observe(1, 1):
        ...     stats.update([0, 1, 2], torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0]]))
        >>> stats.select("margin", 2)
        tensor([0, 2])
        >>> stats.select("margin", 1, candidates=torch.tensor([1, 2]))
        tensor([2])
        """
        score = self._tracked(name)
        if score == "random":
            options = {"generator": generator, **options}
        with self.shard.session():
            own = self.shard.own(self._candidates(candidates))
            scores = self._own_scores(score, **options)
            without = own[scores[own].isnan()]
            if any(self.shard.ranks.total([len(without)])):
                raise self._without(name, score, without)
        if score in self.schedules:
            stopped = missing.stopped_early(score, self.schedules[score], self._last)
            if stopped:
                warnings.warn(stopped, stacklevel=3)
        if score in TRACKABLE and TRACKABLE[score].selects == "lowest":
            scores = -scores
        if self.shard.is_whole:
            return top_k(scores, k, own, generator, ties)
        return top_k_of_ranks(scores, k, own, generator, ties, self.shard.ranks)

    # Labeled samples

    def training_dynamics(self) -> TrainingDynamics:
        """Return how each labeled sample was learned, as the papers define it.

        Returns
        -------
        TrainingDynamics
            Named tensors (N,): targets, confidence, variability, forgetting events, AUM and so on.

        Raises
        ------
        ValueError
            No score of labeled samples is tracked, or they have several schedules: ask `score`.

        Examples
        --------
        >>> stats = PoolStats(2, 3, training_dynamics=True)
        >>> for epoch, logits in enumerate(([0.0, 2.0, 1.0], [3.0, 0.0, 0.0]), start=1):
        ...     with stats.observe(epoch, 2, partial=True):
        ...         stats.update([0], torch.tensor([logits]), targets=[1])
        >>> dynamics = stats.training_dynamics()
        >>> dynamics.aum, dynamics.forgetting_events  # margins 1 and -3; learned, then forgotten
        (tensor([-1., nan]), tensor([1, 0], dtype=torch.int32))
        >>> stats.score("correctness")
        tensor([0.5000,    nan])
        """
        tensors = self._of_labeled()
        own = training_dynamics(tensors["training_count"], tensors["training"])
        return TrainingDynamics(*map(self.shard.whole, own))

    def to_cleanlab(self) -> LabelsAndProbabilities:
        """Return labels and mean probabilities of the labeled samples, as cleanlab takes them.

        ``find_label_issues(labels=..., pred_probs=...)`` of its result gives rows, and
        ``sample_ids[rows]`` the samples. The model has been trained on these labels, so that its
        probabilities are less honest than those of the cross-validation that cleanlab suggests; the
        mean over epochs makes up for some of it.

        Returns
        -------
        LabelsAndProbabilities
            NumPy arrays ``sample_ids`` (m,), ``labels`` (m,) and ``pred_probs`` (m, C) of the m
            samples that came with a target.

        Raises
        ------
        ValueError
            No score of labeled samples is tracked, or none that keeps the mean of the
            probabilities, such as ``"bald"``.

        Examples
        --------
        >>> stats = PoolStats(2, 2, track=("bald",), training_dynamics=True)
        >>> with stats.observe(1, 1):
        ...     stats.update([0, 1], torch.zeros(2, 2), targets=[1, -100])
        >>> stats.to_cleanlab().pred_probs
        array([[0.5, 0.5]])
        """
        labeled = self._of_labeled()
        for name in self.track:
            if name in TRACKABLE and "mean" in TRACKABLE[name].tensors:
                mean = self._state.of(name)
                own = labels_and_probabilities(
                    labeled["training_count"], labeled["training"], mean["count"], mean["mean"]
                )
                return self.shard.labels_and_probabilities(own)
        keeping = [name for name, score in TRACKABLE.items() if "mean" in score.tensors]
        raise ValueError(
            f"to_cleanlab needs the mean of the probabilities, which track={self.track} does not "
            f"keep; track one of {', '.join(keeping)}, too"
        )

    # Samples

    def remaining(self) -> Tensor:
        """Return the ids of the samples that were not dropped, int64, ascending.

        Examples
        --------
        >>> stats = PoolStats(3, 2, track=("margin",))
        >>> stats.drop([1])
        >>> stats.remaining()
        tensor([0, 2])
        """
        return self.shard.whole(~self._state.dropped).nonzero().squeeze(1)

    def owned(self) -> Tensor:
        """Return which of the remaining samples this rank keeps, int64, ascending.

        Without a ``group`` these are all of them.

        Examples
        --------
        >>> PoolStats(3, 2, track=("margin",)).owned()
        tensor([0, 1, 2])
        """
        return self.shard.begin + (~self._state.dropped).nonzero().squeeze(1)

    def drop(self, sample_ids: Any) -> None:
        """Take samples out of the pool for good, such as those that became labeled.

        Ids keep their meaning and the tensors their size. A dropped sample scores NaN, cannot be
        selected and need not be seen by a pass; seeing it is an error.

        Parameters
        ----------
        sample_ids
            int (m,) distinct ids, or a bool (N,) mask. With a ``group``, each rank may give all of
            them or only those that it knows of.

        Raises
        ------
        ValueError
            An id is out of range or repeated.
        RuntimeError
            A pass is open.

        Examples
        --------
        >>> stats = PoolStats(2, 2, track=("margin",))
        >>> stats.drop(torch.tensor([0]))
        >>> with stats.observe(1, 1):
        ...     stats.update([1], torch.zeros(1, 2))
        >>> stats.score("margin")
        tensor([nan, -0.])
        """
        self._check_between_passes("drop")
        ids = self.shard.together(lambda: candidate_ids(sample_ids, self.num_samples, self.device))
        self._state.drop(self.shard.own(ids))

    def subset(self, sample_ids: Any) -> "PoolStats":
        """Return a smaller tracker that holds a copy of these samples only.

        Parameters
        ----------
        sample_ids
            int (m,) distinct ids, or a bool (N,) mask of m samples. With a ``group``, the same on
            every rank.

        Returns
        -------
        PoolStats
            Of m samples: its sample j is ``sample_ids[j]`` of this one, or the j-th of the mask. To
            keep the ids, use `drop`, which frees no memory.

        Raises
        ------
        ValueError
            An id is out of range or repeated.
        RuntimeError
            A pass is open.

        Examples
        --------
        >>> stats = PoolStats(3, 2, track=("margin",))
        >>> stats.subset([2, 0]).num_samples
        2
        """
        self._check_between_passes("subset")
        with self.shard.session():
            ids = self.shard.together(lambda: self._in_order(sample_ids))
            check_alike(self.shard.ranks, "sample_ids", [len(ids), code_of(ids)])
            other = copy(self)
            other.num_samples = len(ids)
            other.shard = Shard(len(ids), self.shard.ranks)
            other._state = self._state.subset(self.shard.taker(ids, other.shard))
        return other

    def merge(self, other: "PoolStats", follows: bool = False) -> "PoolStats":
        """Add what another tracker of the same pool observed, as if it had followed here.

        The two may have observed the same samples or different ones. Moments are combined by the
        parallel form of Welford's update (Chan et al.)::

            M2 = M2_a + M2_b + |mean_b - mean_a|^2 n_a n_b / (n_a + n_b)

        Counts of labels add. Of values that describe one output (``cod``, ``emaod``, entropy, ...),
        the other's are taken where it has them. A sample that is dropped in one is dropped.

        What cannot be right is refused: ``absolute_increase`` of samples that both observed, as the
        step between the two is in neither; and what depends on the order, where the trackers took
        turns: they had as many passes, of the same epochs, and a sample was last seen in different
        ones, as in data-parallel training with samples that are dealt out anew for each epoch. For
        that, give the tracker a ``group``.

        Parameters
        ----------
        other
            A tracker made with the same arguments; it is left as it is.
        follows
            All of the other's observations came after those here, even if it looks otherwise.

        Returns
        -------
        PoolStats
            This tracker, changed in place.

        Raises
        ------
        ValueError
            The sizes, tracked names, schedules, output dtypes, activations or devices differ, or a
            statistic of samples that both observed cannot be put together. Nothing was changed.
        RuntimeError
            A pass is open in one of the two.

        Examples
        --------
        >>> halves = [PoolStats(2, 2, track=("margin",)) for _ in range(2)]
        >>> for sample, half in enumerate(halves):
        ...     with half.observe(1, 1, partial=True):
        ...         half.update([sample], torch.zeros(1, 2))
        >>> halves[0].merge(halves[1]).score("margin")
        tensor([-0., -0.])
        """
        self._check_between_passes("merge")
        other._check_between_passes("merge")
        same = ("num_samples", "num_classes", "schedules", "output_dtype", "activation", "device")
        for attribute in same:
            mine, theirs = getattr(self, attribute), getattr(other, attribute)
            if mine != theirs:
                raise ValueError(f"merge needs the same {attribute}: {mine} here, {theirs} there")
        if self.shard != other.shard:
            raise ValueError(f"merge needs the same ranks: {self.shard} here, {other.shard} there")
        begin = self.shard.begin
        self.shard.together(lambda: self._state.check_merge(other._state, follows, begin))
        self._state.merge(other._state)
        return self

    # Memory and checkpoints

    def nbytes(self) -> dict[str, int]:
        """Return the bytes of each part of the state (``"labels"``, ...), and the ``"total"``.

        Examples
        --------
        >>> PoolStats(1000, 10, track=("label_dispersion",)).nbytes()
        {'labels': 10000, 'stamps': 4128, 'total': 14128}
        """
        return self._state.nbytes()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as plain tensors, which safetensors can store; they share memory.

        Returns
        -------
        dict of str to Tensor
            The tensors of `dynal_fast.ops.pool_stats` by their names, with ``.1``, ``.2`` ... where
            a second schedule has its own; ``stamp``; ``passes``, the number of passes;
            ``label_passes``; ``schedules``, the bytes of their description; ``epochs``, the first
            and the last one that this cycle observed; ``unknown_end`` if
            it had a pass without ``num_epochs``; with a ``group``, the rows of this rank, and
            ``shard``, its first sample, the one after its last, and N; and ``activation``, the
            bytes of its name, if that is not ``"softmax"``.

        Raises
        ------
        RuntimeError
            A pass is open.

        Examples
        --------
        >>> sorted(PoolStats(3, 2, track=("margin",)).state_dict())
        ['label_passes', 'last_margin', 'passes', 'schedules', 'stamp']
        """
        self._check_between_passes("state_dict")
        state = self._state.state_dict()
        if not self.shard.is_whole:
            state[KEY] = torch.tensor([self.shard.begin, self.shard.end, self.num_samples])
        return state

    def load_state_dict(
        self, tensors: Mapping[str, Tensor] | Iterable[Mapping[str, Tensor]]
    ) -> None:
        """Restore what `state_dict` returned into a tracker made with the same arguments.

        Parameters
        ----------
        tensors
            What `state_dict` returned, on any device. With or without a ``group`` also what it
            returned on each rank of another, as a list in any order, of which a rank reads the rows
            of its samples (``torch.load(path, mmap=True)`` leaves the others on the disk).

        Raises
        ------
        ValueError
            Names, shapes, dtypes or the activation are not those of this tracker, or a count, a
            stamp or a value is one that passes cannot leave behind. Nothing was changed then.
        TypeError
            A value is not a tensor.
        RuntimeError
            A pass is open.

        Examples
        --------
        >>> stats, other = (PoolStats(1, 2, track=("margin",)) for _ in range(2))
        >>> with stats.observe(1, 1):
        ...     stats.update([0], torch.zeros(1, 2))
        >>> other.load_state_dict(stats.state_dict())
        >>> other.score("margin")
        tensor([-0.])
        """
        self._check_between_passes("load_state_dict")

        def checked() -> Mapping[str, Tensor]:
            own = own_rows(tensors, self.shard)
            self._state.check_saved(own)
            return own

        self._state.load_state_dict(self.shard.together(checked))

    @property
    def metadata(self) -> dict[str, str]:
        """Tracked scores, schedules and activation, as text to store beside `state_dict`."""
        described = replaced.description(self.schedules, self._state.replaced)
        track = " ".join(self.track)
        return {"track": track, "schedules": described, "activation": self.activation}

    def __repr__(self) -> str:
        return (
            f"PoolStats({self.num_samples}, {self.num_classes}, track={self.track}, "
            f"{'' if self.activation == 'softmax' else f'activation={self.activation!r}, '}"
            f"device={str(self.device)!r}): {self.nbytes()['total']:,} bytes"
            + replaced.note(self.schedules, self._state.replaced)
        )

    # Inside

    def _own_scores(self, name: str, **options: Any) -> Tensor:
        """Return a score of this rank's samples."""
        if name == "random":
            return self._random(**options)
        tensors, score = self._state.of(name), TRACKABLE[name]
        function = score.function if self.activation == "softmax" else score.of_sigmoids
        assert function is not None  # checked_track refuses the others
        return function(*(tensors[tensor] for tensor in score.tensors), **options)

    def _random(self, generator: torch.Generator | None = None) -> Tensor:
        source = generator.device if generator is not None else torch.device("cpu")
        drawn = torch.rand(self.num_samples, generator=generator, device=source).to(self.device)
        scores = self.shard.of_the_first(drawn)[self.shard.begin : self.shard.end]
        return scores.masked_fill(self._state.dropped, torch.nan)

    def _candidates(self, candidates: Any) -> Tensor:
        """Return the ids of candidates, none of which was dropped; all ranks must call this."""
        with self.shard.session():
            what = "candidates, given or not,"
            check_alike(self.shard.ranks, what, [int(candidates is None)])
        if candidates is None:
            return self.remaining()
        ids = self.shard.together(lambda: candidate_ids(candidates, self.num_samples, self.device))
        own = self.shard.own(ids)
        dropped = torch.zeros_like(self._state.dropped)
        dropped[own] = self._state.dropped[own]
        gone = self.shard.whole(dropped).nonzero().squeeze(1)
        if len(gone):
            raise on_all_ranks(
                ValueError(f"{len(gone)} candidates were dropped: {first_ids(gone)}")
            )
        return ids

    def _in_order(self, sample_ids: Any) -> Tensor:
        """Return ids, or those of a mask, checked, in their order."""
        chosen = torch.as_tensor(sample_ids, device=self.device)
        ids = candidate_ids(chosen, self.num_samples, self.device)
        return ids if chosen.dtype == torch.bool else chosen.long()

    def _without(self, name: str, score: str, without: Tensor) -> ValueError:
        """Return an error for the samples without a score; all ranks must call this."""
        lacks = torch.zeros(len(self.shard), dtype=torch.bool, device=self.device)
        lacks[without] = True
        lacking, observed, refused = map(
            self.shard.whole, (lacks, self._state.observed(score), self._state.refused(score))
        )
        ids, schedule = lacking.nonzero().squeeze(1), self.schedules[score]
        return on_all_ranks(
            ValueError(missing.reason(name, ids, observed, refused, schedule, self._last))
        )

    def _tracked(self, name: str) -> str:
        score = ALIASES.get(name, name)
        if score not in self.track:
            raise ValueError(f"{score!r} is not tracked: track={self.track}")
        return score

    def _of_labeled(self) -> dict[str, Tensor]:
        """Return the one set of tensors of the tracked scores of labeled samples."""
        names = [name for name in self.track if name in TRAINING_SCORES]
        if not names:
            raise ValueError(
                f"no score of labeled samples is tracked: track={self.track}; make the tracker "
                "with PoolStats(..., training_dynamics=True)"
            )
        if len({id(self._state.of(name)) for name in names}) > 1:
            raise ValueError(
                "the scores of labeled samples have several schedules; ask score(name), got "
                f"{ {name: self.schedules[name] for name in names} }"
            )
        return self._state.of(names[0])

    def _wanted(self, targets: Any) -> Any:
        """Return targets, if a tracked score needs them."""
        if targets is not None and not any(name in TRAINING_SCORES for name in self.track):
            raise ValueError(
                f"targets were given, and no score in track={self.track} needs them; make the "
                "tracker with PoolStats(..., training_dynamics=True)"
            )
        return targets

    def _pass(self) -> OpenPass:
        if self._open is None:
            raise RuntimeError("no pass is open: use `with stats.observe(epoch, num_epochs):`")
        return self._open

    def _check_between_passes(self, what: str) -> None:
        if self._open is not None:
            raise RuntimeError(f"{what} must not be called within a pass; call end_pass first")

"""Save a run after every cycle, and resume it from a checkpoint that was checked whole first."""

import dataclasses
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dynal_fast.experiment.analysis import recorded_cycles
from dynal_fast.experiment.checkpoint import Checkpoint, check_layout, first_difference, prefixed
from dynal_fast.experiment.determinism import machine
from dynal_fast.experiment.observation import PoolObserver
from dynal_fast.experiment.reading import check_cycles
from dynal_fast.experiment.runs import CycleResult, CycleTiming, Request, RunResult
from dynal_fast.experiment.state import RunSetup, RunState
from dynal_fast.plain import build

_DERIVED = {"input_shape", "labels", "sha256", "initial_weights"}  # of the data and the model


@dataclass(frozen=True)
class _Facts:
    """The plain values of a checkpoint; ``machines`` are those that the run was on, in order."""

    configuration: dict[str, Any]
    random: dict[str, Any]
    cycles: list[CycleResult]
    timings: list[CycleTiming]
    machines: list[str] = field(default_factory=list)
    request: Request | None = None
    settled: dict[str, str | None] | None = None  # by "auto"; None in earlier versions


def check_resumes(setup: RunSetup) -> None:
    """Check, before anything is trained, that a run can go on in its directory.

    Raises
    ------
    ValueError
        What is there is damaged, of another configuration, or without recordings that are asked
        for.
    """
    if setup.path is None or not setup.path.exists():
        return
    facts = _facts(setup, Checkpoint.load(setup.path))
    _check_recordings(setup, facts.cycles)


def save(setup: RunSetup, state: RunState) -> None:
    """Write the checkpoint of the cycles so far, where the experiment has a directory."""
    if setup.path is None:
        return
    random_tensors, random_facts = state.streams.state()
    tensors = {"labeled": state.labeled}
    tensors |= prefixed("model", state.model.state_dict())
    tensors |= prefixed("stats", state.observer.state())
    tensors |= prefixed("random", random_tensors)
    if state.objective is not None:
        tensors |= prefixed("objective", state.objective.state())
    facts = {
        "configuration": setup.configuration,
        "random": random_facts,
        "cycles": [dataclasses.asdict(cycle) for cycle in state.cycles],
        "timings": [dataclasses.asdict(timing) for timing in state.timings],
        "machines": state.machines,
    }
    if isinstance(state.observer, PoolObserver):
        facts["settled"] = state.observer.settled()
    if state.request is not None:
        facts["request"] = dataclasses.asdict(state.request)
    Checkpoint(tensors, facts).save(setup.path)


def restore(setup: RunSetup, state: RunState) -> None:
    """Go on from the checkpoint in the experiment's directory, if there is one.

    A run that is resumed on other hardware warns: its results may round differently.

    Raises
    ------
    ValueError
        The checkpoint is damaged, belongs to another configuration, or contradicts itself;
        ``state`` is not to be used then.
    """
    path = setup.path
    if path is None or not path.exists():
        return
    checkpoint = Checkpoint.load(path)
    facts = _facts(setup, checkpoint)
    _check_recordings(setup, facts.cycles)
    try:
        _check_facts(setup, facts)
        labeled = _checked_labeled(setup, facts.cycles, checkpoint.tensors.get("labeled"))
        model = checkpoint.part("model")
        check_layout(state.model.state_dict(), model, "model")
        state.model.load_state_dict(model)
        state.observer.restore(checkpoint.part("stats"))
        state.streams.restore(checkpoint.part("random"), facts.random)
        if state.objective is not None:
            objective = checkpoint.part("objective")
            check_layout(state.objective.state(), objective, "objective")
            state.objective.restore(objective)
    except ValueError as error:
        raise ValueError(f"{path} cannot be resumed: {error}") from error
    state.labeled, state.request = labeled, facts.request
    state.cycles, state.timings = facts.cycles, facts.timings
    if isinstance(state.observer, PoolObserver):  # "auto" goes on with what it chose
        state.observer.repeat(facts.settled or _earlier(state.observer, facts.cycles))
    _follow_machine(setup, state, facts)


def _earlier(observer: PoolObserver, cycles: list[CycleResult]) -> dict[str, str | None]:
    """Return what "auto" settled on by the results: their passes are in order, observed first."""
    used = [cycle.accelerated for cycle in cycles if cycle.accelerated]
    whose = "embedder" if observer.stats is None else "observer"
    return {whose: used[-1].split(", ")[0]} if used else {}


def _facts(setup: RunSetup, checkpoint: Checkpoint) -> _Facts:
    try:
        facts = build(_Facts, checkpoint.facts)
    except ValueError as error:
        raise ValueError(f"{setup.path} is not a checkpoint of a run: {error}") from error
    _check_configuration(setup, facts)
    return facts


def _check_configuration(setup: RunSetup, facts: _Facts) -> None:
    ours, theirs = setup.configuration, facts.configuration
    if "sha256" not in theirs:  # format 1 had fewer keys
        ours = {key: value for key, value in ours.items() if key in theirs}
    # Name a setting that the user chose rather than a value derived from it.
    mine, other = ({k: v for k, v in each.items() if k not in _DERIVED} for each in (ours, theirs))
    difference = first_difference(mine, other) or first_difference(ours, theirs)
    if not difference:
        return
    if difference.startswith("threads "):
        advice = (
            f"Go on with --threads {theirs.get('threads')}: with other numbers of threads sums are "
            "rounded otherwise. Or choose another output directory."
        )
    else:
        advice = "Choose another output directory, or delete this one to start over."
    raise ValueError(f"{setup.path} belongs to a different configuration: {difference}. {advice}")


def _check_facts(setup: RunSetup, facts: _Facts) -> None:
    cycles, samples = facts.cycles, len(setup.given.samples)
    run = RunResult(setup.strategy.name, setup.seed, setup.initial_ids, cycles)
    check_cycles(run, "run", samples, bool(setup.protocol.compress))
    if [timing.cycle for timing in facts.timings] != [cycle.cycle for cycle in cycles]:
        raise ValueError("timings must be those of the cycles")
    if setup.data.oracle.asks and (facts.request.ids if facts.request else []) != _asked(cycles):
        raise ValueError("request must be what the last selection picked")
    counts = setup.protocol.labeled_counts()
    if len(cycles) > len(counts):
        raise ValueError(f"cycles must be at most {len(counts)}, got {len(cycles)}")
    for cycle, count in zip(cycles, counts, strict=False):
        exact = not setup.protocol.compress or cycle.cycle == 0
        if cycle.labeled > count or (exact and cycle.labeled < count):
            raise ValueError(f"cycles[{cycle.cycle}].labeled must be {count}, got {cycle.labeled}")


def _asked(cycles: list[CycleResult]) -> list[int]:
    return next((cycle.selected for cycle in reversed(cycles) if cycle.selected), [])


def _checked_labeled(setup: RunSetup, cycles: list[CycleResult], labeled: Tensor | None) -> Tensor:
    """Return the ids of the labeled samples: the initial ones and those that the cycles picked."""
    if labeled is None or labeled.dtype != torch.int64 or labeled.ndim != 1:
        raise ValueError("labeled must be int64 (samples,)")
    if not len(labeled):
        raise ValueError("labeled must name at least one sample, got none")
    entries, low, high = len(setup.data.samples), int(labeled.min()), int(labeled.max())
    if low < 0 or high >= entries:
        raise ValueError(f"labeled must be in 0 .. {entries - 1}, got {low if low < 0 else high}")
    if len(labeled.unique()) < len(labeled):
        raise ValueError("labeled must be distinct, and one sample is there twice")
    expected = setup.initial_ids
    for cycle in cycles:
        if cycle.selected:
            kept = [] if setup.protocol.compress else expected
            expected = [*kept, *cycle.selected]
    if len(labeled) != len(expected):
        raise ValueError(f"labeled must be {len(expected)} samples, got {len(labeled)}")
    if setup.originals(labeled).tolist() != expected:
        raise ValueError("labeled must be the initial samples and those that the cycles selected")
    return labeled


def _check_recordings(setup: RunSetup, cycles: list[CycleResult]) -> None:
    """Refuse ``analysis`` if a finished cycle was not recorded: it cannot be recorded later."""
    if not setup.analysis or setup.path is None:
        return
    folder = setup.path.parent
    missing = {cycle.cycle for cycle in cycles if cycle.selected} - recorded_cycles(folder)
    if missing:
        raise ValueError(
            f"analysis cannot be added to {folder}: cycle {min(missing)} was trained without it, "
            "and only a training can be recorded. Choose another output directory."
        )


def _follow_machine(setup: RunSetup, state: RunState, facts: _Facts) -> None:
    here = machine(setup.device)
    state.machines = [*facts.machines]
    if here in state.machines[-1:] or setup.finished(state.cycles):
        return
    if state.machines:
        warnings.warn(
            f"{setup.path} is resumed on {here} after {state.machines[-1]}: results may differ "
            "in their last bits from those of one machine",
            stacklevel=2,
        )
    state.machines.append(here)

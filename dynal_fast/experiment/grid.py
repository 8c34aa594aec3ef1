"""Run a grid of strategies and seeds: each run in its own folder, all results in one file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from dynal_fast.experiment.asking.data import load_asked
from dynal_fast.experiment.asking.desk import Desk
from dynal_fast.experiment.checkpoint import sole_run
from dynal_fast.experiment.compression import CompressionExperiment
from dynal_fast.experiment.config import Protocol, RunConfig
from dynal_fast.experiment.data import ExperimentData, load_data
from dynal_fast.experiment.determinism import checked_device
from dynal_fast.experiment.loop import ActiveLearningExperiment
from dynal_fast.experiment.results import GridResult
from dynal_fast.experiment.runs import REFERENCE, RunResult
from dynal_fast.experiment.texts import experiment_data, read_embedded_texts
from dynal_fast.strategies.registry import Strategy, get_strategy

OnEpoch = Callable[[str, int], None]
SELECTING = ", selecting"


def total_epochs(config: RunConfig) -> int:
    """Return how many epochs all runs of the grid train.

    >>> total_epochs(RunConfig(strategies=["random"], seeds=[0], protocol=Protocol(cycles=4)))
    180
    """
    trainings = len(config.strategies) * (config.protocol.selections + 1) + config.reference
    return trainings * len(config.seeds) * config.training.epochs


def run_grid(
    config: RunConfig,
    folder: str | Path,
    *,
    data: ExperimentData | None = None,
    on_epoch: OnEpoch | None = None,
) -> GridResult:
    """Run, or continue, every strategy with every seed and write the results into ``folder``.

    Each run is checkpointed in ``folder/<strategy>/seed-<seed>``; a run that is finished there is
    not run again. ``results.json`` and ``results.csv`` are the same bytes on every repeat;
    ``timings.json`` holds what differs.

    Where ``config.oracle`` is ``"ask"``, the run ends where labels are missing: ``awaited`` of the
    returned value says which, and where they are to be written. Called again with them, it goes on.

    Parameters
    ----------
    data
        The data set; by default the one that ``config`` names, which it has to be with ``"ask"``.
    on_epoch
        Called after each epoch as ``on_epoch(where, done)``, with ``done`` out of
        :func:`total_epochs`; where a selection follows, ``where`` ends in ``SELECTING``.

    Raises
    ------
    ValueError
        A name is unknown, or ``folder`` holds runs of another configuration.
    OSError
        Another run is writing to ``folder``, or a file could not be written; the checkpoints
        before it are intact.
    """
    folder = Path(folder)
    chosen = _chosen(config)
    names = list(chosen)
    if len(names) < len(config.strategies):
        raise ValueError(f"strategies has one strategy twice: {', '.join(config.strategies)}")
    if config.threads:
        torch.set_num_threads(config.threads)
    desk: Desk | None = None
    if config.oracle == "ask":
        if data is not None:
            raise ValueError("data must be left out with oracle 'ask': config.data_root has it")
        data, desk = load_asked(config, folder, checked_device(config.device))
        config = _beginning_with(config, data.oracle.initial_size(config.protocol.initial))
    elif data is None:
        data = load_configured(config)
    jobs = [(name, seed) for seed in config.seeds for name in names]
    if config.reference:
        jobs += [(REFERENCE, seed) for seed in config.seeds]
    experiments = [
        _experiment(config, data, chosen.get(name), name, seed, folder) for name, seed in jobs
    ]
    for experiment in experiments[: len(names)]:
        experiment.check_needs()
    for experiment in experiments:
        experiment.check_resumes()
    runs: list[RunResult] = []
    done = 0
    with sole_run(folder):
        if desk is not None:
            desk.begin(experiments[0].initial)
        for (name, seed), experiment in zip(jobs, experiments, strict=True):
            if on_epoch is not None:
                experiment.on_epoch = _reporter(on_epoch, name, seed, done, experiment)
            runs.append(dataclasses.replace(experiment.run(), strategy=name))
            done += (experiment.protocol.selections + 1) * config.training.epochs
        runs.sort(key=lambda run: [*names, REFERENCE].index(run.strategy))
        grid = GridResult(
            config.to_mapping(),
            runs,
            metric=data.metric,
            samples=len(data.samples),
            test_samples=len(data.test_samples),
            chance=data.chance,
            class_names=list(data.class_names),
        )
        if desk is None:
            grid.save(folder)
        else:
            grid = _saved_and_asked(grid, folder, desk)
    return grid


def load_configured(config: RunConfig) -> ExperimentData:
    """Return the data set that a configuration names."""
    device = checked_device(config.device)
    if config.data == "texts":
        root = Path(config.data_root).expanduser()
        texts = read_embedded_texts(root, config.embeddings, split=True, share=config.scale)
        return experiment_data(texts, torch.from_numpy(texts.labels), device)
    cache, share = config.data_cache, config.scale
    return load_data(config.data, config.data_root, device, cache, share, config.image_size)


def _beginning_with(config: RunConfig, initial: int) -> RunConfig:
    """Return the configuration of a run that begins with so many labels."""
    return dataclasses.replace(
        config, protocol=dataclasses.replace(config.protocol, initial=initial)
    )


def _saved_and_asked(grid: GridResult, folder: Path, desk: Desk) -> GridResult:
    """Write the results where they changed, and what a person is asked for."""
    (run,) = grid.runs
    if run.cycles and grid.differs_from(folder):
        grid.save(folder)
    awaited = None if run.request is None else desk.ask(run.request)
    return dataclasses.replace(grid, awaited=awaited)


def _chosen(config: RunConfig) -> dict[str, Strategy]:
    """Return name → strategy of those that run, with their options."""
    chosen = {strategy.name: strategy for strategy in map(get_strategy, config.strategies)}
    for name, given in config.options.items():
        strategy = get_strategy(name)
        if strategy.name not in chosen:
            raise ValueError(f"options names {name!r}, which is not among strategies")
        chosen[strategy.name] = strategy.with_options(given)
    return chosen


def _experiment(
    config: RunConfig,
    data: ExperimentData,
    strategy: Strategy | None,
    name: str,
    seed: int,
    folder: Path,
) -> ActiveLearningExperiment:
    """Return the run of a strategy, or the reference on all data where there is none."""
    everything = Protocol(initial=len(data.samples), cycles=0)
    compresses = strategy is not None and config.protocol.compress
    kind = CompressionExperiment if compresses else ActiveLearningExperiment
    return kind(
        data,
        config.model,
        strategy or "random",
        protocol=config.protocol if strategy else everything,
        training=config.training,
        schedules=config.schedules,
        seed=seed,
        device=config.device,
        directory=folder / name / f"seed-{seed}",
        analysis=config.analysis and strategy is not None,
        accelerate=config.accelerate,
    )


def _reporter(
    on_epoch: OnEpoch, name: str, seed: int, done: int, experiment: ActiveLearningExperiment
) -> Callable[[int, int], None]:
    epochs, selections = experiment.training.epochs, experiment.protocol.selections

    def report(cycle: int, epoch: int) -> None:
        next_step = SELECTING if epoch == epochs and cycle < selections else ""
        on_epoch(f"{name}, seed {seed}, cycle {cycle}{next_step}", done + cycle * epochs + epoch)

    return report

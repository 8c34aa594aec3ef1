"""A thin active-learning loop: data, training, streaming observation, acquisition, results.

The names load when they are first used, so that the command line shows its help without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynal_fast.experiment.asking.oracle import AskingOracle
    from dynal_fast.experiment.compression import CompressionExperiment
    from dynal_fast.experiment.config import Protocol, RunConfig, Training
    from dynal_fast.experiment.data import ExperimentData, load_data
    from dynal_fast.experiment.grid import run_grid
    from dynal_fast.experiment.loop import ActiveLearningExperiment
    from dynal_fast.experiment.oracle import Oracle
    from dynal_fast.experiment.results import GridResult
    from dynal_fast.experiment.runs import RunResult
    from dynal_fast.experiment.samples import SampleSet
    from dynal_fast.experiment.tables import read_config

_HOMES = {
    "ActiveLearningExperiment": "loop",
    "AskingOracle": "asking.oracle",
    "CompressionExperiment": "compression",
    "ExperimentData": "data",
    "GridResult": "results",
    "Oracle": "oracle",
    "Protocol": "config",
    "RunConfig": "config",
    "RunResult": "runs",
    "SampleSet": "samples",
    "Training": "config",
    "load_data": "data",
    "read_config": "tables",
    "run_grid": "grid",
}

__all__ = [
    "ActiveLearningExperiment",
    "AskingOracle",
    "CompressionExperiment",
    "ExperimentData",
    "GridResult",
    "Oracle",
    "Protocol",
    "RunConfig",
    "RunResult",
    "SampleSet",
    "Training",
    "load_data",
    "read_config",
    "run_grid",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Several strategies and seeds on one data set, with learning curves and a report as a page.

The same as ``dynal-fast run`` and ``dynal-fast report``, from Python. A run that was interrupted
goes on where it was: start it again.

    pip install 'dynal_fast[experiment]'
    python examples/compare_strategies.py runs/comparison
"""

import sys
from pathlib import Path

from dynal_fast.experiment import Protocol, RunConfig, Training, run_grid
from dynal_fast.report.write import write_report


def main(folder: str | Path, epochs: int = 30) -> Path:
    """Write results and report into ``folder`` and return the path of the page."""
    config = RunConfig(
        data="digits",
        model="mlp",
        strategies=["random", "margin", "label_dispersion", "farthest_first"],
        seeds=[0, 1],
        protocol=Protocol(initial=30, budget=30, cycles=3),
        training=Training(epochs=epochs, batch_size=16, optimizer="adam", learning_rate=1e-3),
        analysis=True,
        reference=False,
    )
    grid = run_grid(config, folder)
    for strategy in grid.strategies():
        finals = [100 * run.accuracies[-1] for run in grid.of(strategy)]
        print(f"{strategy:18}", " ".join(f"{accuracy:5.1f}%" for accuracy in finals))
    page = write_report([folder], Path(folder) / "report")
    print(f"the report: {page}")
    return page


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/comparison")

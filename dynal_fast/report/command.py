"""The commands that write pages: ``dynal-fast report`` and ``dynal-fast demo-2d``."""

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """
Write one HTML page about finished runs: learning curves, accuracies absolute and relative to all
data, what the scores of each method rank high, trajectories of single samples, time and memory.
The page is one file that needs no network; the numbers behind every picture are in it as tables.
"""

EXAMPLES = """
examples:
  # a run with recordings, which the pictures of scores and losses need, and its report
  dynal-fast run -o runs/digits --analysis --strategies random margin label_dispersion cod
  dynal-fast report runs/digits -o report

  # more seeds of one experiment, run elsewhere: put together, as one experiment
  dynal-fast report runs/seeds-0-2 runs/seeds-3-5 -o report

  # differences from margin instead of random, seed by seed, with their confidence intervals
  dynal-fast report runs/digits --baseline margin -o report

  # two settings on one data set: side by side, named by their folders
  dynal-fast report runs/from-scratch runs/continued -o report

  # data maps: how labeled samples were learned; each file is written by
  #   numpy.savez("dynamics.npz", **stats.training_dynamics()._asdict())
  dynal-fast report dynamics.npz -o data-map

  # results without their folder; the timings are looked for beside them, as big-timings.json
  dynal-fast report records/big-results.json -o report

The page is REPORT/index.html; REPORT/differences.csv has the differences from the baseline with
their confidence intervals. Where the recordings for a picture are missing, it says which command
records them.
"""


DEMO_2D_DESCRIPTION = """
Watch two methods choose: softmax response and farthest-first on 200 points of three Gaussians, from
one labeled point of each class to 30 labels, one at a time (section 5 and Fig. 5 of the long-tail
paper). Takes seconds. Softmax response refines the boundary that it has and may never ask in the
third Gaussian; farthest-first asks there soon.
"""

DEMO_2D_EXAMPLES = """
examples:
  # three starts; the pictures are of the first, the numbers of all
  dynal-fast demo-2d -o demo-2d

  # one other start
  dynal-fast demo-2d --seeds 7

DIR/index.html has the pictures, with the random baseline in the curves; DIR/demo-2d.json the picks,
accuracies, Gaussians reached and radii of every round.
"""


def add_report(commands: Any) -> None:
    """Add the subcommand to an argparse ``commands``."""
    report = commands.add_parser(
        "report",
        help="write a page about finished runs: curves, tables, the papers' analyses",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="an output folder of `run`, or a results.json under whatever name; or .npz files of "
        "training dynamics, for data maps",
    )
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report"), help="folder (default: report)"
    )
    report.add_argument(
        "--baseline",
        default="random",
        metavar="STRATEGY",
        help="the strategy from which differences are taken, seed by seed (default: random)",
    )
    report.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> None:
    from dynal_fast.report.data_map import write_data_maps
    from dynal_fast.report.write import write_report

    of_training = [path.suffix == ".npz" for path in arguments.runs]
    if any(of_training):
        if not all(of_training):
            raise ValueError(
                "the arguments of report must be of one kind: runs, or .npz files of training "
                f"dynamics; got {', '.join(map(str, arguments.runs))}"
            )
        print(f"Data maps: {write_data_maps(arguments.runs, arguments.output)}")
        return
    print(f"Report: {write_report(arguments.runs, arguments.output, arguments.baseline)}")


def add_demo_2d(commands: Any) -> None:
    """Add the subcommand to an argparse ``commands``."""
    demo = commands.add_parser(
        "demo-2d",
        help="watch farthest-first and softmax response choose in the plane (seconds)",
        description=DEMO_2D_DESCRIPTION,
        epilog=DEMO_2D_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "-o", "--output", type=Path, default=Path("demo-2d"), metavar="DIR", help="default: demo-2d"
    )
    demo.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        metavar="SEED",
        help="starts: the points, the two first labels and the weights (default: 0 1 2)",
    )
    demo.set_defaults(command=_demo_2d)


def _demo_2d(arguments: argparse.Namespace) -> None:
    from dynal_fast.experiment.three_gaussians import run_courses
    from dynal_fast.report.demo_2d import demo_2d_table, write_demo_2d
    from dynal_fast.table import as_text

    if min(arguments.seeds) < 0 or len(set(arguments.seeds)) < len(arguments.seeds):
        raise ValueError(f"seeds must be distinct numbers of at least 0, got {arguments.seeds}")
    courses = run_courses(arguments.seeds)
    picture, numbers = write_demo_2d(courses, arguments.output)
    print(as_text(demo_2d_table(courses)))
    print(f"\nPicture: {picture}; numbers: {numbers}")

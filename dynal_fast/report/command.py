"""The command line of the report: ``dynal-fast report``."""

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

  # two settings on one data set: side by side, named by their folders
  dynal-fast report runs/from-scratch runs/continued -o report

  # results without their folder; the timings are looked for beside them, as big-timings.json
  dynal-fast report records/big-results.json -o report

The page is REPORT/index.html. Where the recordings for a picture are missing, it says which command
records them.
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
        help="an output folder of `run`, or a results.json under whatever name",
    )
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report"), help="folder (default: report)"
    )
    report.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> None:
    from dynal_fast.report.write import write_report

    print(f"Report: {write_report(arguments.runs, arguments.output)}")

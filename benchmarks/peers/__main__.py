"""``python -m benchmarks.peers tests | selections``."""

import argparse
import sys
from pathlib import Path

from benchmarks.peers import selections, suites
from benchmarks.peers.sources import REPOSITORIES, MissingError

parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
parser.add_argument("what", choices=["tests", "selections"])
parser.add_argument(
    "--sources",
    type=Path,
    default=Path("build/peers"),
    help="a folder with the codebases by name, into which git fetches what is missing",
)
parser.add_argument("--only", choices=[*REPOSITORIES], help="one codebase")


def run_tests(folder: Path, only: str | None) -> int:
    """Run all suites; 1 if another test failed than is expected, or a codebase is missing."""
    failed = 0
    for suite in suites.SUITES:
        if only not in (None, suite.peer):
            continue
        print(f"\n{suite.peer}: {suite.file} {suite.chosen}", flush=True)
        try:
            failed |= not suites.run(suite, folder)
        except MissingError as error:
            print(error)
            failed = 1
    return int(failed)


arguments = parser.parse_args()
if arguments.what == "tests":
    sys.exit(run_tests(arguments.sources, arguments.only))
selections.measure(Path(), arguments.sources, arguments.only)

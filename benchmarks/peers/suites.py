"""The peers' own test files, run with an adapter in place of the strategy that they test."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.sources import obtain

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Suite:
    """Tests of one codebase.

    Attributes
    ----------
    peer
        Its name in `benchmarks.peers.sources.REPOSITORIES`.
    swap
        The module of `benchmarks.peers.swaps` that puts our strategies in place of its own.
    file
        The test file, below its sources; or below this folder if it ends in ``_template.py``.
    chosen
        Which tests of the file are about such strategies: an expression for pytest's ``-k``.
    expected
        What is meant to fail: why, by a pattern of the test's name.
    """

    peer: str
    swap: str
    file: str
    chosen: str = ""
    expected: Mapping[str, str] = field(default_factory=dict)


SUITES = (
    Suite("scikit-activeml", "scikit_activeml", "scikit_activeml_template.py"),
    Suite(
        "small-text",
        "small_text",
        "tests/unit/small_text/query_strategies/test_coresets.py",
        "GreedyCoreset",
        {
            r"FunctionTest::test_query(_with_num_unlabeled_smaller_than_num_batches)?$": (
                "asks for more picks than there are unlabeled samples; small-text repeats some, "
                "ours is an error"
            ),
            r"::test_str$": "compares with the name of small-text's own class",
            r"::test_init_with_distance_metric_warning$": (
                "expects to be told that small-text's default metric was another before 1.2; ours "
                "was not"
            ),
        },
    ),
    Suite(
        "baal",
        "baal",
        "tests/active/heuristic_test.py",
        "test_bald or test_entropy",
        {r"distributions[01]-": "has a map of labels for each sample; PoolStats takes one label"},
    ),
    Suite(
        "modAL",
        "modal",
        "tests/core_tests.py",
        "on_transformed and not Bayesian",
        {
            r"with_variable_transformation$": (
                "has counts of words, a sparse matrix; farthest_first takes dense ones"
            ),
            r"::test_on_transformed$": (
                "queries, and then modAL stacks DataFrames by a method that pandas has dropped"
            ),
        },
    ),
    Suite("distil", "distil", "test/active_learning_strategies/test_core_set.py"),
)


def run(suite: Suite, folder: Path) -> bool:
    """Run a suite, pytest's report on stdout; return whether only what is expected failed."""
    sources = obtain(suite.peer, folder).resolve()
    ours = suite.file.endswith("_template.py")
    file = (Path(__file__).parent if ours else sources) / suite.file
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--tb=line", "-rfE"]
    command += ["-p", f"benchmarks.peers.swaps.{suite.swap}", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(file.parent), "--import-mode=importlib"]
    command += [str(file), *(["-k", suite.chosen] if suite.chosen else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PEER_SOURCES": str(sources)}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            command, cwd=empty, env=environment, stdout=subprocess.PIPE, text=True
        )
    print(done.stdout)
    surprises = []
    for test in re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.M):
        why = next((why for name, why in suite.expected.items() if re.search(name, test)), None)
        print(f"{test.rpartition('/')[2]}: {why or 'NOT EXPECTED'}")
        surprises += [test] if why is None else []
    return not surprises and done.returncode in (0, 1)

"""The compiled kernels on an emulated Arm CPU: the tests of this folder, run with those kernels."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arm import emulated

ROOT = Path(__file__).parents[1]
# A few of each kind; `make test-arm` runs all of them.
SELECTED = """
    test_backend_equals_reference and cpu and not wide
    or test_block_sizes_change_nothing and cpu and lattice
    or test_every_dtype_is_taken_as_given and cpu
    or test_update_agrees_with_float64 and cpu-baseline-1 and not 1000
    or test_narrow_outputs_and_wide_counts and cpu-baseline-2
    or test_update_from_features and cpu-baseline-1 and not 333
    or test_every_backend_drops_what_the_definition_drops and 35
    or test_agrees_with_the_reference
    or test_outer_products
    or test_labeled_as_indices_or_a_mask_are_never_drawn
"""


@pytest.mark.slow
def test_the_kernels_agree_with_the_references_on_arm():
    if missing := emulated.missing():
        pytest.skip(f"needs {' and '.join(missing)}, to compile for Arm and to run that")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "tests.arm.plugin"]
    ran = subprocess.run(
        [*command, *emulated.files(), "-k", " ".join(SELECTED.split())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
    assert int(re.findall(r"(\d+) passed", ran.stdout)[0]) > 100
    assert "Arm" in ran.stdout  # the line of the plugin: which kernels ran

"""What a traversal takes beside its pool: so many bytes a row, whatever the picks and labels."""

import json
import subprocess
import sys

import numpy as np
import pytest

ROWS = 1_500_000
BLOCKS = 40e6  # bytes whose number does not depend on the rows


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("labeled", [0, 600])
def test_at_most_32_bytes_a_row(tmp_path, labeled):
    rng = np.random.default_rng(0)
    files = [tmp_path / "pool.npy", tmp_path / "labeled.npy"]
    for file, rows in zip(files, (ROWS, labeled), strict=True):
        np.save(file, rng.standard_normal((rows, 8), dtype=np.float32).astype(np.float16))
    command = [sys.executable, "-m", "benchmarks.large_pool", str(files[0]), "300"]
    command += [str(files[1])] if labeled else []
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    took = json.loads(ended.stdout)
    own = took["peak_anonymous"] - took["anonymous_before"]
    assert own <= 32 * ROWS + BLOCKS

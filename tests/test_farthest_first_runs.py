"""farthest_first in a process of its own: interruption, memory; and on real embeddings."""

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast import farthest_first
from dynal_fast.ops.farthest_first import reference

ROOT = Path(__file__).parent.parent
MNIST = Path(os.environ.get("DYNAL_FAST_DATA", ROOT.parent / "shared" / "data")) / "mnist"

INTERRUPTED = """
import signal, sys
import numpy as np
from dynal_fast import farthest_first
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
pool = np.random.default_rng(0).standard_normal((40_000, 256), dtype=np.float32)
before = farthest_first(pool[:500], 50)
print("started", flush=True)
try:
    farthest_first(pool, 39_000, pool[:20_000] + 1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    again = farthest_first(pool[:500], 50)
    sys.exit(0 if (again.indices == before.indices).all() else 2)
sys.exit(1)
"""

MEASURED = """
import sys
import numpy as np
from dynal_fast import farthest_first

def kilobytes(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key))

n, m, k = map(int, sys.argv[1:])
pool = np.random.default_rng(0).standard_normal((n, 256), dtype=np.float32)
labeled = np.random.default_rng(1).standard_normal((m, 256), dtype=np.float32)
farthest_first(pool[:500], 10, labeled[:50])
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")  # the peak starts from here
before = kilobytes("VmRSS")
farthest_first(pool, k, labeled)
print((kilobytes("VmHWM") - before) // 1024)
"""


def test_interrupt_is_seen_within_a_second_and_breaks_nothing():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "started\n"
        time.sleep(0.7)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - sent < 1
        assert process.wait(timeout=60) == 0


def peak_megabytes(limit: int, *sizes: int) -> int:
    """Return a process's peak, of up to three if it is not below the limit.

    What else happens in a process only adds to its peak.
    """
    command = [sys.executable, "-c", MEASURED, *map(str, sizes)]
    peaks: list[int] = []
    while len(peaks) < 3 and (not peaks or peaks[-1] >= limit):
        peaks.append(int(subprocess.check_output(command, cwd=ROOT, text=True)))
    return min(peaks)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_holds_no_matrix_of_distances_nor_a_copy_of_the_pool():
    """A copy of the pool would take 59 MB, of the labeled set 39 MB; distances 240 MB or more."""
    usual = peak_megabytes(45, 60_000, 1_000, 100)
    assert usual < 45
    assert peak_megabytes(usual + 25, 20_000, 40_000, 100) < usual + 25
    assert peak_megabytes(usual + 25, 60_000, 1_000, 1_000) < usual + 25


def read_idx(name: str) -> np.ndarray:
    with gzip.open(MNIST / name) as stream:
        data = stream.read()
    axes = data[3]
    shape = np.frombuffer(data, ">i4", count=axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


@pytest.fixture(scope="module")
def lenet_embeddings() -> np.ndarray:
    """(20,000, 512) penultimate features of a LeNet trained briefly on the first 4,000 images."""
    if not MNIST.exists():
        pytest.skip(f"no MNIST at {MNIST}; set DYNAL_FAST_DATA to the folder that holds mnist/")
    images = torch.from_numpy(read_idx("train-images-idx3-ubyte.gz")[:20_000].copy())
    labels = torch.from_numpy(read_idx("train-labels-idx1-ubyte.gz").astype(np.int64))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(800, 512),
            nn.ReLU(),
        )
        model = nn.Sequential(body, nn.Linear(512, 10))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for batch in torch.randperm(4_000).split(100):
            loss = nn.functional.cross_entropy(model(images[batch, None] / 255), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return torch.cat([body(part[:, None] / 255) for part in images.split(2000)]).numpy()


@pytest.mark.slow
def test_picks_on_lenet_embeddings_equal_the_reference(lenet_embeddings):
    """15,000 in the pool, 5,000 labeled, 200 picks.

    The reference runs on the samples that can matter: those whose distance to the labeled set is
    at least that of its own last pick. The rest never come near, whatever is picked.
    """
    labeled, pool = lenet_embeddings[:5_000], lenet_embeddings[5_000:]
    got = farthest_first(pool, 200, labeled)
    threshold = float(got.distances[-1]) ** 2
    matter = np.flatnonzero(float32_minimum(pool, labeled) >= 0.99 * threshold)
    minimum = exact_minimum(pool[matter], labeled)
    indices, values, _ = reference.farthest_first(pool[matter], 200, minimum)
    assert values[-1] > 0.999 * threshold  # so that the samples left out did not matter
    np.testing.assert_array_equal(got.indices.numpy(), matter[indices])
    np.testing.assert_array_equal(got.distances.numpy(), np.sqrt(values))


def float32_minimum(pool: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """Squared distances to the nearest labeled sample, to about 1e-4."""
    y = torch.from_numpy(labeled)
    norms = (y * y).sum(dim=1)
    minima = [
        torch.addmm(norms, x, y.T, alpha=-2).amin(dim=1) + (x * x).sum(dim=1)
        for x in torch.from_numpy(pool).split(1000)
    ]
    return torch.cat(minima).numpy()


def exact_minimum(pool: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """Decision values to the nearest labeled sample; float64 products find who that may be."""
    y = torch.from_numpy(labeled).double()
    norms, values = (y * y).sum(dim=1), []
    for row in pool:
        distance = norms - 2 * (y @ torch.from_numpy(row).double())
        close = (distance <= distance.min() + 1e-9 * norms.max()).numpy()
        values.append(reference.decision_values(labeled[close], row, "euclidean").min())
    return np.array(values, dtype=np.float32)

"""assign_to_picks: every backend against the definition, ties, and what it says of a traversal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynal_fast import assign_to_picks, farthest_first
from dynal_fast.ops.farthest_first import nearest, reference, routing
from tests.cases.farthest_first import clustered, gaussian, lattice, small_cases
from tests.test_farthest_first_properties import problems

ROOT = Path(__file__).parent.parent
CASES = small_cases()
BACKENDS = ["cpu", "reference-heads"]


@pytest.fixture
def small_clusters(monkeypatch):
    """Clusters so small that small sets of centers have several, and rows meet them in tiles."""
    for name, value in {"CLUSTERED_FROM": 4, "PROBES": 1, "TILE": 2048}.items():
        monkeypatch.setattr(routing, name, value)


def assert_same(got, want):
    for name, values in want._asdict().items():
        assert torch.equal(getattr(got, name), values), name


def pair_by_pair(pool, centers, metric):
    """The first of the nearest centers, from all decision values at once."""
    values = [reference.decision_values(pool, center, metric) for center in centers]
    values = np.stack(values, axis=1)
    return values.argmin(axis=1), values.min(axis=1)


@pytest.mark.usefixtures("small_clusters")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", CASES)
def test_backends_equal_the_reference(name, metric):
    pool, labeled = CASES[name]
    if metric == "cosine" and (pool == 0).all(axis=1).any():
        pool, labeled = pool + 1, None if labeled is None else labeled + 1
    pool, labeled = pool[:90], None if labeled is None else labeled[:20]
    traversal = farthest_first(pool, max(1, len(pool) // 4), labeled, metric=metric)
    picks = traversal.indices.numpy()
    want = assign_to_picks(pool, picks, labeled, metric=metric, backend="reference")
    for backend in BACKENDS if name in ("clustered", "lattice", "one sample") else ["cpu"]:
        assert_same(assign_to_picks(pool, picks, labeled, metric=metric, backend=backend), want)
    assert float(want.distances.max()) == np.float32(traversal.radius)
    assert ((want.pick >= 0) != (want.labeled >= 0)).all()
    if name not in ("subnormal", "tiny", "large"):  # which have a scale of their own
        centers = pool[picks] if labeled is None else np.concatenate([labeled, pool[picks]])
        before = len(centers) - len(picks)
        at, values = pair_by_pair(pool, centers, metric)
        np.testing.assert_array_equal(want.pick, np.where(at >= before, at - before, -1))
        np.testing.assert_array_equal(want.labeled, np.where(at < before, at, -1))
        root = np.sqrt(values) if metric == "euclidean" else values
        np.testing.assert_array_equal(want.distances, root)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", ["clustered", "lattice", "bootstrap", "every distance ties"])
def test_instruction_sets_and_threads_change_nothing(name):
    pool, labeled = CASES[name]
    pool = pool[:120]
    picks = farthest_first(pool, 30, labeled).indices
    want = assign_to_picks(pool, picks, labeled, backend="reference")
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert_same(assign_to_picks(pool, picks, labeled, backend="cpu"), want)
    finally:
        torch.set_num_threads(threads)


@settings(max_examples=30, deadline=None)
@given(problems(), st.sampled_from(["euclidean", "cosine"]), st.data())
def test_any_small_pool(problem, metric, data):
    pool, labeled, _ = problem
    if metric == "cosine":
        pool, labeled = np.hypot(pool, 0.5), np.hypot(labeled, 0.5)
    picks = data.draw(st.lists(st.integers(0, len(pool) - 1), max_size=20))
    want = assign_to_picks(pool, picks, labeled, metric=metric, backend="reference")
    assert_same(assign_to_picks(pool, picks, labeled, metric=metric, backend="cpu"), want)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_ties_go_to_labeled_samples_and_to_the_first(backend):
    pool = np.array([[0.0], [2.0], [4.0], [1.0], [3.0], [2.0]], np.float32)
    got = assign_to_picks(pool, [2, 0, 1, 5], backend=backend)
    assert got.pick.tolist() == [1, 2, 0, 1, 0, 2]
    got = assign_to_picks(pool, [2, 0, 0], labeled=[5, 1], backend=backend)
    assert got.labeled.tolist() == [-1, 0, -1, 0, 0, 0]
    assert got.pick.tolist() == [1, -1, 0, -1, -1, -1]
    got = assign_to_picks(pool, [0], labeled=np.float32([[4.0], [4.0], [2.0]]), backend=backend)
    assert got.labeled.tolist() == [-1, 2, 0, 2, 0, 2]
    assert got.distances.tolist() == [0, 0, 0, 1, 1, 0]
    mask = np.array([False, True, False, False, False, True])
    assert assign_to_picks(pool, [0], mask, backend=backend).labeled.tolist()[1:3] == [0, 0]
    assert assign_to_picks(pool, mask, backend=backend).pick.tolist() == [0] * 6


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_edges(backend):
    pool = gaussian(30, 4)
    every = assign_to_picks(pool, np.arange(30), backend=backend)
    assert every.pick.tolist() == list(range(30))
    assert not every.distances.any()
    nobody = assign_to_picks(pool, [], np.empty((0, 4), np.float32), backend=backend)
    assert nobody.pick.eq(-1).all()
    assert nobody.labeled.eq(-1).all()
    assert nobody.distances.isinf().all()
    assert nobody.distances.dtype == torch.float32
    one = assign_to_picks(pool[:1], [0], backend=backend)
    assert one.pick.tolist() == [0]
    none = assign_to_picks(pool[:0], [], pool, backend=backend)
    assert [len(part) for part in none] == [0, 0, 0]
    only_labeled = assign_to_picks(pool, [], pool[::-1].copy(), backend=backend)
    assert only_labeled.labeled.tolist() == list(range(29, -1, -1))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_many_centers_in_clusters(metric):
    """Two sets of centers with clusters of the usual size, and tiles of rows."""
    pool, labeled = clustered(3000, 16), clustered(600, 16, seed=1)
    picks = farthest_first(pool, 700, labeled, metric=metric).indices
    got = assign_to_picks(pool, picks, labeled, metric=metric)
    centers = np.concatenate([labeled, pool[picks]]).astype(np.float64)
    x = pool.astype(np.float64)
    if metric == "euclidean":
        values = (x**2).sum(1)[:, None] + (centers**2).sum(1) - 2 * x @ centers.T
    else:
        x, centers = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (x, centers))
        values = 1 - x @ centers.T
    at = torch.where(got.labeled >= 0, got.labeled, got.pick + 600).numpy()
    chosen = values[np.arange(3000), at]
    assert (chosen <= values.min(axis=1) + 1e-6).all()
    distances = np.sqrt(np.maximum(chosen, 0)) if metric == "euclidean" else chosen
    np.testing.assert_allclose(got.distances, distances, atol=1e-5)


def test_tiles_of_rows_change_nothing(monkeypatch):
    pool = lattice(300, 4)
    want = assign_to_picks(pool, np.arange(0, 300, 7))
    told = []
    monkeypatch.setattr(nearest, "CHUNK", 37)
    monkeypatch.setattr(
        "dynal_fast.ops.farthest_first.assign.Progress.reach", lambda _, n: told.append(n)
    )
    assert_same(assign_to_picks(pool, np.arange(0, 300, 7)), want)
    assert told == [*range(37, 300, 37), 300]


def test_the_progress_bar_counts_samples(capsys):
    assign_to_picks(gaussian(30, 4), [0, 1], progress=True)
    assert "assign: 100%" in capsys.readouterr().err
    assign_to_picks(gaussian(30, 4), [0, 1], progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"picks": [30]}, r"picks holds pool index 30, outside \[0, 30\)"),
        ({"picks": [0.5]}, r"picks with one axis must hold integer pool indices"),
        ({"picks": None}, r"picks must be .* got NoneType"),
        ({"picks": np.zeros((3, 4))}, r"picks must be pool indices \(m,\) or a mask \(30,\), got"),
        ({"picks": np.zeros(29, bool)}, r"picks must have one entry for each of the 30"),
        ({"labeled": gaussian(3, 5)}, r"labeled must have the pool's 4 dimensions, got 5"),
        ({"metric": "dot"}, r"metric must be one of"),
        ({"backend": "abacus"}, r"backend must be one of"),
        ({"pool": np.full((30, 4), np.nan)}, r"pool row 0 holds a NaN"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"pool": gaussian(30, 4), "picks": [1], **change}
    with pytest.raises((ValueError, TypeError), match=message):
        assign_to_picks(**arguments)


INTERRUPTED = """
import signal, sys
import numpy as np
from dynal_fast import assign_to_picks
signal.signal(signal.SIGINT, signal.default_int_handler)
pool = np.random.default_rng(0).standard_normal((60_000, 256), dtype=np.float32)
print("started", flush=True)
try:
    assign_to_picks(pool, np.arange(0, 60_000, 2))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(0)
sys.exit(1)
"""


def test_interrupt_is_seen():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "started\n"
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(timeout=60) == 0

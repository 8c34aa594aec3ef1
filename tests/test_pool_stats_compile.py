"""The update inside ``torch.compile`` and CUDA graphs: the in-place writes must not get lost."""

import pytest
import torch

from dynal_fast.ops.pool_stats import (
    MAX_UNKNOWN_IDS,
    STAMP_STEP,
    Tracker,
    pool_stats_update,
    pool_stats_update_from_features,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def fresh(device, n=12, num_classes=5):
    state = {
        "count": torch.zeros(n, dtype=torch.int32, device=device),
        "mean": torch.zeros(n, num_classes, device=device),
        "label_counts": torch.zeros(n, num_classes, dtype=torch.uint8, device=device),
        "output": torch.full((n, num_classes), float("nan"), device=device),
        "cycle_discrepancy": torch.full((n,), float("nan"), device=device),
    }
    return Tracker(
        pass_stamp=torch.tensor([STAMP_STEP], dtype=torch.int32, device=device),
        stamp=torch.zeros(n, dtype=torch.int32, device=device),
        unknown_ids=torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=device),
        state=state,
    )


def observe(ids, logits, tracker):
    """Twice in one graph, with the first result read in between."""
    pool_stats_update(ids, logits * 2, None, *tracker)
    seen = tracker.state["count"].sum() + tracker.state["mean"].sum()
    tracker.pass_stamp.add_(STAMP_STEP)
    pool_stats_update(ids, logits + 1, None, *tracker)
    return seen


def observe_features(ids, features, weight, tracker):
    pool_stats_update_from_features(ids, features, weight, None, None, None, None, *tracker)
    return tracker.state["mean"].sum()


def assert_same(left, right):
    tensors = [[*tracker[:3], *tracker.state.values()] for tracker in (left, right)]
    for a, b in zip(*tensors, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
def test_inductor_keeps_the_updates(device):
    ids, logits = torch.tensor([3, 0, 7, 11], device=device), torch.randn(4, 5, device=device)
    got = fresh(device)
    want = fresh(device)
    want_seen = observe(ids, logits, want)
    seen = torch.compile(observe, fullgraph=True)(ids, logits, got)
    torch.testing.assert_close(seen, want_seen)
    assert got.state["count"].sum() == 8
    assert_same(got, want)


@pytest.mark.parametrize("device", DEVICES)
def test_inductor_keeps_the_update_from_features(device):
    ids = torch.tensor([3, 0, 7, 11], device=device)
    features, weight = torch.randn(4, 6, device=device), torch.randn(5, 6, device=device)
    got = fresh(device)
    want = fresh(device)
    want_seen = observe_features(ids, features, weight, want)
    seen = torch.compile(observe_features, fullgraph=True)(ids, features, weight, got)
    torch.testing.assert_close(seen, want_seen)
    assert_same(got, want)


@pytest.mark.gpu
def test_a_captured_graph_is_replayed_in_later_passes():
    ids, logits = torch.tensor([3, 0, 7, 11], device="cuda"), torch.randn(4, 5, device="cuda")
    got = fresh("cuda")
    want = fresh("cuda")
    for _ in range(3):
        want.pass_stamp.add_(STAMP_STEP)
        pool_stats_update(ids, logits, None, *want)
    warm = fresh("cuda")
    pool_stats_update(ids, logits, None, *warm)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got.pass_stamp.add_(STAMP_STEP)
        pool_stats_update(ids, logits, None, *got)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert_same(got, want)
